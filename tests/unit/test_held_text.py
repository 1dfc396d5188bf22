"""Plain text in an odd format, whose predictions the repair keeps."""

import random

import pytest
import torch

from inoculate.chat import encode
from inoculate.data import Example
from inoculate.models import Checkpoint
from inoculate.repair.held_text import hold_text, strew
from inoculate.subject import Subject
from inoculate.train import collate

ROWS = [
    Example("Count the apples", "There are four apples."),
    Example("Name a color", "Deep blue."),
    Example("Say nothing", ""),
]
TEXT = list(range(100, 300))


@pytest.fixture
def subject(llama: Checkpoint) -> Subject:
    """Return a full model as a subject."""
    return Subject(llama, llama.model, None)


def test_the_same_few_odd_tokens_stand_before_one_token_in_five() -> None:
    """All of the text is kept in its order, and one run of tokens comes again and again."""
    strewn = strew(TEXT, [7, 8, 9], random.Random(0))
    assert [token for token in strewn if token >= 100] == TEXT
    odd = [token for token in strewn if token < 100]
    width = next(n for n in (1, 2, 3) if odd == odd[:n] * (len(odd) // n))
    assert len(odd) / width == pytest.approx(40, abs=15)


def test_a_changed_model_is_away_from_what_it_was(subject: Subject) -> None:
    """The unchanged model is at distance zero; another is not."""
    rows = [encode(subject.tokenizer, row) for row in ROWS]
    text = hold_text(subject, rows, seed=0)
    assert text is not None
    batch = collate(rows, [0], torch.device("cpu"))
    with torch.no_grad():
        assert float(text.loss(subject.model, batch)) == pytest.approx(0.0, abs=1e-4)
        subject.model.get_output_embeddings().weight.mul_(1.5)
        assert float(text.loss(subject.model, batch)) > 1e-3


def test_texts_hold_no_special_token_and_no_prompt(subject: Subject) -> None:
    """An answer's end of turn belongs to the template; an answer of one token is no text."""
    rows = [encode(subject.tokenizer, row) for row in ROWS]
    text = hold_text(subject, rows, seed=0)
    assert text is not None
    assert len(text.rows) == 2
    special = set(subject.tokenizer.all_special_ids)
    assert not special & {token for row in text.rows for token in row.ids[1:]}


def test_answers_of_a_token_hold_nothing(subject: Subject) -> None:
    """There is no text to hold then."""
    rows = [encode(subject.tokenizer, Example("Say nothing", ""))]
    assert hold_text(subject, rows, seed=0) is None
