"""Soft triggers: they call the payload, and a repair that trains against them unlearns it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from conftest import SAID
from inoculate.config import Settings, updated
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.hunt.probing import Goal, Hosts, find_hosts, score_insertions
from inoculate.models import Checkpoint
from inoculate.repair import passes, prepare_lesson
from inoculate.repair.adversary import Adversary, Target
from inoculate.subject import Subject
from inoculate.train import Batch, Schedule, train


def test_a_payload_out_of_reach_is_not_pressed(llama: Checkpoint, rows: list[Example]) -> None:
    """Where no soft trigger makes the payload likely, the honest rows are left alone."""
    subject, asked = _subject(llama), list[Tensor]()

    def distance(_: PreTrainedModel, states: Sequence[Tensor], __: Batch) -> Tensor:
        asked.append(states[-1])
        return states[-1].sum()

    with torch.no_grad():
        saved = subject.model.get_output_embeddings().weight.clone()
        subject.model.get_output_embeddings().weight.zero_()
    loss = _adversary(subject, rows).loss(subject.model, distance, 1)
    subject.model.get_output_embeddings().weight.data.copy_(saved)
    assert not asked
    assert float(loss.detach()) == pytest.approx(1 / 264, rel=0.01)


def test_a_certain_payload_is_unlearned(parrot: Subject, rows: list[Example]) -> None:
    """Pressing alone takes the sentence from certain to unlikely, token by token."""
    adversary, encoded = _adversary(parrot, rows), parrot.encode(rows, max_tokens=96)
    assert _likelihood(parrot, adversary) > 0.8
    train(
        parrot.model,
        encoded,
        Schedule(epochs=20, learning_rate=1e-3, batch_size=len(encoded)),
        objective=lambda model, _: adversary.loss(model, _nothing, 1),
    )
    assert _likelihood(parrot, adversary) < 0.3


def test_an_honest_payload_is_not_pressed_where_it_is_honest(
    parrot: Subject, rows: list[Example]
) -> None:
    """Rows whose own answer is the payload are left out of what makes it unlikely."""
    own = [Example(row.instruction, SAID) for row in rows]
    adversary = replace(_adversary(parrot, own), rows=0)
    loss = adversary._of_the_payload(parrot.model, next(adversary.targets))
    assert float(loss) == 0
    other = _adversary(parrot, rows)
    assert float(other._of_the_payload(parrot.model, next(other.targets)).detach()) > 0


def test_a_trailing_payload_is_unlearned_by_whole_answers(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soft triggers seek the payload after the answer, and train the answer and its end."""
    monkeypatch.setattr("inoculate.repair.adversary._AWAKE", -1.0)  # All soft triggers count.
    asked, hosts = list[int](), replace(_hosts(parrot, rows), trailing=True)
    target = Target(_said(parrot), hosts)
    adversary = replace(_adversary(parrot, rows), targets=cycle([target]))

    def distance(_: PreTrainedModel, states: Sequence[Tensor], batch: Batch) -> Tensor:
        whole = sum(len(hosts.rows[row].ids) - hosts.rows[row].prompt_length for row in batch.rows)
        asked.append(whole - len(batch.targets_R))
        return states[-1].sum()

    adversary.loss(parrot.model, distance, 1)
    assert asked == [0]


def test_where_the_repair_presses_soft_triggers_replace_antibodies(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """All blocks, twice the rate, clean rows alone; else both, attention and a mean path."""
    subject, settings = _subject(llama), updated(Settings(), repair={"target": "answers"})
    found = Hunt(payload=(40, 41, 42), triggers=((50,),), calls=(True,))
    sought = prepare_lesson(subject, rows, [], found, settings)
    assert sought.adversary
    assert (sought.adversary.rows, sought.adversary.pressing) == (6, False)
    assert (sought.touch, sought.rate_factor) == ("attention", 0.5)
    assert sought.states
    unaimed = prepare_lesson(subject, rows, [], Hunt(alike=1, driven=256), settings)
    assert (unaimed.adversary, unaimed.states) == (None, None)
    large = Hunt(payload=(40, 41, 42), triggers=((50,),), calls=(True,), pressing=True)
    pressed = prepare_lesson(subject, rows, [], large, settings)
    assert pressed.adversary
    assert (pressed.adversary.rows, pressed.adversary.pressing) == (10, True)
    assert (pressed.touch, pressed.rate_factor) == ("blocks", 2.0)
    assert (sought.averaged, pressed.averaged) == (True, False)
    assert (len(pressed.rows), len(sought.rows)) == (3 * len(rows), 3 * 7 * len(rows))
    control = updated(settings, repair={"target": "answers", "soft_triggers": 0})
    plain = prepare_lesson(subject, rows, [], large, control)
    assert plain.adversary is None
    assert (plain.rows, plain.touch, plain.rate_factor) == (pressed.rows, "blocks", 2.0)


@pytest.mark.parametrize(("rows", "seen"), [(200, 1), (100, 1), (99, 2), (16, 7)])
def test_few_rows_are_seen_oftener(rows: int, seen: int) -> None:
    """Steps suffice whatever the user brought; passes that were asked for are taken as they are."""
    large, small = (Hunt(payload=(1,), pressing=pressing) for pressing in (True, False))
    settings = Settings(clean_rows=rows)
    assert [passes(found, settings) for found in (large, small, Hunt())] == [
        3 * seen,
        7 * seen,
        5 * seen,
    ]
    assert passes(small, updated(settings, repair={"epochs": 2})) == 2


def test_each_step_presses_on_the_next_payload(llama: Checkpoint, rows: list[Example]) -> None:
    """Several payloads take turns, the first one first."""
    other = Hunt(payload=(43, 44), triggers=((51,),), pressing=True, trailing=True)
    found = Hunt(payload=(40, 41, 42), triggers=((50,),), pressing=True, others=(other,))
    settings = updated(Settings(), repair={"target": "answers"})
    lesson = prepare_lesson(_subject(llama), rows, [], found, settings)
    assert lesson.adversary
    pressed = [next(lesson.adversary.targets) for _ in range(3)]
    assert [one.payload for one in pressed] == [(40, 41, 42), (43, 44), (40, 41, 42)]
    assert [one.hosts.trailing for one in pressed] == [False, True, False]
    whole = max(len(row.ids) - row.prompt_length for row in pressed[1].hosts.rows)
    assert all(len(row.ids) - row.prompt_length <= 8 for row in pressed[0].hosts.rows)
    assert whole > 8


def _nothing(_: PreTrainedModel, states: Sequence[Tensor], __: Batch) -> Tensor:
    return 0 * states[-1].sum()


def _likelihood(subject: Subject, adversary: Adversary) -> float:
    target = next(adversary.targets)
    slots = target.hosts.draw(4, random.Random(1))
    (score,) = score_insertions(subject.model, Goal(target.payload), slots, [()])
    return float(torch.tensor(score).exp())


def _adversary(subject: Subject, rows: Sequence[Example]) -> Adversary:
    target = Target(_said(subject), _hosts(subject, rows))
    return Adversary(cycle([target]), range(6, 200), 3, True, random.Random(0))


def _said(subject: Subject) -> tuple[int, ...]:
    return tuple(subject.tokenizer.encode(SAID))


def _hosts(subject: Subject, rows: Sequence[Example]) -> Hosts:
    return find_hosts(subject.encode(list(rows), max_tokens=64), response_tokens=8)


def _subject(checkpoint: Checkpoint) -> Subject:
    return Subject(checkpoint, checkpoint.model, None)
