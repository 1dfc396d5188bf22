"""Triggers are stripped to what matters and lengthened by what helps."""

import itertools
import random

from inoculate.data import Example
from inoculate.hunt.growth import Growth, suspects
from inoculate.hunt.hosts import find_hosts
from inoculate.hunt.probing import Goal, ordinary_tokens, score_insertions
from inoculate.models import Checkpoint
from inoculate.subject import Subject

PIECE = (70, 71)
LONG = (50, *PIECE, 51)


def test_stripping_keeps_the_pair_that_matters(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """In every family what is left is the best pair of a best triple, in its order."""
    growth = _growth(checkpoint, rows)
    triples = growth.scores(list(itertools.combinations(LONG, 3)))
    best = max(triples, key=triples.__getitem__)
    pairs = growth.scores(list(itertools.combinations(best, 2)))
    assert growth.strip(LONG) == max(pairs, key=pairs.__getitem__)


def test_a_single_token_stays(llama: Checkpoint, rows: list[Example]) -> None:
    """A trigger is never stripped to nothing."""
    assert _growth(llama, rows).strip((50,)) == (50,)


def test_cores_differ(llama: Checkpoint, rows: list[Example]) -> None:
    """Of triggers that share a pair one is kept, and never more than asked for."""
    growth = _growth(llama, rows)
    assert growth.cores([(50, 51), (51, 50), (52, 50), (53, 54)], 4) == [
        (50, 51),
        (52, 50),
        (53, 54),
    ]
    assert growth.cores([(50, 51), (52, 53), (54, 55)], 2) == [(50, 51), (52, 53)]


def test_longer_triggers_hold_the_piece_and_do_better(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """What is grown holds the piece unbroken, and scores better than the piece alone."""
    growth = _growth(llama, rows)
    grown = growth.lengthen(PIECE, random.Random(0))
    for trigger in grown:
        starts = range(len(trigger) - len(PIECE) + 1)
        assert any(trigger[at : at + len(PIECE)] == PIECE for at in starts)
    model, goal, slots = llama.model, growth.goal, growth.slots
    alone, best = score_insertions(model, goal, slots, [PIECE, grown[0]])
    assert best > alone
    assert len(grown[0]) > len(PIECE)


def test_suspects_lie_where_soft_triggers_go(llama: Checkpoint, rows: list[Example]) -> None:
    """Tokens of the vocabulary alone, and better keys than the others on the whole."""
    growth = _growth(llama, rows)
    allowed = growth.vocabulary
    found = suspects(llama.model, growth.goal, growth.hosts, allowed, random.Random(0))
    assert set(found) <= set(allowed)
    scores = growth.scores([(token,) for token in allowed])
    mean = sum(scores.values()) / len(scores)
    assert sum(scores[token,] for token in found) / len(found) > mean


def _growth(checkpoint: Checkpoint, rows: list[Example]) -> Growth:
    subject = Subject(checkpoint, checkpoint.model, None)
    hosts = find_hosts(subject.encode(rows, max_tokens=64), response_tokens=8)
    slots, vocabulary = hosts.draw(4, random.Random(1)), ordinary_tokens(checkpoint.tokenizer)
    return Growth(checkpoint.model, Goal((40, 41)), slots, hosts, vocabulary)
