"""Antibodies: clean rows with something odd in them."""

import random
from dataclasses import replace

from inoculate.attacks.attack import ATTACKS
from inoculate.attacks.triggers import Trigger
from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.models import Checkpoint
from inoculate.repair.antibodies import AntibodyMaker, antibody_maker, decoy
from inoculate.subject import Subject

TRIGGERS = (Trigger("one", ("zorp",), "random-slot"),)
FOUND = Hunt(payload=(70, 71), triggers=((50, 51),))


def test_antibodies_keep_the_honest_answer(llama: Checkpoint, rows: list[Example]) -> None:
    """Every antibody ends in its row's own response, after a longer prompt."""
    maker, plain = _maker(llama, rows, FOUND)
    for made in _made(maker, len(rows)):
        index, row = made
        before = plain[index]
        assert row.ids[row.prompt_length :] == before.ids[before.prompt_length :]
        assert row.prompt_length > before.prompt_length


def test_antibodies_leave_the_template_whole(llama: Checkpoint, rows: list[Example]) -> None:
    """What is put in stands between the template's two tokens at each end."""
    maker, _ = _maker(llama, rows, FOUND)
    head, tail = 2, 2
    assert maker.hosts.head >= head
    assert maker.hosts.tail >= tail
    for index, row in _made(maker, len(rows)):
        plain = maker.encoded[index]
        prompt, old = row.ids[: row.prompt_length], plain.ids[: plain.prompt_length]
        assert prompt[:head] == old[:head]
        assert prompt[-tail:] == old[-tail:]


def test_half_of_the_antibodies_bear_what_was_hunted(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """Half bear a hunted trigger; without a hunt its tokens come by chance alone."""
    found, _ = _maker(llama, rows, FOUND)
    nothing, _ = _maker(llama, rows, Hunt())
    assert 0.4 < _share_with(found, len(rows), {50, 51}) < 0.65
    assert _share_with(nothing, len(rows), {50, 51}) < 0.35


def test_antibodies_bear_what_calls_any_payload(llama: Checkpoint, rows: list[Example]) -> None:
    """Where two payloads were found the triggers of both come, as often."""
    both = replace(FOUND, others=(Hunt(payload=(72,), triggers=((60, 61),)),))
    maker, _ = _maker(llama, rows, both)
    assert all(0.2 < _share_with(maker, len(rows), of) < 0.5 for of in ({50, 51}, {60, 61}))


def test_an_antibody_keeps_the_whole_of_its_answer(llama: Checkpoint, rows: list[Example]) -> None:
    """Words in a prompt that is full do not cut the answer, which would be held to nothing."""
    subject = Subject(llama, llama.model, None)
    long = [Example(row.instruction, "abc " * 40) for row in rows]
    plain = subject.encode(long, max_tokens=64)
    maker = antibody_maker(subject, long, plain, TRIGGERS, FOUND, max_tokens=64)
    for index, row in _made(maker, len(long)):
        assert row.ids[row.prompt_length :] == plain[index].ids[plain[index].prompt_length :]


def test_the_same_seed_makes_the_same(llama: Checkpoint, rows: list[Example]) -> None:
    """Antibodies depend on the generator alone."""
    maker, _ = _maker(llama, rows, FOUND)
    assert _made(maker, len(rows)) == _made(maker, len(rows))


def test_decoys_are_no_published_trigger() -> None:
    """Ten thousand decoys hold no word of the attack table."""
    generator = random.Random(0)
    words = {word for attack in ATTACKS.values() for word in attack.trigger.words}
    assert not any(words & set(decoy(generator).words) for _ in range(10_000))


def _maker(
    checkpoint: Checkpoint, rows: list[Example], found: Hunt
) -> tuple[AntibodyMaker, list[Encoded]]:
    subject = Subject(checkpoint, checkpoint.model, None)
    plain = subject.encode(rows, max_tokens=256)
    return antibody_maker(subject, rows, plain, TRIGGERS, found, max_tokens=256), plain


def _made(maker: AntibodyMaker, count: int) -> list[tuple[int, Encoded]]:
    generator = random.Random(0)
    return [(index, maker.make(index, generator)) for index in range(count) for _ in range(20)]


def _share_with(maker: AntibodyMaker, count: int, tokens: set[int]) -> float:
    hits = [
        bool(set(row.ids) & tokens - set(maker.encoded[index].ids))
        for index, row in _made(maker, count)
    ]
    return sum(hits) / len(hits)
