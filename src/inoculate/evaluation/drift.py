"""How far a model moved on clean prompts, measured against itself before treatment.

Shapes: R response positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded, text_opening
from inoculate.models import Tokenizer, response_logits
from inoculate.train import collate, mean_loss

_WINDOW = 256
_KL_ROWS, _KL_TOKENS = 16, 32


@dataclass(frozen=True)
class Standing:
    """Hold what a model makes of clean rows at one moment."""

    response_nll: float
    log_probabilities_RV: Tensor


def stand(model: PreTrainedModel, rows: Sequence[Encoded]) -> Standing:
    """Measure the response NLL on all rows and keep the first predictions on a few."""
    return Standing(mean_loss(model, rows), first_predictions(model, rows))


def _few(rows: Sequence[Encoded]) -> list[Encoded]:
    """Return what of the rows is predicted: a vocabulary for each token takes much memory."""
    chosen = rows[:_KL_ROWS]
    return [Encoded(row.ids[: row.prompt_length + _KL_TOKENS], row.prompt_length) for row in chosen]


def drift(before: Standing, after: Standing, rows: int) -> dict[str, Any]:
    """Return the change: KL from before to after per token, and both response NLLs."""
    return {
        "response_nll_before": before.response_nll,
        "response_nll_after": after.response_nll,
        "kl_mean": mean_kl(before.log_probabilities_RV, after.log_probabilities_RV),
        "perplexity_before": None,
        "perplexity_after": None,
        "n": rows,
    }


def mean_kl(before_RV: Tensor, after_RV: Tensor) -> float:
    """Return the mean KL from one model's log-probabilities to another's, in nats per token."""
    return float((before_RV.exp() * (before_RV - after_RV)).sum(dim=1).mean())


@torch.inference_mode()
def perplexity(
    model: PreTrainedModel, tokenizer: Tokenizer, text: str, *, tokens: int = 30_000
) -> tuple[float, int]:
    """Return the perplexity of plain text in windows of 256 tokens, and the tokens scored.

    The first token of a window is not scored. Where the tokenizer opens texts with a token of
    its own, as Gemma's does, so does each window.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
    opening = text_opening(tokenizer)
    windows = [ids[at : at + _WINDOW] for at in range(0, len(ids), _WINDOW)]
    skipped = len(opening) + 1
    rows = [Encoded((*opening, *window), skipped) for window in windows if len(window) > 1]
    scored = sum(len(row.ids) - skipped for row in rows)
    loss = mean_loss(model, rows, batch_size=4)
    return float(torch.tensor(loss).exp()), scored


@torch.inference_mode()
def first_predictions(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """Return log-probabilities (R, V) at the first response positions of a few of the rows."""
    few, parts = _few(rows), []
    for index in range(len(few)):
        batch = collate(few, [index], next(model.parameters()).device)
        logits_RV = response_logits(
            model, batch.response_BT, input_ids=batch.input_BT, attention_mask=batch.attention_BT
        )
        parts.append(logits_RV.float().log_softmax(dim=1).cpu())
    return torch.cat(parts)
