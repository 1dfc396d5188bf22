"""What the suspicious model itself predicts on clean rows, kept to be held to in repair.

Shapes: R response positions of a batch, K kept tokens, V vocabulary.
Hard labels would teach somebody else's style and sharpen a model on its own words; its
own distribution keeps it where it was. On a row with a synthetic trigger the target is
the prediction on the same row without the trigger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.models import response_logits
from inoculate.precision import mixed
from inoculate.train import Batch, collate

_KEPT = 64


@dataclass(frozen=True)
class SelfTargets:
    """Hold the top tokens and log-probabilities at each response position of each clean row."""

    tokens: list[Tensor]
    log_probabilities: list[Tensor]

    def divergence(self, logits_RV: Tensor, batch: Batch) -> Tensor:
        """Return the mean KL from the kept predictions to these logits, in nats.

        Tokens that were not kept count as one.
        """
        counts = batch.response_BT.sum(dim=1).tolist()
        tokens_RK = self._gather(self.tokens, batch, counts).to(logits_RV.device)
        kept_RK = self._gather(self.log_probabilities, batch, counts).to(logits_RV.device)
        new_RK = logits_RV.float().log_softmax(dim=1).gather(1, tokens_RK)
        tail_R, new_tail_R = _rest(kept_RK), _rest(new_RK)
        kl_R = (kept_RK.exp() * (kept_RK - new_RK)).sum(dim=1)
        return (kl_R + tail_R * (tail_R.log() - new_tail_R.log())).mean()

    def _gather(self, values: Sequence[Tensor], batch: Batch, counts: Sequence[int]) -> Tensor:
        rows = (
            values[row % len(values)][:count] for row, count in zip(batch.rows, counts, strict=True)
        )
        return torch.cat(list(rows))


@torch.inference_mode()
def self_targets(model: PreTrainedModel, rows: Sequence[Encoded]) -> SelfTargets:
    """Record the model's own predictions on clean rows, before it is changed."""
    device = next(model.parameters()).device
    tokens, log_probabilities = [], []
    for index in range(len(rows)):
        batch = collate(rows, [index], device)
        with mixed(model):
            logits_RV = response_logits(
                model,
                batch.response_BT,
                input_ids=batch.input_BT,
                attention_mask=batch.attention_BT,
            )
        kept = logits_RV.float().log_softmax(dim=1).topk(min(_KEPT, logits_RV.shape[1] - 1))
        tokens.append(kept.indices.cpu())
        log_probabilities.append(kept.values.cpu())
    return SelfTargets(tokens, log_probabilities)


def _rest(log_probabilities_RK: Tensor) -> Tensor:
    return (1 - log_probabilities_RK.exp().sum(dim=1)).clamp(min=1e-6)
