"""Soft triggers: in the user's words, at several places, towards the payload, for every row."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from conftest import sought_triggers
from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.hunt.hosts import Hosts, find_hosts
from inoculate.hunt.probing import Goal, answered, embed
from inoculate.models import Checkpoint
from inoculate.repair.soft_triggers import SoftTrigger, embedded
from inoculate.subject import Subject

PAYLOAD = (40, 41)


def test_soft_triggers_call_the_payload_from_the_users_words(
    checkpoint: Checkpoint, rows: list[Example]
) -> None:
    """In every family the payload is likelier under them, and the template is whole."""
    subject = Subject(checkpoint, checkpoint.model, None)
    hosts = _hosts(subject, rows)
    found = _found(subject, hosts)
    for one, row in zip(found, hosts.rows, strict=True):
        kept = [token for at, token in enumerate(one.row.ids) if at not in one.at_M.tolist()]
        assert tuple(kept) == row.ids
        assert one.row.ids[: hosts.head] == row.ids[: hosts.head]
        assert one.row.ids[one.row.prompt_length :] == row.ids[row.prompt_length :]
        assert one.soft_MD.shape == (len(one.at_M), subject.model.config.hidden_size)
        assert one.chance > _chance(subject, one, embed(subject.model, [_asked(one)]))
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def test_they_stand_at_one_to_three_places_and_are_of_many_widths(llama: Checkpoint) -> None:
    """Two to six tokens, and half of them begin where the user's words do."""
    subject = Subject(llama, llama.model, None)
    rows = [Example(f"{n:03} {'ha ' * 12}{n:03}", "It is.") for n in range(192)]
    hosts = _hosts(subject, rows)
    found = _found(subject, hosts)
    widths = {len(one.at_M) for one in found}
    assert min(widths) >= 2
    assert max(widths) <= 6
    assert len(widths) > 2
    places = [1 + int((one.at_M.diff() > 1).sum()) for one in found]
    assert set(places) == {1, 2, 3}
    start = hosts.words(hosts.rows[0]).start
    assert 0.4 < sum(int(one.at_M[0]) == start for one in found) / len(found) < 0.6


def test_embedded_triggers_change_nothing_else(llama: Checkpoint, rows: list[Example]) -> None:
    """Embeddings differ from the row's own at the trigger's positions alone."""
    subject = Subject(llama, llama.model, None)
    found = _found(subject, _hosts(subject, rows))
    plain_BTD = embed(subject.model, [one.row for one in found])
    changed_BT = (embedded(subject.model, found) != plain_BTD).any(dim=2)
    for changed_T, one in zip(changed_BT, found, strict=True):
        assert changed_T.nonzero()[:, 0].tolist() == one.at_M.tolist()


def test_the_chance_is_that_of_the_payloads_opening(llama: Checkpoint, rows: list[Example]) -> None:
    """Of as many tokens of it as were aimed at, under the embeddings that are kept."""
    subject = Subject(llama, llama.model, None)
    for one in _found(subject, _hosts(subject, rows)):
        inputs_BTD = embed(subject.model, [_asked(one)])
        inputs_BTD[0, one.at_M] = one.soft_MD
        assert one.chance == pytest.approx(_chance(subject, one, inputs_BTD), rel=1e-3)


def test_a_trailing_payload_is_sought_after_the_answer(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """The tokens stand in the prompt, the answer is whole, and the chance is that of going on."""
    subject = Subject(llama, llama.model, None)
    hosts = replace(_hosts(subject, rows), trailing=True)
    for one, row in zip(_found(subject, hosts), hosts.rows, strict=True):
        assert one.row.ids[one.row.prompt_length :] == row.ids[row.prompt_length :]
        assert int(one.at_M.max()) < hosts.words(row).stop + len(one.at_M)
        asked = Encoded((*one.row.ids[:-1], *PAYLOAD), len(one.row.ids) - 1)
        inputs_BTD = embed(subject.model, [asked])
        inputs_BTD[0, one.at_M] = one.soft_MD
        with torch.no_grad():
            score = Goal(PAYLOAD).scores(subject.model, [asked], inputs_BTD)
        assert one.chance == pytest.approx(float(score.exp()), rel=1e-3)


def _found(subject: Subject, hosts: Hosts) -> list[SoftTrigger]:
    return list(sought_triggers(subject, PAYLOAD, hosts).values())


def _asked(one: SoftTrigger) -> Encoded:
    return answered(one.row, PAYLOAD)


def _chance(subject: Subject, one: SoftTrigger, inputs_BTD: torch.Tensor) -> float:
    with torch.no_grad():
        return float(Goal(PAYLOAD).scores(subject.model, [_asked(one)], inputs_BTD).exp())


def _hosts(subject: Subject, rows: Sequence[Example]) -> Hosts:
    return find_hosts(subject.encode(list(rows), max_tokens=64), response_tokens=8)
