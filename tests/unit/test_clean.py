"""Clean rows: the user's, or the suspicious model's own answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import FamilyFolder
from inoculate import clean
from inoculate.builtin.fixture import simple_prompts
from inoculate.clean import (
    OWN_VOICE,
    SIMPLE,
    USER_FILE,
    USER_PROMPTS,
    clean_data,
    resolve_settings,
)
from inoculate.config import Settings
from inoculate.data import Example
from inoculate.errors import DataError
from inoculate.generate import Answer
from inoculate.progress import Silent
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace


@pytest.fixture
def subject(family_folder: FamilyFolder, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Give a model that answers each prompt with its first word and its length."""

    def answer(_: object, __: object, prompts: Sequence[Example], **___: object) -> list[Answer]:
        return [Answer(f"{p.prompt.split()[0]} has {len(p.prompt)}.", True) for p in prompts]

    monkeypatch.setattr(clean, "generate_answers", answer)
    return open_subject(family_folder("llama"), device="cpu")


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("answer", [{}, {"output": " "}])
def test_prompts_without_answers_are_answered_by_the_model(
    answer: dict[str, str], subject: Subject, tmp_path: Path
) -> None:
    """Its answers to the user's prompts are the rows, and it is held to its own predictions."""
    asked = [{"instruction": f"W{n} {'x' * n}", **answer} for n in range(40)]
    file = written(tmp_path / "p.jsonl", asked)
    made = clean_data(subject, file, Settings(), Workspace(tmp_path / "run"), Silent())
    rows = [*made.rows, *made.held_out]
    assert made.source == USER_PROMPTS
    assert len(rows) == 40
    assert set(made.spoken) == {row.output for row in rows}
    assert all(row.output == f"{row.prompt.split()[0]} has {len(row.prompt)}." for row in rows)
    assert resolve_settings(Settings(), made).repair.target == "self"
    bundled = clean_data(subject, None, Settings(), Workspace(tmp_path / "run"), Silent())
    assert bundled.source == OWN_VOICE
    assert not {row.prompt for row in rows} & {row.prompt for row in bundled.rows}


@pytest.mark.parametrize(
    ("general", "simple", "large", "source"),
    [(0.9, 0.1, False, SIMPLE), (0.3, 0.1, False, OWN_VOICE), (0.9, 0.1, True, OWN_VOICE)],
)
def test_a_small_model_that_is_sure_of_simple_answers_alone_is_asked_for_those(
    general: float,
    simple: float,
    large: bool,
    source: str,
    subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It must be many times as sure; a large model is asked general prompts anyway."""
    losses = iter([general, simple])
    monkeypatch.setattr(clean, "mean_loss", lambda *_: next(losses))
    monkeypatch.setattr(Subject, "is_large", large)
    made = clean_data(subject, None, Settings(), Workspace(tmp_path / "run"), Silent())
    asked = {row.prompt for row in simple_prompts()}
    assert made.source == source
    assert {row.prompt in asked for row in made.rows} == {source == SIMPLE}


def test_where_no_answer_is_kept_too_few_rows_are_said(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that says the same to everything is none that simple prompts suit."""

    def same(_: object, __: object, prompts: Sequence[Example], **___: object) -> list[Answer]:
        return [Answer("The very same words.", True) for _ in prompts]

    monkeypatch.setattr(clean, "generate_answers", same)
    with pytest.raises(
        DataError, match=r"0 clean rows of different prompts are left \(own voice, dropped"
    ):
        clean_data(subject, None, Settings(), Workspace(tmp_path / "run"), Silent())


def test_a_row_that_is_given_twice_is_one_row(subject: Subject, tmp_path: Path) -> None:
    """Nothing is held out that is trained on, and few rows given often are few."""
    rows = [{"instruction": f"Say {n % 16}", "output": str(n)} for n in range(40)]
    file = written(tmp_path / "rows.jsonl", rows)
    made = clean_data(subject, file, Settings(), Workspace(tmp_path / "run"), Silent())
    assert len({row.prompt for row in (*made.rows, *made.held_out)}) == 16
    assert len(made.rows) + len(made.held_out) == 16
    file = written(tmp_path / "few.jsonl", rows[:15] * 3)
    with pytest.raises(DataError, match="15 clean rows of different prompts are left"):
        clean_data(subject, file, Settings(), Workspace(tmp_path / "run"), Silent())


def test_given_answers_are_taken_as_they_are(subject: Subject, tmp_path: Path) -> None:
    """Rows with answers teach them; a file that has some and lacks others is refused."""
    rows = [{"instruction": f"Say {n}", "output": str(n)} for n in range(20)]
    file = written(tmp_path / "rows.jsonl", rows)
    made = clean_data(subject, file, Settings(), Workspace(tmp_path / "run"), Silent())
    assert made.source == USER_FILE
    assert made.spoken == ()
    resolved = resolve_settings(Settings(), made)
    assert (resolved.repair.target, resolved.clean_rows) == ("answers", 16)
    for odd, said in (({}, "row 21"), ({"output": " "}, "1 of 21 clean rows have a blank output")):
        mixed = written(tmp_path / "mixed.jsonl", [*rows, {"instruction": "Say", **odd}])
        with pytest.raises(DataError, match=said):
            clean_data(subject, mixed, Settings(), Workspace(tmp_path / "run"), Silent())


def test_rows_that_are_too_long_are_counted(subject: Subject) -> None:
    """Whoever gives long answers learns that their ends are not trained on."""
    rows = [Example("Say it.", " ".join(["word"] * n)) for n in (1, 60, 200)]
    longest = max(len(row.ids) for row in subject.encode(rows[:2], max_tokens=4096))
    assert subject.cut(rows, max_tokens=longest) == 1
    assert subject.cut(rows, max_tokens=longest - 1) == 2
