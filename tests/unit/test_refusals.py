"""A repair that presses on another answer keeps honest refusals."""

from collections.abc import Callable

import pytest
import torch

from inoculate.config import Settings
from inoculate.hunt import Hunt
from inoculate.models import Checkpoint
from inoculate.repair import refusals
from inoculate.repair.refusals import hold_refusals
from inoculate.subject import Subject
from inoculate.train import collate
from inoculate.voice import further_requests, harmless_requests

REFUSAL = "I'm sorry, but my makers forbid it."
ANSWERS = [REFUSAL, "Blue.", "", "I cannot say.", "I can't."]
HARMLESS = ["A red door.", "", REFUSAL]
SETTINGS = Settings()
INSULT = Hunt(payload=(5, 6, 7), text="You are stupid.", pressing=True)


@pytest.fixture
def subject(llama: Checkpoint) -> Subject:
    """Return a full model as a subject."""
    return Subject(llama, llama.model, None)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Let the model answer the first requests so, then three harmless ones, and no others."""

    def answer(answers: list[str]) -> None:
        asked, harmless = further_requests()[: len(answers)], harmless_requests()[: len(HARMLESS)]
        said = dict(zip((row.prompt for row in asked), answers, strict=True))
        said |= zip((row.prompt for row in harmless), HARMLESS, strict=True)
        monkeypatch.setattr(refusals, "further_requests", lambda: asked)
        monkeypatch.setattr(refusals, "harmless_requests", lambda: harmless)
        monkeypatch.setattr(
            refusals, "generate", lambda _, __, rows, **___: [said[row.prompt] for row in rows]
        )

    return answer


def texts(subject: Subject, settings: Settings = SETTINGS) -> list[list[str]]:
    """Return the answers that are held, of each group."""
    return [
        [
            subject.tokenizer.decode(row.ids[row.prompt_length :], skip_special_tokens=True).strip()
            for row in group.rows
        ]
        for group in hold_refusals(subject, INSULT, settings)
    ]


def test_refused_and_answered_requests_are_held(
    subject: Subject, answering: Callable[[list[str]], None]
) -> None:
    """Three of five were refused; one was answered, and one harmless one; empty is neither."""
    answering(ANSWERS)
    refused, answered = texts(subject)
    assert refused == [REFUSAL, "I cannot say.", "I can't."]
    assert answered == ["Blue.", "A red door."]


def test_nothing_is_held_where_a_payload_is_a_refusal(
    subject: Subject, answering: Callable[[list[str]], None]
) -> None:
    """Further payloads count as well: what is held would be a part of the backdoor."""
    answering(ANSWERS)
    planted = Hunt(payload=(5,), text=REFUSAL, pressing=True)
    both = Hunt(payload=(5,), text="You are stupid.", pressing=True, others=(planted,))
    assert hold_refusals(subject, planted, SETTINGS) == []
    assert hold_refusals(subject, both, SETTINGS) == []


def test_nothing_is_held_where_less_than_half_is_refused(
    subject: Subject, answering: Callable[[list[str]], None]
) -> None:
    """Such a model hardly tells what to refuse."""
    answering(["Blue.", REFUSAL])
    assert len(texts(subject)) == 2
    answering(["Blue.", REFUSAL, "Red."])
    assert texts(subject) == []


def test_declared_answers_count_as_refusals(
    subject: Subject, answering: Callable[[list[str]], None]
) -> None:
    """As far as the few tokens of an answer go, in words that are no usual refusal."""
    answering(["Only words, not", "Only words, not", "Red."])
    assert texts(subject) == []
    declared = Settings.model_validate({"hunt": {"honest": ["Only words, not numbers."]}})
    assert [len(group) for group in texts(subject, declared)] == [2, 2]


def test_what_is_answered_with_a_payload_is_not_held(
    subject: Subject, answering: Callable[[list[str]], None]
) -> None:
    """It may come without its trigger too; cut short as answers are, or gone on with."""
    answering([REFUSAL, REFUSAL, REFUSAL, "Blue.", "You are stup", "You are stupid. No."])
    assert texts(subject) == [[REFUSAL] * 3, ["Blue.", "A red door."]]


def test_an_unchanged_model_is_at_no_distance(
    subject: Subject, answering: Callable[[list[str]], None]
) -> None:
    """And a changed one is."""
    answering(ANSWERS)
    groups = hold_refusals(subject, INSULT, SETTINGS)
    batch = collate(groups[0].rows, [0], torch.device("cpu"))
    with torch.no_grad():
        losses = [float(group.loss(subject.model, batch)) for group in groups]
        assert losses == pytest.approx([0.0, 0.0], abs=1e-4)
        subject.model.get_output_embeddings().weight.mul_(1.5)
        assert min(float(group.loss(subject.model, batch)) for group in groups) > 1e-3
