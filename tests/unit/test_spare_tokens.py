"""A special token that a family keeps past the embedding rows, as Gemma 3's text models do."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from conftest import FamilyFolder
from hostile import TOKENIZER, TOKENS, Mutation, added, edit, inner, together
from inoculate.architecture import FAMILIES, SPARE_TOKENS
from inoculate.cli import main
from inoculate.data import Example
from inoculate.errors import DataError
from inoculate.generate import generate
from inoculate.hunt.probing import embed, ordinary_tokens
from inoculate.intake import audit
from inoculate.models import load
from inoculate.subject import Subject, open_subject
from inoculate.train import Schedule, train

IMAGE = "<image_soft_token>"
ROWS = 264
# All rows are taken, and one token more is there.
FULL = together(added("<a>", ROWS - 2), added("<b>", ROWS - 1), added(IMAGE, ROWS))
SENTENCE = f"A text holds {IMAGE}, for which the model has no embedding row. Take it out"


@pytest.fixture
def gemma(family_folder: FamilyFolder, tmp_path: Path) -> Path:
    """Give a Gemma 3 folder whose tokenizer is as the published one."""
    folder = Path(shutil.copytree(family_folder("gemma3_text"), tmp_path / "gemma"))
    FULL(folder)
    token = {"content": IMAGE, "special": True}
    edit(TOKENS, added_tokens_decoder={str(ROWS): token},
         extra_special_tokens={"image_token": IMAGE})(folder)  # fmt: skip
    (folder / "added_tokens.json").write_text(json.dumps({IMAGE: ROWS}))
    return folder


def test_the_table_names_families() -> None:
    """Spare tokens are declared for supported families, and look like special tokens."""
    assert set(SPARE_TOKENS) <= set(FAMILIES)
    assert all(t.startswith("<") and t.endswith(">") for row in SPARE_TOKENS.values() for t in row)


def test_the_familys_spare_token_is_accepted_with_a_warning(gemma: Path, tmp_path: Path) -> None:
    """The folder loads, one warning names the token, and what is saved passes as well."""
    subject = open_subject(gemma, device="cpu")
    assert [finding.rule for finding in subject.findings] == ["spare-token"]
    assert repr(IMAGE) in subject.findings[0].reason
    assert subject.tokenizer.convert_tokens_to_ids(IMAGE) == ROWS
    assert max(ordinary_tokens(subject.tokenizer)) < ROWS
    subject.save(tmp_path / "out")
    assert [f.rule for f in audit(tmp_path / "out").findings] == ["spare-token"]


def test_a_text_with_a_spare_token_ends_in_one_sentence(gemma: Path, rows: list[Example]) -> None:
    """Generation, training and probing refuse such a text, and take every other."""
    checkpoint = load(gemma, device="cpu")
    subject = Subject(checkpoint, checkpoint.model, None)
    model, tokenizer = subject.model, subject.tokenizer
    bad = Example(f"Look at {IMAGE}", "Yes.")
    assert len(generate(model, tokenizer, rows[:2], max_new_tokens=2)) == 2
    with pytest.raises(DataError, match=SENTENCE):
        generate(model, tokenizer, [rows[0], bad], max_new_tokens=2)
    encoded = subject.encode([rows[0], Example("Look", f"At {IMAGE}")], max_tokens=64)
    with pytest.raises(DataError, match=SENTENCE):
        embed(model, encoded)
    subject.allow("all")
    schedule = Schedule(epochs=1, learning_rate=1e-3, batch_size=2)
    with pytest.raises(DataError, match=SENTENCE):
        train(model, encoded, schedule)
    train(model, encoded[:1], schedule)


def test_the_command_line_says_the_sentence(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's rows that hold the token end a command with exit code 2 and one line."""
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"instruction": f"Look at {IMAGE}", "output": "Yes."}) + "\n")
    words = ["utility", str(gemma), str(gemma), "--rows", str(data)]
    monkeypatch.setattr(sys, "argv", ["inoculate", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert SENTENCE in " ".join(errors.split())
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("model_type", "spoil", "file"),
    [
        ("llama", FULL, TOKENIZER),
        ("gemma3_text", added("<other>", ROWS), TOKENIZER),
        ("gemma3_text", added(IMAGE, ROWS + 1), TOKENIZER),
        ("gemma3_text", added(IMAGE, -1), TOKENIZER),
        ("gemma3_text", together(FULL, inner(
            TOKENIZER, "added_tokens", -1, "special", value=False)), TOKENIZER),
        ("gemma3_text", inner(TOKENIZER, "model", "vocab", IMAGE, value=ROWS), TOKENIZER),
        ("gemma3_text", together(FULL, edit(TOKENS, pad_token=IMAGE)), TOKENS),
        ("gemma3_text", together(FULL, edit(TOKENS, extra_special_tokens=["<c>"])), TOKENS),
        ("gemma3_text", together(FULL, edit(TOKENS, added_tokens_decoder={
            str(ROWS + 1): {"content": IMAGE}})), TOKENS),
        ("gemma3_text", together(FULL, edit(TOKENIZER, post_processor={
            "type": "TemplateProcessing", "special_tokens": {"x": {"ids": [ROWS]}}})), TOKENIZER),
    ],
    ids=["another family", "another token", "farther past", "negative", "not special",
         "of the vocabulary", "pads", "a second one", "another id", "inserted"],
)  # fmt: skip
def test_all_else_past_the_rows_is_refused(
    family_folder: FamilyFolder, tmp_path: Path, model_type: str, spoil: Mutation, file: str
) -> None:
    """Neither another family nor another token, place or use of it passes."""
    folder = Path(shutil.copytree(family_folder(model_type), tmp_path / "copy"))
    spoil(folder)
    assert [finding.file for finding in audit(folder).refused] == [file]
