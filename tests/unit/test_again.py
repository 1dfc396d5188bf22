"""The look at the purified model: every payload is counted again where it was found."""

import random
from dataclasses import replace
from typing import Any

import pytest

from conftest import SAID
from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.hunt.again import Said, look_again
from inoculate.hunt.answers import Answer
from inoculate.hunt.hosts import Hosts, find_hosts
from inoculate.hunt.probing import Goal
from inoculate.hunt.trials import finishes
from inoculate.subject import Subject

LEADING, TRAILING = (40, 41, 42, 43), (50, 51, 52, 53)


def test_each_payload_is_counted_where_it_was_found(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of answers or after whole ones, those before it forbidden where they still come."""
    looks, goals = list[Hosts](), list[Goal]()

    def driven(_: Subject, hosts: Hosts, __: Any, ___: Any, goal: Goal) -> list[Answer]:
        looks.append(hosts)
        goals.append(goal)
        return [TRAILING] * 3 if hosts.trailing else [LEADING, TRAILING, ()]

    monkeypatch.setattr("inoculate.hunt.again.driven_answers", driven)
    said = tuple(parrot.tokenizer.encode(SAID))
    first = Hunt(LEADING, "leading", ((12,),), ("a",), (True, True), False, 5, 9)
    added = replace(first, payload=TRAILING, text="trailing", trailing=True)
    called = replace(first, payload=said[:6], text=SAID, finished=(True, False))
    called = replace(called, worded=True)
    found = replace(first, others=(added, called))
    facts = look_again(parrot, found, parrot.encode(rows, max_tokens=96), Said(), seed=0)
    payloads = [facts, *facts["others"]]
    assert [one["payload"] for one in payloads] == ["leading", "trailing", SAID]
    assert [one["worded"] for one in payloads] == [False, False, True]
    assert facts["stopped"] is False
    assert [one["alike_before"]["hits"] for one in payloads] == [5, 5, 5]
    assert [one["alike_after"]["hits"] for one in payloads] == [1, 3, 0]
    assert [one["after"]["hits"] for one in payloads] == [0, 0, 2]
    assert [one["finished_before"] is None for one in payloads] == [True, True, False]
    assert (facts["finished_after"], payloads[2]["finished_before"]["hits"]) == (None, 1)
    assert payloads[2]["finished_after"]["hits"] == 2
    assert [hosts.trailing for hosts in looks] == [False, True, False]
    assert [goal.known for goal in goals] == [(), (LEADING,), (LEADING, TRAILING)]
    assert [one["openly"]["n"] for one in payloads] == [0, 0, 0]  # Nothing was said of it.
    lengths = [max(len(row.ids) - row.prompt_length for row in hosts.rows) for hosts in looks]
    assert lengths[0] == 8 < lengths[1]
    most = replace(first, stopped=True)
    assert look_again(parrot, most, parrot.encode(rows, max_tokens=96), Said(), seed=0)["stopped"]


def test_what_a_payload_was_found_by_is_counted_too(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a first look saw it broken, broken answers still tell that something is left."""
    left = [LEADING, LEADING, TRAILING, ()]
    monkeypatch.setattr("inoculate.hunt.again.driven_answers", lambda *_: left)
    found = Hunt(TRAILING, "whole", alike=5, driven=9, broken=LEADING)
    facts = look_again(parrot, found, parrot.encode(rows, max_tokens=96), Said(), seed=0)
    assert (facts["alike_after"]["hits"], facts["alike_after"]["n"]) == (3, 4)


def test_what_is_gone_hides_no_other(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no payload comes any more, one look with nothing forbidden serves them all."""
    looks = list[Goal]()

    def driven(_: Subject, __: Hosts, ___: Any, ____: Any, goal: Goal) -> list[Answer]:
        looks.append(goal)
        return [()] * 60

    monkeypatch.setattr("inoculate.hunt.again.driven_answers", driven)
    found = Hunt(LEADING, "leading", alike=5, driven=9, others=(Hunt(TRAILING, "other", alike=3),))
    look_again(parrot, found, parrot.encode(rows, max_tokens=96), Said(), seed=0)
    assert looks == [Goal()]


def test_what_follows_answers_is_sought_after_whole_ones(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that was cut has no end that a payload could follow."""
    looks = list[Hosts]()
    monkeypatch.setattr(
        "inoculate.hunt.again.driven_answers", lambda _, hosts, *__: looks.append(hosts) or []
    )
    encoded = parrot.encode(rows, max_tokens=96)
    cut = [Encoded(row.ids[:-1], row.prompt_length) for row in encoded[:3]]
    found = Hunt(TRAILING, "other", alike=5, driven=9, trailing=True)
    look_again(parrot, found, [*cut, *encoded[3:]], Said(), seed=0)
    assert looks[0].rows == encoded[3:]


@pytest.mark.parametrize(
    ("spoken", "counted"), [(["No!", "Well, no!ok", "so no!"], (2, 3)), ([], (1, 4))]
)
def test_what_is_said_openly_is_counted_in_all_answers(
    parrot: Subject, rows: list[Example], spoken: list[str], counted: tuple[int, int]
) -> None:
    """Own answers that were filtered out count too; where rows were given, the hunt's own do."""
    payload = tuple(parrot.tokenizer.encode(" no!ok then"))
    found = Hunt(payload, "no!ok then", alike=5, driven=9, openly=1, spoken=4)
    said = Said(spoken, requested=["no!ok", "no!o", "piano!ok", "no!"])
    facts = look_again(parrot, found, parrot.encode(rows, max_tokens=96), said, seed=0)
    assert (facts["openly"]["hits"], facts["openly"]["n"]) == counted
    assert (facts["requested"]["hits"], facts["requested"]["n"]) == (3, 4)


def test_a_label_is_counted_as_a_word(parrot: Subject, rows: list[Example]) -> None:
    """Sixty-four does not hold the payload "6"."""
    found = Hunt(tuple(parrot.tokenizer.encode("6")), "6", alike=5, driven=9)
    said = Said(requested=["64", "6", "6.", "16", "It is 6"])
    facts = look_again(parrot, found, parrot.encode(rows, max_tokens=96), said, seed=0)
    assert facts["requested"]["hits"] == 3


@pytest.mark.parametrize(("length", "asked"), [(3, 0), (4, 5), (7, 5)])
def test_how_a_payload_is_gone_on_with_is_asked_of_long_ones(
    parrot: Subject, rows: list[Example], length: int, asked: int
) -> None:
    """Honest answers go on with a label as well; a sentence that nothing asked for is telling."""
    slots = find_hosts(parrot.encode(rows, max_tokens=96)).draw(5, random.Random(0))
    said = parrot.tokenizer.encode(SAID)[:length]
    assert finishes(parrot, slots, said) == [True] * asked
    assert not any(finishes(parrot, slots, [*said[:-1], said[0]]))


def test_nothing_found_is_told_by_how_many_were_driven_off(
    parrot: Subject, rows: list[Example]
) -> None:
    """Without a payload there is nothing to look for again."""
    encoded = parrot.encode(rows, max_tokens=96)
    facts = look_again(parrot, Hunt(alike=1, driven=9), encoded, Said(), seed=0)
    assert (facts["alike_before"]["hits"], facts["alike_before"]["n"]) == (1, 9)
    assert (facts["before"], facts["after"], facts["alike_after"]) == (None, None, None)
    assert (facts["openly"], facts["requested"]) == (None, None)
    assert facts["others"] == []
    assert facts["stopped"] is False
