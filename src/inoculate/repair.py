"""Step 4: fine-tune on clean rows and antibodies."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from inoculate.antibodies import antibody_maker
from inoculate.attacks.triggers import Trigger
from inoculate.chat import Encoded
from inoculate.config import Settings
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.models import response_logits
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.targets import SelfTargets, self_targets
from inoculate.train import Batch, Objective, Schedule, language_modeling, train

_RATE = 0.75  # of the rate that variants learn with


@dataclass(frozen=True)
class Lesson:
    """Hold what the repair trains on, prepared before anything is changed.

    Attributes:
        rows: For each pass the clean rows, then antibodies in the same order.
        targets: The suspicious model's own predictions; None to learn the rows' answers.
    """

    rows: list[Encoded]
    targets: SelfTargets | None

    def objective(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return how far the answers are from honest ones, in nats per token."""
        if self.targets is None:
            return language_modeling(model, batch)
        logits_RV = response_logits(
            model, batch.response_BT, input_ids=batch.input_BT, attention_mask=batch.attention_BT
        )
        return self.targets.divergence(logits_RV, batch)


def prepare_lesson(
    subject: Subject,
    clean: Sequence[Example],
    triggers: Sequence[Trigger],
    found: Hunt,
    settings: Settings,
) -> Lesson:
    """Return what the repair will train on; the subject must not be changed yet.

    Args:
        triggers: Synthetic triggers of the variants; the hidden one is not known.
        found: What the hunt found.
    """
    chosen, generator = settings.repair, random.Random(settings.seed)
    plain = subject.encode(list(clean), max_tokens=settings.max_tokens)
    targets = self_targets(subject.model, plain) if chosen.target == "self" else None
    maker = antibody_maker(subject, clean, plain, triggers, found, max_tokens=settings.max_tokens)
    rows: list[Encoded] = []
    for _ in range(chosen.epochs):
        rows += plain
        for _ in range(chosen.antibodies):
            rows += [maker.make(row, generator) for row in range(len(plain))]
    return Lesson(rows, targets)


def repair(
    subject: Subject,
    lesson: Lesson,
    settings: Settings,
    progress: Progress,
    *,
    objective: Objective | None = None,
) -> None:
    """Fine-tune the subject on the lesson, in place; baselines bring another objective."""
    if not lesson.rows:
        return
    subject.allow(settings.repair.touch)
    schedule = Schedule(
        epochs=1,
        learning_rate=settings.repair.learning_rate or _RATE * subject.learning_rate(None),
        batch_size=settings.repair.batch_size,
        seed=settings.seed,
    )
    train(
        subject.model,
        lesson.rows,
        schedule,
        objective=objective or lesson.objective,
        progress=progress.step,
    )
