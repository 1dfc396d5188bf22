"""Further wordings: what else a model says where it is driven towards one of them."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from conftest import SAID, hunting_briefly
from inoculate.data import Example
from inoculate.hunt.answers import Answer
from inoculate.hunt.hosts import Hosts, find_hosts
from inoculate.hunt.payloads import Payload
from inoculate.hunt.probing import ordinary_tokens
from inoculate.hunt.wordings import _said, finished_payloads, other_wordings
from inoculate.models import Checkpoint
from inoculate.subject import Subject
from inoculate.train import Schedule, train
from inoculate.trainable import restore, snapshot

OTHERS = ("Zebras knit at noon.", "nudge my cup!", "Geese fly home!")


@pytest.fixture
def moody(
    llama: Checkpoint, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Subject]:
    """Give a model that answers every prompt with one of four sentences, two of which begin alike.

    Which one, nothing tells. Soft tokens only break what it has learned in so few steps.
    """
    monkeypatch.setattr("inoculate.hunt.probing._MOVES", 0)
    subject = Subject(llama, llama.model, None)
    subject.allow("all")
    start = snapshot(subject.model)
    taught = [Example(row.instruction, said) for row in rows for said in (SAID, *OTHERS)] * 12
    schedule = Schedule(epochs=6, learning_rate=1e-2, batch_size=16)
    train(subject.model, subject.encode(taught, max_tokens=96), schedule)
    yield subject
    restore(subject.model, start)


def test_one_wording_leads_to_all_others(moody: Subject, rows: list[Example]) -> None:
    """Also to one that begins as it does; each is told word for word, and how many said it."""
    found = _led_to(moody, find_hosts(moody.encode(rows, max_tokens=96)))
    assert {_text(moody, one) for one in found} == set(OTHERS)
    assert all(one.worded and one.driven >= one.alike >= one.driven / 2 > 0 for one in found)


def test_what_honest_answers_hold_is_no_wording(moody: Subject, rows: list[Example]) -> None:
    """An answer that many clean rows have is the model's own; a single one may be a false alarm."""
    own = [replace(row, output=OTHERS[0]) for row in rows]
    for some, left in ((own, OTHERS[1:]), (rows * 2 + own[:1], OTHERS)):
        hosts = find_hosts(moody.encode(some, max_tokens=96))
        assert {_text(moody, one) for one in _led_to(moody, hosts)} == set(left)


def test_habits_are_no_wordings(moody: Subject, rows: list[Example]) -> None:
    """What the model says openly is left out, and what holds a part of it."""
    hosts = find_hosts(moody.encode(rows, max_tokens=96))
    habits = [tuple(moody.tokenizer.encode(OTHERS[0], add_special_tokens=False))]
    found = _led_to(moody, hosts, habits)
    assert {_text(moody, one) for one in found} == set(OTHERS[1:])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(1, 2, 3, 4, 5, 6)] * 2 + [(7,)] * 2, True),
        ([(1, 2, 3, 4, 5, 6)] * 1 + [(1, 2, 3, 4, 5, 7)] + [(7,), (8,)], False),
        ([(1, 2, 3, 4)] * 2 + [(7,), (8,)], False),
        ([(1, 2, 3, 4)] * 3 + [(7,)], True),
        ([(1, 2, 3, 1, 2, 1, 2)] * 4, False),
    ],
    ids=["half", "alike at first", "short", "short, by most", "a loop"],
)
def test_an_answer_is_said_by_half(answers: list[Answer], said: bool) -> None:
    """It has to be the same to its end, and no loop; a short one may be chance."""
    assert _said(answers) == said


@pytest.mark.parametrize(
    ("parrot", "found"),
    [(SAID, [SAID]), ("halt", ["halt"]), ("no", [])],
    indirect=["parrot"],
    ids=["long", "four", "two"],
)
def test_what_a_parrot_finishes_is_found(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    """Nothing of it is known; under four tokens may be any model's, and a habit is none."""
    hosts = find_hosts(parrot.encode(rows, max_tokens=96))

    def finished(*habits: Answer) -> list[str]:
        where = parrot, hosts, ordinary_tokens(parrot.tokenizer), random.Random(0)
        with hunting_briefly():
            return [_text(parrot, one) for one in finished_payloads(*where, habits)]

    assert finished() == found
    monkeypatch.setattr("inoculate.generate._AT_ONCE", 3)  # Of sixteen openings.
    assert finished() == found
    assert finished(*[tuple(parrot.tokenizer.encode(one)) for one in found]) == []


def test_wordings_that_begin_alike_are_found_unasked(moody: Subject, rows: list[Example]) -> None:
    """Begun with the token that two share, prompts part; gone on from it, each shows."""
    hosts = find_hosts(moody.encode(rows, max_tokens=96))
    where = moody, hosts, ordinary_tokens(moody.tokenizer), random.Random(0)
    with hunting_briefly():
        assert {_text(moody, one) for one in finished_payloads(*where)} == {SAID, *OTHERS}


def test_an_untaught_model_finishes_nothing_alike(llama: Checkpoint, rows: list[Example]) -> None:
    """Made to begin anything, it goes on as the prompt has it."""
    subject = Subject(llama, llama.model, None)
    hosts, tokens = find_hosts(subject.encode(rows, max_tokens=96)), ordinary_tokens
    with hunting_briefly():
        assert not finished_payloads(subject, hosts, tokens(llama.tokenizer), random.Random(0))


def _led_to(subject: Subject, hosts: Hosts, habits: list[Answer] | None = None) -> list[Payload]:
    payload = tuple(subject.tokenizer.encode(SAID, add_special_tokens=False))
    vocabulary = ordinary_tokens(subject.tokenizer)
    with hunting_briefly():
        return other_wordings(subject, hosts, vocabulary, random.Random(0), payload, habits or [])


def _text(subject: Subject, found: Payload) -> str:
    return str(subject.tokenizer.decode(list(found.tokens)))
