"""Which of several answers is taken for the payload."""

import random

import pytest

from conftest import SAID
from inoculate.data import Example
from inoculate.payloads import Payload, foremost, is_doubtful, shared_payloads, weigh
from inoculate.probing import find_hosts
from inoculate.subject import Subject

HEAVY = Payload((1, 2, 3, 4, 9), (50,), 20.0)
GARBLED = Payload((1, 2), (50,), 40.0)
SURE = Payload((5, 6, 7, 8), (), 7.0)
SEEN_AND_SURE = Payload((5, 6, 7, 8, 9), (51,), 10.0)


@pytest.mark.parametrize(
    ("shared", "certain", "expected"),
    [
        ([], [], None),
        ([], [SURE], SURE),
        ([HEAVY], [], HEAVY),
        ([HEAVY], [SURE], HEAVY),
        ([SEEN_AND_SURE, HEAVY], [], HEAVY),
        ([HEAVY, SEEN_AND_SURE], [SURE], SEEN_AND_SURE),
        ([GARBLED, HEAVY], [], HEAVY),
        ([GARBLED, SEEN_AND_SURE], [], SEEN_AND_SURE),
        ([GARBLED], [], GARBLED),
    ],
)
def test_foremost_by_hand(
    shared: list[Payload], certain: list[Payload], expected: Payload | None
) -> None:
    """Both traces before one, long before short, weight before surety; a beginning gives way."""
    assert foremost(shared, certain) == expected


def test_short_answers_and_none_are_doubtful() -> None:
    """One or two tokens in a row may be chance, three are not."""
    assert is_doubtful(None)
    assert is_doubtful(GARBLED)
    assert not is_doubtful(Payload((1, 2, 3), (), 1.0))


def test_what_one_word_brings_is_no_payload(parrot: Subject, rows: list[Example]) -> None:
    """An answer counts only where insertions without a common token bring it."""
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    said, generator = tuple(parrot.tokenizer.encode(SAID)), random.Random(0)
    apart = shared_payloads(parrot, hosts, [(200, 201), (202,)], generator)
    assert said in [payload.tokens for payload in apart]
    assert not shared_payloads(parrot, hosts, [(200, 201), (201, 202)], generator)


def test_weighing_what_is_said_and_what_is_not(parrot: Subject, rows: list[Example]) -> None:
    """The answer that insertions bring has a weight; one that none brings weighs nothing."""
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    said = Payload(tuple(parrot.tokenizer.encode(SAID)), (), 3.0)
    generator, other = random.Random(0), Payload((7, 7, 7), (), 3.0)
    assert weigh(parrot, hosts, said, [(200,)], generator).insertion == (200,)
    assert weigh(parrot, hosts, other, [(200,)], generator).weight == 0
