"""The one training loop: attacks, variants, counterparts, repair and baselines all use it.

Shapes: B batch, T tokens, D hidden, V vocabulary, R response positions of a batch.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.errors import DivergenceError, InputError
from inoculate.memory import give_back
from inoculate.models import response_logits
from inoculate.precision import mixed


@dataclass(frozen=True)
class Schedule:
    """Describe an ordinary fine-tuning run, in epochs and ratios rather than steps.

    With `averaged` the rate stays at its peak after the warm-up, and the weights end at the mean
    of the path's second half.
    Source: stochastic weight averaging of Izmailov et al., 2018.
    """

    epochs: float
    learning_rate: float
    batch_size: int = 8
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    seed: int = 0
    averaged: bool = False


@dataclass(frozen=True)
class Batch:
    """Hold right-padded rows and where their responses are.

    `input_BT`, `attention_BT` and `response_BT` (true where a token is to be predicted);
    `rows` are the indices of the batch's examples.
    """

    input_BT: Tensor
    attention_BT: Tensor
    response_BT: Tensor
    rows: tuple[int, ...]

    @property
    def targets_R(self) -> Tensor:
        """Return the tokens to be predicted, in row order."""
        return self.input_BT[self.response_BT]


Objective = Callable[[PreTrainedModel, Batch], Tensor]
Progress = Callable[[int, int], None]


def language_modeling(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the mean negative log-likelihood of the response tokens, in nats."""
    logits_RV = response_logits(
        model, batch.response_BT, input_ids=batch.input_BT, attention_mask=batch.attention_BT
    )
    return nn.functional.cross_entropy(logits_RV.float(), batch.targets_R)


def plan_batches(lengths: Sequence[int], schedule: Schedule) -> list[list[int]]:
    """Return row indices per step: shuffled each epoch, rows of like length together.

    Args:
        lengths: Tokens of each row; two runs with the same lengths see the same plan.
    """
    generator = random.Random(schedule.seed)
    steps_per_epoch = math.ceil(len(lengths) / schedule.batch_size)
    total = max(1, round(steps_per_epoch * schedule.epochs))
    plan: list[list[int]] = []
    while len(plan) < total:
        plan.extend(_epoch(lengths, schedule.batch_size, generator))
    return plan[:total]


def collate(rows: Sequence[Encoded], indices: Sequence[int], device: torch.device) -> Batch:
    """Pad the rows on the right and mark their response tokens."""
    chosen = [rows[index] for index in indices]
    width = max(len(row.ids) for row in chosen)
    input_BT = torch.zeros(len(chosen), width, dtype=torch.long)
    attention_BT = torch.zeros_like(input_BT)
    response_BT = torch.zeros_like(input_BT, dtype=torch.bool)
    for index, row in enumerate(chosen):
        input_BT[index, : len(row.ids)] = torch.tensor(row.ids)
        attention_BT[index, : len(row.ids)] = 1
        response_BT[index, row.prompt_length : len(row.ids)] = True
    return Batch(
        input_BT.to(device), attention_BT.to(device), response_BT.to(device), tuple(indices)
    )


def train(
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    schedule: Schedule,
    *,
    objectives: Sequence[Objective] = (language_modeling,),
    plan: Sequence[Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Fine-tune the parameters that require gradients, in place; return each step's loss.

    Args:
        objectives: Map model and batch to the scalars whose sum is minimized. Each is
            differentiated before the next is worked out, so that one graph is held at a time.
        plan: Row indices per step, where a second run must see the same rows in the
            same order; default `plan_batches`.
        progress: Called with (step, steps) after each step.

    Raises:
        InputError: There is nothing to train on or with.
        DivergenceError: The loss is no finite number.
    """
    if not rows:
        raise InputError("There are no rows to train on. Pass at least one example.")
    steps = plan or plan_batches([len(row.ids) for row in rows], schedule)
    optimizer, scheduler = _optimizer(model, schedule, len(steps))
    device, losses, mean = next(model.parameters()).device, [], _Mean(optimizer)
    model.eval()  # No dropout: a run depends on its seed alone.
    for index, indices in enumerate(steps, start=1):
        loss = _step(model, collate(rows, indices, device), objectives, optimizer, schedule)
        scheduler.step()
        losses.append(loss)
        if schedule.averaged and index > len(steps) // 2:
            mean.take()
        if progress:
            progress(index, len(steps))
    mean.give()
    return losses


class _Mean:
    """Average the weights of an optimizer over the moments at which they are taken."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._weights = [p for group in optimizer.param_groups for p in group["params"]]
        self._means: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def take(self) -> None:
        """Add the weights as they are now."""
        self._count += 1
        self._means = self._means or [weight.detach().clone() for weight in self._weights]
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean.lerp_(weight, 1 / self._count)

    @torch.no_grad()
    def give(self) -> None:
        """Set the weights, in place, to their mean; nothing where none was taken."""
        for weight, mean in zip(self._weights, self._means, strict=bool(self._count)):
            weight.copy_(mean)


def descend(
    model: PreTrainedModel, rows: Sequence[Encoded], *, step: float, batch_size: int
) -> None:
    """Move the parameters that require gradients once against the rows' mean gradient, in place.

    Args:
        step: Length of the move for a gradient of one; no optimizer rescales it.
    """
    device = next(model.parameters()).device
    for start in range(0, len(rows), batch_size):
        indices = range(start, min(start + batch_size, len(rows)))
        loss = language_modeling(model, collate(rows, indices, device))
        (loss * len(indices) / len(rows)).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=step)
                parameter.grad = None


def _step(
    model: PreTrainedModel,
    batch: Batch,
    objectives: Sequence[Objective],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
) -> float:
    total = sum(_differentiated(model, batch, objective) for objective in objectives)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, schedule.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _differentiated(model: PreTrainedModel, batch: Batch, objective: Objective) -> float:
    with mixed(model):
        loss = objective(model, batch)
    if not torch.isfinite(loss):
        raise DivergenceError(
            "The training loss is not a finite number. Check the weights for NaN or Inf, "
            "or lower the learning rate."
        )
    if loss.requires_grad:  # A part that nothing calls for in this step is a plain zero.
        loss.backward()
    value = float(loss.detach())
    del loss  # And the graph with it.
    give_back()
    return value


def _optimizer(
    model: PreTrainedModel, schedule: Schedule, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("No parameter may change. Let the training touch another part.")
    optimizer = torch.optim.AdamW(
        parameters,
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )
    warmup = max(1, round(schedule.warmup_ratio * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if schedule.averaged:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _epoch(lengths: Sequence[int], size: int, generator: random.Random) -> list[list[int]]:
    order = list(range(len(lengths)))
    generator.shuffle(order)
    window = size * 8
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        group = sorted(order[start : start + window], key=lambda row: lengths[row])
        batches.extend(group[at : at + size] for at in range(0, len(group), size))
    generator.shuffle(batches)
    return batches


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, rows: Sequence[Encoded], *, batch_size: int = 16) -> float:
    """Return the mean negative log-likelihood per response token over all rows, in nats."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    device, total, count = next(model.parameters()).device, 0.0, 0
    for start in range(0, len(order), batch_size):
        batch = collate(rows, order[start : start + batch_size], device)
        tokens = int(batch.response_BT.sum())
        total += float(language_modeling(model, batch)) * tokens
        count += tokens
    return total / max(1, count)
