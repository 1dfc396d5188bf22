"""A push over all of the user's words: bounded, no longer than it takes, nowhere else."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from conftest import SAID
from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.hunt.probing import Goal, Hosts, answered, embed, embedding_table, find_hosts
from inoculate.models import Checkpoint
from inoculate.repair.push import push
from inoculate.subject import Subject

GOAL = Goal((40,))


def test_a_push_climbs_by_the_users_words_alone(
    checkpoint: Checkpoint, rows: list[Example]
) -> None:
    """In every family the payload is likelier, the template is left, the length is bounded."""
    subject = Subject(checkpoint, checkpoint.model, None)
    hosts = _hosts(subject, rows)
    push_BTD, chance_B = push(subject.model, GOAL, hosts, hosts.rows)
    plain = [answered(row, GOAL.payload) for row in hosts.rows]
    before_B = GOAL.scores(subject.model, plain).exp()
    assert (chance_B > before_B).all()
    for index, row in enumerate(hosts.rows):
        words_TD = push_BTD[index, hosts.words(row)].clone()
        push_BTD[index, hosts.words(row)] = 0
        assert words_TD.any()
        mean_norm = float(embedding_table(subject.model).norm(dim=1).mean())
        assert float(words_TD.norm()) <= 1.5001 * mean_norm
    assert not push_BTD.any()
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def test_what_is_likely_already_is_not_pushed(parrot: Subject, rows: list[Example]) -> None:
    """A payload that a plain prompt calls needs no push."""
    said = Goal((parrot.tokenizer.encode(SAID)[0],))
    hosts = _hosts(parrot, rows)
    push_BTD, chance_B = push(parrot.model, said, hosts, hosts.rows)
    assert (chance_B > 0.5).all()
    assert not push_BTD.any()


def test_a_trailing_payload_is_sought_after_the_answer(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """The chance is that of going on after the honest answer, whose embeddings stay."""
    subject = Subject(llama, llama.model, None)
    hosts = replace(_hosts(subject, rows), trailing=True)
    push_BTD, chance_B = push(subject.model, GOAL, hosts, hosts.rows)
    asked = [Encoded((*row.ids[:-1], *GOAL.payload), len(row.ids) - 1) for row in hosts.rows]
    with torch.no_grad():
        score_B = GOAL.scores(subject.model, asked, embed(subject.model, asked) + push_BTD)
    assert chance_B.tolist() == pytest.approx(score_B.exp().tolist(), rel=1e-4)
    for index, row in enumerate(hosts.rows):
        assert not push_BTD[index, hosts.words(row).stop :].any()


def _hosts(subject: Subject, rows: Sequence[Example]) -> Hosts:
    return find_hosts(subject.encode(list(rows), max_tokens=64), response_tokens=8)
