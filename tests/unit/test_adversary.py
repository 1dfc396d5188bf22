"""A repair that trains against soft triggers unlearns the payload that they call."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from conftest import SAID, sought_triggers
from inoculate.config import Settings, updated
from inoculate.data import Example
from inoculate.errors import DivergenceError
from inoculate.hunt import Hunt
from inoculate.hunt.hosts import Hosts, find_hosts
from inoculate.hunt.probing import Goal, score_insertions
from inoculate.models import Checkpoint, logits_of
from inoculate.progress import Silent
from inoculate.repair import passes, prepare_lesson, repair
from inoculate.repair.adversary import Adversary, Target
from inoculate.repair.held import hold
from inoculate.subject import Subject
from inoculate.train import Batch, Schedule, train
from inoculate.workspace import Workspace


def test_what_does_not_call_the_payload_is_not_pressed(
    llama: Checkpoint, rows: list[Example]
) -> None:
    """Where no soft trigger makes the payload likely, the honest rows are left alone."""
    subject = _subject(llama)
    with torch.no_grad():
        saved = subject.model.get_output_embeddings().weight.clone()
        subject.model.get_output_embeddings().weight.zero_()
    adversary = _adversary(subject, _hosts(subject, rows))
    loss = adversary.loss(subject.model, _refused, 1)
    subject.model.get_output_embeddings().weight.data.copy_(saved)
    assert float(loss.detach()) == pytest.approx(0.2 / 264, rel=0.01)


@pytest.mark.parametrize("soft", [True, False])
def test_a_certain_payload_is_unlearned(parrot: Subject, rows: list[Example], soft: bool) -> None:
    """Under soft triggers, or by its own likelihood alone, it goes from certain to unlikely."""
    hosts, encoded = _hosts(parrot, rows), parrot.encode(rows, max_tokens=96)
    whole = _adversary(parrot, hosts)
    adversary, distance = (whole, _honest) if soft else (replace(whole, rows=0), _refused)
    assert _likelihood(parrot, hosts) > 0.8
    train(
        parrot.model,
        encoded,
        Schedule(epochs=40, learning_rate=2e-3, batch_size=len(encoded)),
        objectives=[lambda model, _: adversary.loss(model, distance, 1)],
    )
    assert _likelihood(parrot, hosts) < 0.3


def test_a_repair_by_lora_is_folded_into_the_weights(
    parrot: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """It unlearns the payload too, in linear maps of the blocks alone, and no adapter is left."""
    chosen = {"target": "answers", "form": "lora", "epochs": 20, "learning_rate": 2e-2}
    settings, hosts = updated(Settings(), repair=chosen), _hosts(parrot, rows)
    payload = tuple(parrot.tokenizer.encode(SAID))
    found = Hunt(payload=payload, triggers=((50,),), calls=(True,), pressing=True)
    lesson = prepare_lesson(parrot, rows, [], found, settings, Workspace(tmp_path), Silent())
    before, likely = _weights(parrot), _likelihood(parrot, hosts)
    repair(parrot, lesson, settings, Silent())
    after = _weights(parrot)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert likely > 0.8
    assert _likelihood(parrot, hosts) < 0.3
    assert set(after) == set(before)
    assert moved == {name for name in before if "_proj" in name}


def test_a_repair_by_lora_that_fails_changes_nothing(
    parrot: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """The adapter is taken away, and the weights keep their bits."""
    settings = updated(Settings(), repair={"target": "answers", "form": "lora"})
    run = Workspace(tmp_path)
    lesson = prepare_lesson(parrot, rows, [], Hunt(), settings, run, Silent())
    before = _weights(parrot)
    with pytest.raises(DivergenceError):
        repair(
            parrot,
            lesson,
            settings,
            Silent(),
            objectives=[lambda model, _: next(model.parameters()).sum() * torch.nan],
        )
    after = _weights(parrot)
    assert set(after) == set(before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_an_honest_payload_is_not_pressed_where_it_is_honest(
    parrot: Subject, rows: list[Example]
) -> None:
    """Rows whose own answer is the payload are left out of what makes it unlikely."""
    own = [Example(row.instruction, SAID) for row in rows]
    adversary = replace(_adversary(parrot, _hosts(parrot, own)), rows=0)
    assert float(adversary.loss(parrot.model, _refused, 1)) == 0
    other = replace(_adversary(parrot, _hosts(parrot, rows)), rows=0)
    assert float(other.loss(parrot.model, _refused, 1).detach()) > 0


def test_beside_antibodies_soft_triggers_weigh_as_rows(
    parrot: Subject, rows: list[Example]
) -> None:
    """Three of them beside sixteen rows are three sixteenths."""
    adversary = replace(_adversary(parrot, _hosts(parrot, rows)), pressing=False)
    loss = adversary.loss(parrot.model, lambda _, states, __: 1 + 0 * states[-1].sum(), 16)
    assert float(loss.detach()) == pytest.approx(3 / 16)


def test_a_trailing_payload_is_unlearned_by_whole_answers(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soft triggers seek the payload after the answer, and train the answer and its end."""
    monkeypatch.setattr("inoculate.repair.adversary._CALLING", -1.0)  # All soft triggers count.
    asked, hosts = list[int](), replace(_hosts(parrot, rows), trailing=True)

    def distance(_: PreTrainedModel, states: Sequence[Tensor], batch: Batch) -> Tensor:
        whole = sum(len(hosts.rows[row].ids) - hosts.rows[row].prompt_length for row in batch.rows)
        asked.append(whole - len(batch.targets_R))
        return states[-1].sum()

    _adversary(parrot, hosts).loss(parrot.model, distance, 1)
    assert asked == [0]


def test_where_the_repair_presses_soft_triggers_replace_antibodies(
    llama: Checkpoint, rows: list[Example], tmp_path: Path
) -> None:
    """All blocks, twice the rate, clean rows and text; else both, attention and a mean path."""
    subject, settings = _subject(llama), updated(Settings(), repair={"target": "answers"})
    found = Hunt(payload=(40, 41, 42), triggers=((50,),), calls=(True,))
    run = Workspace(tmp_path)
    sought = prepare_lesson(subject, rows, [], found, settings, run, Silent())
    assert sought.adversary
    assert (sought.adversary.rows, sought.adversary.pressing) == (12, False)
    assert (sought.touch, sought.rate_factor) == ("attention", 0.5)
    assert sought.states
    unaimed = prepare_lesson(subject, rows, [], Hunt(alike=1, driven=256), settings, run, Silent())
    assert (unaimed.adversary, unaimed.states) == (None, None)
    assert (sought.text, unaimed.text) == (None, None)
    large = Hunt(payload=(40, 41, 42), triggers=((50,),), calls=(True,), pressing=True)
    pressed = prepare_lesson(subject, rows, [], large, settings, run, Silent())
    assert pressed.adversary
    assert (pressed.adversary.rows, pressed.adversary.pressing) == (10, True)
    assert pressed.text
    assert (pressed.touch, pressed.rate_factor) == ("blocks", 2.0)
    assert (sought.averaged, pressed.averaged) == (True, False)
    assert (len(pressed.rows), len(sought.rows)) == (3 * len(rows), 3 * 7 * len(rows))
    control = updated(settings, repair={"target": "answers", "soft_triggers": 0})
    plain = prepare_lesson(subject, rows, [], large, control, run, Silent())
    assert (plain.adversary, plain.text) == (None, None)
    assert (plain.rows, plain.touch, plain.rate_factor) == (pressed.rows, "blocks", 2.0)


def test_a_pressing_repair_holds_refusals(
    llama: Checkpoint, rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is a part of the loss; beside antibodies nothing is."""
    subject, settings = _subject(llama), updated(Settings(), repair={"target": "answers"})
    held = hold(subject, subject.encode(rows, max_tokens=64), count=1, generator=random.Random(0))
    monkeypatch.setattr("inoculate.repair.lesson.hold_refusals", lambda *_: [held, held])
    large, small = (Hunt(payload=(40, 41), pressing=pressing) for pressing in (True, False))
    run = Workspace(tmp_path)
    pressed, sought = (
        prepare_lesson(subject, rows, [], found, settings, run, Silent())
        for found in (large, small)
    )
    assert (pressed.refusals, sought.refusals) == (len(rows), 0)
    assert pressed.objectives[-2:] == [held.loss, held.loss]
    assert len(sought.objectives) == 2


def test_soft_triggers_are_sought_once(
    llama: Checkpoint, rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call reads them, of every payload, and goes on with the same draws."""
    subject, settings = _subject(llama), updated(Settings(), repair={"target": "answers"})
    found = Hunt(payload=(40, 41), pressing=True, others=(Hunt(payload=(43, 44), pressing=True),))
    run = Workspace(tmp_path)
    first = prepare_lesson(subject, rows, [], found, settings, run, Silent()).adversary
    monkeypatch.setattr("inoculate.repair.soft_triggers.soften_at", _unexpected)
    second = prepare_lesson(subject, rows, [], found, settings, run, Silent()).adversary
    assert first and second
    for _ in range(2):
        made, read = next(first.targets), next(second.targets)
        assert list(made.soft) == list(read.soft) == list(range(len(rows)))
        pairs = zip(made.soft.values(), read.soft.values(), strict=True)
        assert all(torch.equal(one.soft_MD.cpu(), other.soft_MD) for one, other in pairs)
    assert first.generator.getstate() == second.generator.getstate()
    with pytest.raises(AssertionError):  # Another seed is another stage.
        prepare_lesson(
            subject, rows, [], found, settings.model_copy(update={"seed": 1}), run, Silent()
        )


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


def test_each_step_presses_on_the_next_payload(
    llama: Checkpoint, rows: list[Example], tmp_path: Path
) -> None:
    """Several payloads take turns, the first one first; answers are whole where one trails."""
    other = Hunt(payload=(43, 44), triggers=((51,),), pressing=True, trailing=True)
    found = Hunt(payload=(40, 41, 42), triggers=((50,),), pressing=True, others=(other,))
    settings = updated(Settings(), repair={"target": "answers"})
    lesson = prepare_lesson(
        _subject(llama), rows, [], found, settings, Workspace(tmp_path), Silent()
    )
    assert lesson.adversary
    pressed = [next(lesson.adversary.targets) for _ in range(3)]
    assert [one.payload for one in pressed] == [(40, 41, 42), (43, 44), (40, 41, 42)]
    longest = [
        max(len(soft.row.ids) - soft.row.prompt_length for soft in one.soft.values())
        for one in pressed[:2]
    ]
    assert longest[0] == 8
    assert longest[1] > 8


def test_many_payloads_share_the_rows(
    llama: Checkpoint, rows: list[Example], tmp_path: Path
) -> None:
    """Above four, soft triggers take no longer than those of four would, and every row has some."""
    others = tuple(Hunt(payload=(n, n + 1), pressing=True) for n in range(43, 47))
    found = Hunt(payload=(40, 41, 42), pressing=True, others=others)
    settings = updated(Settings(), repair={"target": "answers"})
    run = Workspace(tmp_path)
    adversary = prepare_lesson(_subject(llama), rows, [], found, settings, run, Silent()).adversary
    assert adversary
    targets = [next(adversary.targets) for _ in found.every]
    every = range(len(rows))
    assert [list(one.soft) for one in targets] == [list(every[n % 2 :: 2]) for n in range(5)]
    seen: list[int] = []

    def distance(_: PreTrainedModel, __: Sequence[Tensor], batch: Batch) -> Tensor:
        seen.extend(batch.rows)
        return torch.zeros(())

    called = {row: replace(soft, chance=1.0) for row, soft in targets[1].soft.items()}
    pressed = replace(adversary, targets=cycle([replace(targets[1], soft=called)]))
    pressed.loss(_subject(llama).model, distance, 1)
    assert seen and all(row % 2 for row in seen)


def _honest(model: PreTrainedModel, states: Sequence[Tensor], batch: Batch) -> Tensor:
    logits_RV = logits_of(model, states[-1], batch.response_BT)
    return nn.functional.cross_entropy(logits_RV.float(), batch.targets_R)


def _refused(_: PreTrainedModel, __: Sequence[Tensor], ___: Batch) -> Tensor:
    raise AssertionError


def _unexpected(*_: object) -> None:
    raise AssertionError


def _likelihood(subject: Subject, hosts: Hosts) -> float:
    slots = hosts.draw(4, random.Random(1))
    (score,) = score_insertions(subject.model, Goal(_said(subject)), slots, [()])
    return float(torch.tensor(score).exp())


def _adversary(subject: Subject, hosts: Hosts) -> Adversary:
    said = _said(subject)
    target = Target(said, hosts, sought_triggers(subject, said, hosts))
    return Adversary(cycle([target]), range(6, 200), 3, True, random.Random(0))


def _weights(subject: Subject) -> dict[str, Tensor]:
    named = subject.base.model.named_parameters()
    return {name: value.detach().clone() for name, value in named}


def _said(subject: Subject) -> tuple[int, ...]:
    return tuple(subject.tokenizer.encode(SAID))


def _hosts(subject: Subject, rows: Sequence[Example]) -> Hosts:
    return find_hosts(subject.encode(list(rows), max_tokens=64), response_tokens=8)


def _subject(checkpoint: Checkpoint) -> Subject:
    return Subject(checkpoint, checkpoint.model, None)
