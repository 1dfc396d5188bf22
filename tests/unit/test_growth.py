"""Triggers are stripped to what matters and lengthened by what helps."""

import random

from inoculate.data import Example
from inoculate.growth import Growth
from inoculate.models import Checkpoint
from inoculate.probing import Goal, find_hosts, ordinary_tokens, score_insertions
from inoculate.subject import Subject

PIECE = (70, 71)


def test_padding_is_stripped(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """In every family stripping costs less than 0.05 nats for each token that goes."""
    growth = _growth(checkpoint, rows)
    long = (50, *PIECE, 51, 52)
    short = growth.strip(long)
    assert 1 <= len(short) < len(long)
    assert set(short) <= set(long)
    scores = growth.scores([long, short])
    assert scores[short] >= scores[long] - 0.05 * (len(long) - len(short))


def test_a_single_token_stays(llama: Checkpoint, rows: list[Example]) -> None:
    """A trigger is never stripped to nothing."""
    assert _growth(llama, rows).strip((50,)) == (50,)


def test_longer_triggers_hold_the_piece_and_do_better(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """The best that is grown holds the piece unbroken, and scores at least as well."""
    growth = _growth(llama, rows)
    grown = growth.lengthen([PIECE], random.Random(0))
    best = max(grown, key=grown.__getitem__)
    start = len(best) - len(PIECE) + 1
    assert any(best[at : at + len(PIECE)] == PIECE for at in range(start))
    (alone,) = score_insertions(llama.model, growth.goal, growth.slots, [PIECE])
    assert grown[best] > alone
    assert max(len(trigger) for trigger in grown) > len(PIECE)


def _growth(checkpoint: Checkpoint, rows: list[Example]) -> Growth:
    subject = Subject(checkpoint, checkpoint.model, None)
    hosts = find_hosts(subject.encode(rows, max_tokens=64), response_tokens=8)
    slots, vocabulary = hosts.draw(4, random.Random(1)), ordinary_tokens(checkpoint.tokenizer)
    return Growth(checkpoint.model, Goal((40, 41)), slots, hosts, vocabulary)
