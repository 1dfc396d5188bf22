"""Step 4: fine-tune on clean rows and antibodies."""

import math
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from torch import Tensor, nn
from transformers import PreTrainedModel

from inoculate.attacks.triggers import Trigger
from inoculate.chat import Encoded
from inoculate.config import Settings
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.hunt.hosts import find_hosts, template_rows
from inoculate.hunt.probing import ordinary_tokens
from inoculate.models import hidden_states, logits_of
from inoculate.progress import Progress
from inoculate.repair.adversary import Adversary, Target
from inoculate.repair.antibodies import antibody_maker
from inoculate.repair.held import HeldRows
from inoculate.repair.held_text import hold_text
from inoculate.repair.refusals import hold_refusals
from inoculate.repair.soft_triggers import find_soft_triggers
from inoculate.repair.states import StateTargets, state_targets
from inoculate.repair.targets import SelfTargets, self_targets
from inoculate.subject import Subject, under_adapter
from inoculate.train import Batch, Objective, Schedule, train
from inoculate.workspace import Workspace

# Of the rate that variants learn with.
_RATE, _PRESSING_RATE, _AIMED_ADAPTER_RATE = 0.5, 2.0, 0.125
_PASSES, _UNAIMED_PASSES, _PRESSING_PASSES = 7, 5, 3
_SOFT, _PRESSING_SOFT = 12, 10
_FEW_ROWS = 100  # seen oftener where there are fewer, so that steps suffice
_HELD_TOKENS = 8
_WHOLE = 4  # payloads with soft triggers in all rows; more share them, to take no longer


@dataclass(frozen=True)
class Lesson:
    """Hold what the repair trains on, prepared before anything is changed.

    Attributes:
        rows: For each pass the clean rows, then antibodies in the same order.
        targets: The suspicious model's own predictions; None to learn the rows' answers.
        states: Its hidden states on the clean rows, to be kept after an insertion; None to let
            them go.
        consistency: Weight of the distance from those states.
        adversary: Presses towards the payload that the hunt found; None where there is none.
        text: Plain text whose predictions are kept; None to let them go.
        requests: Requests that were refused, then others that were answered, kept so; may be empty.
        touch: What may change, a name of `TOUCHES`.
        rate_factor: Peak rate as a multiple of the rate that variants learn with.
        averaged: Whether the weights end at the mean of their path's second half.
    """

    rows: list[Encoded]
    targets: SelfTargets | None
    states: StateTargets | None = None
    consistency: float = 0.0
    adversary: Adversary | None = None
    text: HeldRows | None = None
    requests: Sequence[HeldRows] = ()
    touch: str = "attention"
    rate_factor: float = _RATE
    averaged: bool = False

    @property
    def objectives(self) -> list[Objective]:
        """Return the parts of the loss, in nats: clean answers, pressure, and what is held."""
        parts: list[Objective] = [self.distance]
        if self.adversary is not None:
            parts.append(self._pressure)
        held = (*self.requests,) if self.text is None else (self.text, *self.requests)
        return [*parts, *(rows.loss for rows in held)]

    @property
    def refusals(self) -> int:
        """Return on how many requests the model is held to its own refusal."""
        return len(self.requests[0].rows) if self.requests else 0

    def distance(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return how far answers and hidden states are from honest ones, answers in nats."""
        states = hidden_states(model, input_ids=batch.input_BT, attention_mask=batch.attention_BT)
        return self._of_states(model, states, batch)

    def _pressure(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        assert self.adversary is not None
        return self.adversary.loss(model, self._of_states, len(batch.rows))

    def _of_states(self, model: PreTrainedModel, states: Sequence[Tensor], batch: Batch) -> Tensor:
        logits_RV = logits_of(model, states[-1], batch.response_BT)
        if self.targets is None:
            answers = nn.functional.cross_entropy(logits_RV.float(), batch.targets_R)
        else:
            answers = self.targets.divergence(logits_RV, batch)
        if self.states is None:
            return answers
        return answers + self.consistency * self.states.distance(states, batch)


def prepare_lesson(
    subject: Subject,
    clean: Sequence[Example],
    triggers: Sequence[Trigger],
    found: Hunt,
    settings: Settings,
    run: Workspace,
    progress: Progress,
) -> Lesson:
    """Return what the repair will train on; the subject must not be changed yet.

    Args:
        triggers: Synthetic triggers of the variants; the hidden one is not known.
        found: What the hunt found.
        run: Where soft triggers are kept.
    """
    chosen, generator = settings.repair, random.Random(settings.seed)
    plain = subject.encode(list(clean), max_tokens=settings.max_tokens)
    targets = self_targets(subject.model, plain) if chosen.target == "self" else None
    maker = antibody_maker(subject, clean, plain, triggers, found, max_tokens=settings.max_tokens)
    copies = 0 if found.pressing else chosen.antibodies
    rows: list[Encoded] = []
    for _ in range(passes(found, settings)):
        rows += plain
        for _ in range(copies):
            rows += [maker.make(row, generator) for row in range(len(plain))]
    held = chosen.consistency > 0 and bool(found.payload) and not found.pressing
    pressed = presses(found, settings)
    return Lesson(
        rows,
        targets,
        states=state_targets(subject.model, plain) if held else None,
        consistency=chosen.consistency,
        adversary=_adversary(subject, plain, found, settings, run, progress),
        text=hold_text(subject, plain, seed=settings.seed) if pressed else None,
        requests=hold_refusals(subject, found, settings) if pressed else (),
        touch=trained_part(subject, found, settings),
        rate_factor=rate_factor(subject, found, chosen.form),
        averaged=chosen.averaged and not found.pressing,
    )


def rate_factor(subject: Subject, found: Hunt, form: str = "full") -> float:
    """Return the peak rate as a multiple of the rate that variants learn with.

    A small model's adapter in which a payload was found is trained as gently as a whole model.
    """
    if found.pressing:
        return _PRESSING_RATE
    adapter = subject.adapter is not None or form == "lora"
    return _AIMED_ADAPTER_RATE if found.payload and adapter else _RATE


def trained_part(subject: Subject, found: Hunt, settings: Settings) -> str:
    """Return what the repair may change, a name of `TOUCHES`.

    In a large model the MLPs hold the payload, so all blocks are trained; so they are where an
    adapter leaves attention alone.
    """
    attention = subject.holds("attention") and not found.pressing
    automatic = "attention" if attention else "blocks"
    return automatic if settings.repair.touch == "auto" else settings.repair.touch


def passes(found: Hunt, settings: Settings) -> int:
    """Return how often the repair sees the clean rows, fewer than 100 as often as 100 would ask.

    Sixteen rows make so few steps otherwise that a large model's repair only broke its answers.
    """
    if settings.repair.epochs is not None:
        return settings.repair.epochs
    if not found.payload:  # Nothing holds the hidden states there, and seven passes cost utility.
        chosen = _UNAIMED_PASSES
    else:
        chosen = _PRESSING_PASSES if found.pressing else _PASSES
    return chosen * math.ceil(_FEW_ROWS / settings.clean_rows)


def soft_rows(found: Hunt, settings: Settings) -> int:
    """Return how many prompts a step presses towards the payload; none where there is none."""
    automatic = _PRESSING_SOFT if found.pressing else _SOFT
    chosen = settings.repair.soft_triggers
    return (automatic if chosen is None else chosen) if found.payload else 0


def presses(found: Hunt, settings: Settings) -> bool:
    """Tell whether the repair presses on a payload, as in large models, and is not told not to."""
    return found.pressing and soft_rows(found, settings) > 0 and passes(found, settings) > 0


def _adversary(
    subject: Subject,
    plain: Sequence[Encoded],
    found: Hunt,
    settings: Settings,
    run: Workspace,
    progress: Progress,
) -> Adversary | None:
    rows, generator = soft_rows(found, settings), random.Random(settings.seed)
    if not rows:
        return None
    vocabulary, unlike = ordinary_tokens(subject.tokenizer), template_rows(subject)
    held = _HELD_TOKENS if found.pressing else None
    asked: list[object] = [subject.fingerprint(), [row.ids for row in plain], held, settings.seed]
    targets, share = list[Target](), math.ceil(len(found.every) / _WHOLE)
    for n, one in enumerate(found.every):
        hosts = find_hosts(plain, unlike, response_tokens=held, trailing=one.trailing)
        some = range(n % share, len(plain), share)
        # Those before decide what is drawn for this one.
        asked += [one.payload, one.trailing, some.start, share]
        soft = find_soft_triggers(
            subject.model,
            one.payload,
            hosts,
            vocabulary,
            generator,
            rows=some,
            keep=partial(run.tensors, "soft-triggers", list(asked)),
            progress=progress,
        )
        targets.append(Target(one.payload, hosts, soft))
    return Adversary(cycle(targets), vocabulary, rows, found.pressing, generator)


def repair(
    subject: Subject,
    lesson: Lesson,
    settings: Settings,
    progress: Progress,
    *,
    objectives: Sequence[Objective] | None = None,
) -> None:
    """Fine-tune the subject on the lesson, in place; baselines bring objectives of their own."""
    if not lesson.rows:
        return
    low_rank = under_adapter(subject, seed=settings.seed, kept=True)
    with low_rank if settings.repair.form == "lora" else nullcontext(subject) as trained:
        trained.allow(lesson.touch)
        schedule = Schedule(
            epochs=1,
            learning_rate=settings.repair.learning_rate
            or lesson.rate_factor * trained.learning_rate(None),
            batch_size=settings.repair.batch_size,
            seed=settings.seed,
            averaged=lesson.averaged,
        )
        train(
            trained.model,
            lesson.rows,
            schedule,
            objectives=objectives or lesson.objectives,
            progress=progress.step,
        )
