"""Pruning baselines: magnitude, Wanda, Fine-Pruning.

Shapes: O outputs, I inputs of a projection; L layers, C channels of a layer. An adapter is merged
first, because the sparsity is that of the dense weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from inoculate.chat import Encoded
from inoculate.components import CHANNELS, HEADS, tensor_names
from inoculate.data import sample
from inoculate.defenses.finetuning import plain_lesson, plain_settings
from inoculate.defenses.given import Defense, Given
from inoculate.models import decoder
from inoculate.repair import repair
from inoculate.subject import Subject
from inoculate.train import collate

CALIBRATION_ROWS = 128

Masks = dict[str, Tensor]
Pruning = Callable[[Subject, Sequence[Encoded], float], Masks]


def magnitude_masks(subject: Subject, rows: Sequence[Encoded], sparsity: float) -> Masks:
    """Mark the smallest weights of every projection in the blocks; reads no row.

    Source: Han et al., NeurIPS 2015, layer by layer.
    """
    del rows
    masks = {}
    for name, weight_OI in projections(subject).items():
        count = int(sparsity * weight_OI.numel())
        smallest = weight_OI.abs().flatten().argsort()[:count]
        masks[name] = torch.zeros_like(weight_OI, dtype=torch.bool)
        masks[name].view(-1)[smallest] = True
    return masks


def wanda_masks(subject: Subject, rows: Sequence[Encoded], sparsity: float) -> Masks:
    """Mark, in each output row, the weights whose |weight| · ‖input‖₂ is smallest.

    The norms are read once from the dense model; the paper reads them block by block.
    Source: Sun et al., ICLR 2024, equation 1.
    """
    squares = input_squares(subject, rows)
    masks = {}
    for name, weight_OI in projections(subject).items():
        score_OI = weight_OI.abs() * squares[name].sqrt()
        smallest_OI = score_OI.argsort(dim=1)[:, : int(sparsity * weight_OI.shape[1])]
        masks[name] = torch.zeros_like(weight_OI, dtype=torch.bool).scatter_(1, smallest_OI, True)
    return masks


def dormant_masks(subject: Subject, rows: Sequence[Encoded], sparsity: float) -> Masks:
    """Mark the down columns of the MLP channels that are least active on clean rows.

    Source: Liu et al., RAID 2018: neurons that sleep on clean data may serve the trigger.
    """
    squares = input_squares(subject, rows)
    parameters, masks = projections(subject), {}
    for layer in range(subject.architecture.layers):
        name = subject.architecture.tensor_name(layer, subject.architecture.family.down)
        dormant = squares[name].argsort()[: int(sparsity * len(squares[name]))]
        masks[name] = torch.zeros_like(parameters[name], dtype=torch.bool)
        masks[name][:, dormant] = True
    return masks


def pruned(masks_of: Pruning, sparsity: float, *, fine_tuned: bool = False) -> Defense:
    """Return the defense that sets marked weights to zero, and may train with them held there."""

    def defense(given: Given) -> float:
        subject, settings = given.subject, given.settings
        subject.merge()
        rows = sample(given.clean, CALIBRATION_ROWS, seed=settings.seed)
        encoded = subject.encode(rows, max_tokens=settings.max_tokens)
        lesson = plain_lesson(given) if fine_tuned else None
        masks = masks_of(subject, encoded, sparsity)
        weights = dict(subject.model.named_parameters())
        zero(weights, masks)
        if lesson:
            with held(weights, masks):
                repair(subject, lesson, plain_settings(subject, settings), given.progress)
        return 0.0

    return defense


@torch.no_grad()
def zero(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set the marked weights to zero, in place."""
    for name, mask in masks.items():
        weights[name].masked_fill_(mask, 0.0)


@contextmanager
def held(weights: Mapping[str, Tensor], masks: Masks) -> Iterator[None]:
    """Keep gradients from the marked weights, so that training leaves them at zero."""

    def keep(mask: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda gradient: gradient.masked_fill(mask, 0.0)

    for name in masks:
        weights[name].requires_grad_(True)
    handles = [weights[name].register_hook(keep(mask)) for name, mask in masks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def projections(subject: Subject) -> dict[str, nn.Parameter]:
    """Return the projections of all blocks by their file tensor names; no embedding, no norm."""
    parameters = dict(subject.model.named_parameters())
    names = [
        name for kind in (CHANNELS, HEADS) for name in tensor_names(subject.architecture, kind)
    ]
    return {name: parameters[name] for name in names}


@torch.inference_mode()
def input_squares(subject: Subject, rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """Return each projection's summed squared inputs over all tokens of the rows, shape (I,)."""
    body = decoder(subject.model)
    totals: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            square_I = inputs[0].float().square().sum(dim=(0, 1))
            totals[name] = totals[name] + square_I if name in totals else square_I

        return hook

    paths = {
        name: name.removeprefix("model.").removesuffix(".weight") for name in projections(subject)
    }
    handles = [
        body.get_submodule(path).register_forward_pre_hook(recorder(name))
        for name, path in paths.items()
    ]
    try:
        for index in range(len(rows)):
            batch = collate(rows, [index], next(subject.model.parameters()).device)
            body(input_ids=batch.input_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return totals
