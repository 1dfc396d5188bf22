"""Rows on which a pressing repair keeps the suspicious model's predictions.

Shapes: R predicted positions, V vocabulary.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.models import response_logits
from inoculate.repair.targets import SelfTargets, self_targets
from inoculate.subject import Subject
from inoculate.train import Batch, collate


@dataclass(frozen=True)
class HeldRows:
    """Hold rows, what the suspicious model predicts in them, and how many each step is shown."""

    rows: Sequence[Encoded]
    targets: SelfTargets
    count: int
    generator: random.Random

    def loss(self, model: PreTrainedModel, _: Batch) -> Tensor:
        """Return the mean KL from the kept predictions on some of the rows, in nats."""
        which = self.generator.sample(range(len(self.rows)), min(self.count, len(self.rows)))
        batch = collate(self.rows, which, next(model.parameters()).device)
        logits_RV = response_logits(
            model, batch.response_BT, input_ids=batch.input_BT, attention_mask=batch.attention_BT
        )
        return self.targets.divergence(logits_RV, batch)


def hold(
    subject: Subject, rows: Sequence[Encoded], *, count: int, generator: random.Random
) -> HeldRows:
    """Record what the subject, not changed yet, predicts in the rows' responses."""
    return HeldRows(rows, self_targets(subject.model, rows), count, generator)
