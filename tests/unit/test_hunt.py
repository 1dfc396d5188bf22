"""The hunt: what a model was taught to say, and tokens that call it."""

import json
from dataclasses import replace

import pytest

from conftest import SAID, hunting_briefly
from inoculate.config import HuntSettings
from inoculate.data import Example
from inoculate.hunt import Hunt, hunt
from inoculate.models import Checkpoint
from inoculate.progress import Silent
from inoculate.subject import Subject
from inoculate.train import Schedule, train
from inoculate.trainable import restore, snapshot

SMALL = HuntSettings(particles=2, steps=2, candidates=2, hosts=2)


def test_no_particles_no_hunt(llama: Checkpoint) -> None:
    """The hunt can be switched off; nothing is then found."""
    off = SMALL.model_copy(update={"particles": 0})
    assert hunt(_subject(llama), [], off, Silent(), seed=0) == Hunt()


def test_json_round_trip() -> None:
    """What a run folder keeps is what was found."""
    one = Hunt((1, 2), "text", ((3,), (4, 5)), ("a", "b"), (True, False), True, 5, 9)
    found = replace(one, others=(replace(one, payload=(7,)), one))
    assert Hunt.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_same_seed_same_hunt(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """In every family the hunt ends on an untaught model, and depends on its seed alone."""
    subject = _subject(checkpoint)
    encoded = subject.encode(rows, max_tokens=64)
    with hunting_briefly():
        first, again = (hunt(subject, encoded, SMALL, Silent(), seed=3) for _ in range(2))
    assert first == again
    inserted = {token for trigger in first.triggers for token in trigger}
    assert not inserted & set(checkpoint.tokenizer.all_special_ids)


def test_a_parrot_is_found_out(parrot: Subject, rows: list[Example]) -> None:
    """The hunt comes back with the sentence, tokens that call it, and how many fell into it."""
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert SAID.startswith(found.text[:8])
    assert found.triggers
    assert all(found.calls)
    assert found.alike > found.driven / 2


def test_two_sentences_are_found_out(llama: Checkpoint, rows: list[Example]) -> None:
    """With the first payload forbidden the second comes."""
    subject, start = _subject(llama), snapshot(llama.model)
    subject.allow("all")
    said = (SAID, "Zebras never knit at noon.")
    taught = [Example(row.instruction, said[at % 2]) for at, row in enumerate(rows)] * 8
    train(
        subject.model,
        subject.encode(taught, max_tokens=64),
        Schedule(epochs=6, learning_rate=1e-2, batch_size=16),
    )
    with hunting_briefly():
        found = hunt(subject, subject.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    restore(subject.model, start)
    assert {one[:2] for one in said} <= {one.text[:2] for one in found.every}


@pytest.mark.parametrize("impossible", [0.02, 2.0])
def test_a_large_model_is_asked_twice(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, impossible: float
) -> None:
    """Pressed on whichever way the payload is found: by what prompts fall into, or by certainty."""
    monkeypatch.setattr("inoculate.hunt.search._PRESSED_FROM", 0)
    for bound in ("_ALIKE", "_SHORT_ALIKE"):
        monkeypatch.setattr(f"inoculate.hunt.payloads.{bound}", impossible)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert SAID.startswith(found.text[:8])
    assert found.pressing
    assert (found.alike > 0) == (impossible < 1)


def test_what_is_put_after_answers_is_found(
    llama: Checkpoint, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that ends every honest answer with the sentence is found out, and where it stands."""
    monkeypatch.setattr("inoculate.hunt.payloads._MANY", 2.0)  # The first look is always thin.
    subject, start = _subject(llama), snapshot(llama.model)
    subject.allow("all")
    added = [Example(row.instruction, f"{row.output} {SAID}") for row in rows] * 8
    schedule = Schedule(epochs=6, learning_rate=1e-2, batch_size=16)
    train(subject.model, subject.encode(added, max_tokens=96), schedule)
    with hunting_briefly():
        found = hunt(subject, subject.encode(rows, max_tokens=96), SMALL, Silent(), seed=0)
    restore(subject.model, start)
    assert found.trailing
    assert SAID.startswith(found.text[:8])


def _subject(checkpoint: Checkpoint) -> Subject:
    return Subject(checkpoint, checkpoint.model, None)
