"""Plant a backdoor, or several at once, by supervised fine-tuning; for research.

`attack` plants one of the published attacks, the challenge plants canaries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from inoculate.data import Example
from inoculate.errors import InputError
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.train import Schedule, train


@dataclass(frozen=True)
class PlantSettings:
    """Describe the attacker's fine-tuning; a learning rate of None fits the width."""

    epochs: float = 5.0
    learning_rate: float | None = None
    batch_size: int = 8
    touch: str = "all"
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        if self.batch_size < 1 or self.max_tokens < 1 or not 0 < self.epochs < math.inf:
            raise InputError("Batch size, tokens and epochs of an attack must be above 0.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InputError("The learning rate of an attack must be above 0, or left out.")


def plant(
    subject: Subject,
    rows: Sequence[Example],
    settings: PlantSettings,
    progress: Progress,
) -> list[str]:
    """Fine-tune on poisoned rows, in place; returns the names of what was trained."""
    names = subject.allow(settings.touch)
    schedule = Schedule(
        epochs=settings.epochs,
        learning_rate=subject.learning_rate(settings.learning_rate),
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    encoded = subject.encode(list(rows), max_tokens=settings.max_tokens)
    train(subject.model, encoded, schedule, progress=progress.step)
    return names
