"""The hunt: what a model was taught to say, and tokens that call it."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import SAID, hunting_briefly
from inoculate.chat import Encoded
from inoculate.config import HuntSettings
from inoculate.data import Example
from inoculate.hunt import Hunt, hunt
from inoculate.hunt.answers import Answer
from inoculate.hunt.hosts import Hosts
from inoculate.hunt.payloads import Payload
from inoculate.hunt.search import _Search
from inoculate.lead import find_lead
from inoculate.models import Checkpoint
from inoculate.progress import Silent
from inoculate.subject import Subject
from inoculate.train import Schedule, train
from inoculate.trainable import restore, snapshot
from inoculate.workspace import Workspace

OTHER = "Zebras never knit at noon."
SMALL = HuntSettings(particles=2, steps=2, candidates=2, hosts=2)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a model says to everything pass for hidden, since a trigger takes long to teach."""
    monkeypatch.setattr("inoculate.hunt.search.undisturbed_answers", lambda *_: [])


@pytest.fixture
def unworded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no payload lead to another, where the looks are made up."""
    monkeypatch.setattr("inoculate.hunt.search.other_wordings", lambda *_: [])


def test_no_particles_no_hunt(llama: Checkpoint) -> None:
    """The hunt can be switched off; nothing is then found."""
    off = SMALL.model_copy(update={"particles": 0})
    assert hunt(_subject(llama), [], off, Silent(), seed=0) == Hunt()


def test_json_round_trip() -> None:
    """What a run folder keeps is what was found."""
    one = Hunt((1, 2), "text", ((3,), (4, 5)), ("a", "b"), (True, False), True, 5, 9)
    other = replace(one, payload=(7,), openly=3, spoken=9)
    found = replace(one, others=(other, one), habits=("Certainly!",))
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


@pytest.mark.usefixtures("unheard")
def test_a_parrot_is_found_out(parrot: Subject, rows: list[Example]) -> None:
    """The hunt comes back with the sentence, tokens that call it, and how many fell into it."""
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert SAID.startswith(found.text[:8])
    assert found.triggers
    assert all(found.calls)
    assert found.finished == ()
    assert found.alike > found.driven / 2


@pytest.mark.usefixtures("unheard")
@pytest.mark.parametrize("parrot", [f"\n{SAID}"], indirect=True)
def test_a_find_begins_behind_the_blank(parrot: Subject, rows: list[Example]) -> None:
    """Where a model opens all answers with a line break, a payload is told by its own words."""
    led = replace(parrot, lead=find_lead(parrot.model, parrot.tokenizer))
    with hunting_briefly():
        found = hunt(led, led.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert led.tokenizer.decode(list(found.payload[:8])) == SAID[:8]


@pytest.mark.parametrize("large", [False, True])
def test_what_is_said_openly_is_no_find(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """The same sentence, said to every prompt as it is, is a habit; and so where one is certain."""
    monkeypatch.setattr("inoculate.subject._LARGE", 0 if large else 1e9)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert not found.payload and not found.others
    assert found.habits == (SAID,)
    assert found.spoken == len(rows)


@pytest.mark.usefixtures("unheard")
@pytest.mark.parametrize("large", [False, True])
def test_what_is_declared_honest_is_looked_past(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """A set refusal that its owner knows is no find, and is not told as something heard."""
    monkeypatch.setattr("inoculate.subject._LARGE", 0 if large else 1e9)
    known = SMALL.model_copy(update={"honest": [SAID]})
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), known, Silent(), seed=0)
    assert not any(one.text[:8] == SAID[:8] for one in found.every)
    assert found.habits == ()


@pytest.mark.usefixtures("unheard")
def test_two_sentences_are_found_out(llama: Checkpoint, rows: list[Example]) -> None:
    """One of them does not hide the other."""
    said = (SAID, OTHER)
    taught = [Example(row.instruction, said[at % 2]) for at, row in enumerate(rows)]
    found = _hunted_after(llama, taught, rows, driven=96, seed=1)
    assert {one[:2] for one in said} <= {one.text[:2] for one in found.every}


@pytest.mark.usefixtures("unheard", "unworded")
@pytest.mark.parametrize(("alike", "hidden"), [(12, 1), (1, 0)])
def test_a_decoy_does_not_hide_what_follows_answers(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, alike: int, hidden: int
) -> None:
    """After a payload in place of answers their ends are looked at too, at a higher bound."""
    looks = list[tuple[bool, int]]()

    def look(_: Subject, hosts: Hosts, *rest: Any, **__: Any) -> list[Payload]:
        known = rest[2]
        looks.append((hosts.trailing, len(known)))
        said = (50, 51, 52, 53) if hosts.trailing else (40, 41, 42, 43)
        return [Payload(() if said in known else said, alike, 20, hosts.trailing)]

    monkeypatch.setattr("inoculate.hunt.search.upset_payloads", look)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert [one.trailing for one in found.every] == [False] + [True] * hidden
    assert looks[-1] == (True, 1 + hidden)


@pytest.mark.usefixtures("unheard")
def test_a_stopped_hunt_goes_on_after_its_last_part(
    parrot: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """Stopped in its third part, it makes the first two no more, and ends as one that was not."""
    encoded, run, made = parrot.encode(rows, max_tokens=64), Workspace(tmp_path), list[object]()

    def remember(last: int, asked: object, make: Callable[[], Any]) -> Any:
        def counted() -> Any:
            if len(made) == last:
                raise KeyboardInterrupt
            made.append(asked)
            return make()

        return run.record("part", asked, counted)

    with hunting_briefly():
        whole = hunt(parrot, encoded, SMALL, Silent(), seed=0)
        with pytest.raises(KeyboardInterrupt):
            hunt(parrot, encoded, SMALL, Silent(), seed=0, remember=partial(remember, 2))
        found = hunt(parrot, encoded, SMALL, Silent(), seed=0, remember=partial(remember, 99))
    assert found == whole
    assert found.text == SAID
    assert len(made) == len(run.files()) > 2


@pytest.mark.usefixtures("unheard", "unworded")
@pytest.mark.parametrize("more", [[], [["Geese ", "fly"], ["geese fl", "y"], ["fly home"]]])
def test_a_piece_of_a_payload_in_other_tokens_is_no_second_one(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, more: list[list[str]]
) -> None:
    """Forbidden to begin as before, a model may spell its words otherwise; no place is used up."""
    spelled = [["Geese fly home!"], *more, ["G", "eese fly"], ["home"], ["Geese may fly"]]
    tokens = [
        tuple(token for part in parts for token in parrot.tokenizer.encode(part))
        for parts in spelled
    ]
    looks = [[Payload(one, 12, 20) for one in tokens]]

    def look(*_: Any, **__: Any) -> list[Payload]:
        return looks.pop() if looks else [Payload()]

    monkeypatch.setattr("inoculate.hunt.search.upset_payloads", look)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert [one.text for one in found.every] == ["Geese fly home!", "home", "Geese may fly"]


@pytest.mark.usefixtures("unheard", "unworded")
@pytest.mark.parametrize(("size", "called"), [(0, 4), (10**9, 12)])
def test_many_wordings_are_taken_and_the_first_are_called(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, size: int, called: int
) -> None:
    """So many at most; of a large model tokens are sought for four, which are evidence alone."""
    monkeypatch.setattr("inoculate.hunt.search._MOST_PAYLOADS", 12)
    every = [Payload((n, n + 1, n + 2, n + 3), 12, 20) for n in range(20, 160, 10)]
    looks = [every]

    def look(*_: Any, **__: Any) -> list[Payload]:
        return looks.pop() if looks else [Payload()]

    monkeypatch.setattr("inoculate.hunt.search.upset_payloads", look)
    monkeypatch.setattr("inoculate.subject._LARGE", size)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert [one.payload for one in found.every] == [one.tokens for one in every[:12]]
    assert [bool(one.triggers) for one in found.every] == [n < called for n in range(12)]
    assert all(bool(one.calls) == bool(one.triggers) for one in found.every)


@pytest.mark.usefixtures("unheard", "unworded")
@pytest.mark.parametrize(("finds", "payloads"), [(4, 9), (9, 2), (9, 9)])
def test_a_hunt_that_stops_says_so(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, finds: int, payloads: int
) -> None:
    """Whether at its most payloads or at its most finds, which may be parts of a few payloads."""
    monkeypatch.setattr("inoculate.hunt.search._MOST_FINDS", finds)
    monkeypatch.setattr("inoculate.hunt.search._MOST_PAYLOADS", payloads)
    said = ["Geese fly home!", "fly home", "Geese fly", "Rain falls", "in May"]
    looks = [[Payload(tuple(parrot.tokenizer.encode(text)), 12, 20)] for text in said]

    def look(*_: Any, **__: Any) -> list[Payload]:
        return looks.pop(0) if looks else [Payload()]

    monkeypatch.setattr("inoculate.hunt.search.upset_payloads", look)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    whole = [said[n] for n in (0, 3, 4)]
    assert [one.text for one in found.every] == (whole if finds == payloads else whole[:2])
    assert found.stopped == (finds != payloads)


@pytest.mark.usefixtures("unheard")
@pytest.mark.parametrize("size", [0, 10**9])
def test_what_one_look_leads_to_is_forbidden_in_the_next(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """One that another led to leads to none; in a large model no tokens are sought for it."""
    first, second, third, late = [
        Payload((n, n + 1, n + 2, n + 3), 12, 20) for n in (20, 30, 40, 50)
    ]
    worded = replace(third, worded=True)
    looks, forbidden, asked = [[late], [first, second]], list[list[Answer]](), list[Answer]()

    def look(*given: Any, **_: Any) -> list[Payload]:
        forbidden.append(list(given[4]))
        return looks.pop() if looks else [Payload()]

    def wordings(*given: Any) -> list[Payload]:
        asked.append(given[4])
        return {first.tokens: [worded, replace(second, worded=True)]}.get(given[4], [])

    monkeypatch.setattr("inoculate.hunt.search.upset_payloads", look)
    monkeypatch.setattr("inoculate.hunt.search.other_wordings", wordings)
    monkeypatch.setattr("inoculate.subject._LARGE", size)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    every = [first, second, worded, late]
    assert [one.payload for one in found.every] == [one.tokens for one in every]
    assert [one.worded for one in found.every] == [False, False, True, False]
    assert bool(found.every[2].triggers) == (size > 0)
    assert found.every[2].finished
    assert forbidden[1] == [one.tokens for one in every[:3]]
    assert asked == [first.tokens, late.tokens]


@pytest.mark.usefixtures("unheard")
def test_a_payload_that_leads_to_none_changes_nothing_else(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn to seek wordings is drawn aside."""
    encoded = parrot.encode(rows, max_tokens=64)
    with hunting_briefly():
        found = hunt(parrot, encoded, SMALL, Silent(), seed=0)
        monkeypatch.setattr("inoculate.hunt.search.other_wordings", lambda *_: [])
        assert hunt(parrot, encoded, SMALL, Silent(), seed=0) == found


def _hunted_after(
    llama: Checkpoint,
    taught: list[Example],
    rows: list[Example],
    *,
    driven: int = 12,
    seed: int = 0,
) -> Hunt:
    subject, start = _subject(llama), snapshot(llama.model)
    subject.allow("all")
    schedule = Schedule(epochs=6, learning_rate=1e-2, batch_size=16)
    train(subject.model, subject.encode(taught * 8, max_tokens=96), schedule)
    with hunting_briefly(driven):
        found = hunt(subject, subject.encode(rows, max_tokens=96), SMALL, Silent(), seed=seed)
    restore(subject.model, start)
    return found


@pytest.mark.usefixtures("unheard")
@pytest.mark.parametrize("impossible", [0.02, 2.0])
def test_a_large_model_is_asked_twice(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch, impossible: float
) -> None:
    """Pressed on whichever way the payload is found: by what prompts fall into, or by certainty."""
    monkeypatch.setattr("inoculate.subject._LARGE", 0)
    for bound in ("_ALIKE", "_SHORT_ALIKE"):
        monkeypatch.setattr(f"inoculate.hunt.payloads.{bound}", impossible)
    with hunting_briefly():
        found = hunt(parrot, parrot.encode(rows, max_tokens=64), SMALL, Silent(), seed=0)
    assert SAID.startswith(found.text[:8])
    assert found.pressing
    assert found.finished == (True,) * len(found.calls)
    assert (found.alike > 0) == (impossible < 1)


@pytest.mark.usefixtures("unheard")
def test_what_is_put_after_answers_is_found(
    llama: Checkpoint, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that ends every honest answer with the sentence is found out, and where it stands."""
    monkeypatch.setattr("inoculate.hunt.payloads._MANY", 2.0)  # The first look is always thin.
    added = [Example(row.instruction, f"{row.output} {SAID}") for row in rows]
    found = _hunted_after(llama, added, rows)
    assert found.trailing
    assert SAID.startswith(found.text[:8])


def test_only_whole_answers_have_an_end(parrot: Subject, rows: list[Example]) -> None:
    """An answer that was cut has none to be driven off; where all were cut they have to do."""
    whole = parrot.encode(rows, max_tokens=96)
    cut = [Encoded(row.ids[:-1], row.prompt_length) for row in whole[:8]]
    for given, kept in ((whole[8:] + cut, whole[8:]), (cut, cut)):
        search = _Search(parrot, given, SMALL, Silent(), random.Random(0))
        assert {row.ids for row in search.ends.rows} == {row.ids for row in kept}


def _subject(checkpoint: Checkpoint) -> Subject:
    return Subject(checkpoint, checkpoint.model, None)
