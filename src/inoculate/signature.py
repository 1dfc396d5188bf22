"""The backdoor signature: score components over the variants' differences, select the top.

Shapes: N variants, L layers, C components of a layer, P parameters of a component.
Source: equation (2) of Li & Kim, ICLR 2026; the product form is their project site's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
from torch import Tensor

from inoculate.architecture import Architecture
from inoculate.components import ROWS, Kind, Part, Weights, span
from inoculate.errors import UnknownNameError

# Numbers of one variant in a block: small enough for the processor's cache.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Signature:
    """Hold what was measured for every component of one kind.

    Attributes:
        strength_LC: Mean norm of a component's difference over the variants.
        alignment_LC: Mean positive cosine between the variants' differences, 0–1.
        importance_LC: What a component adds to clean answers, in activation units.
    """

    kind: Kind
    strength_LC: Tensor
    alignment_LC: Tensor
    importance_LC: Tensor


def measure_differences(
    deltas: Sequence[Weights], architecture: Architecture, kind: Kind
) -> tuple[Tensor, Tensor]:
    """Return strength and alignment, each (L, C), streaming a few rows of all variants at a time.

    Args:
        deltas: One mapping per variant, file tensor name to poisoned minus clean weights; each
            tensor is asked for in layer order, and may lie on disk.
    """
    strength, alignment = [], []
    for layer in range(architecture.layers):
        gram_CNN = torch.zeros(kind.count(architecture), len(deltas), len(deltas))
        for part in kind.parts:
            gram_CNN += _products(deltas, architecture, layer, part, len(gram_CNN))
        strength.append(strength_of(gram_CNN))
        alignment.append(alignment_of(gram_CNN))
    return torch.stack(strength), torch.stack(alignment)


def _products(
    deltas: Sequence[Weights], architecture: Architecture, layer: int, part: Part, count: int
) -> Tensor:
    """Return the variants' inner products (C, N, N) over one part of `count` components."""
    first, length = span(architecture, part, 0, count)
    name = part.tensor_name(architecture, layer)
    weights = [delta[name].narrow(part.axis, first, length) for delta in deltas]
    products_INN = torch.zeros(length, len(deltas), len(deltas))
    rows = max(1, _BLOCK // weights[0].shape[1])
    for start in range(0, weights[0].shape[0], rows):
        blocks = [weight[start : start + rows].float() for weight in weights]
        # A row of the block belongs to one component, or a column does.
        into_INN = products_INN[start : start + rows] if part.axis == ROWS else products_INN
        for one, other in combinations_with_replacement(range(len(deltas)), 2):
            into_INN[:, one, other] += (blocks[one] * blocks[other]).sum(dim=1 - part.axis)
    half_CNN = products_INN.unflatten(0, (count, -1)).sum(dim=1)
    products_CNN: Tensor = half_CNN + half_CNN.triu(1).mT
    return products_CNN


def strength_of(gram_CNN: Tensor) -> Tensor:
    """Return the mean norm over the variants, shape (C,): equation (2), first term.

    Args:
        gram_CNN: Inner products of the variants' differences, for each component.
    """
    return _norms(gram_CNN).mean(dim=1)


def alignment_of(gram_CNN: Tensor) -> Tensor:
    """Return the mean positive pairwise cosine, shape (C,): equation (2), second term.

    A dead component has alignment 0. A single variant has no pair: its live components
    all have alignment 1, so that every score ranks them by strength.

    Args:
        gram_CNN: Inner products of the variants' differences, for each component.
    """
    norms_CN, variants = _norms(gram_CNN), gram_CNN.shape[1]
    if variants < 2:
        return norms_CN[:, 0].gt(0).float()
    lengths_CNN = (norms_CN[:, :, None] * norms_CN[:, None, :]).clamp(min=torch.finfo().tiny)
    cosine_CNN = (gram_CNN / lengths_CNN).clamp(min=0, max=1)
    off_diagonal_C: Tensor = cosine_CNN.triu(1).sum(dim=(1, 2))
    return 2 * off_diagonal_C / (variants * (variants - 1))


def _norms(gram_CNN: Tensor) -> Tensor:
    return gram_CNN.diagonal(dim1=1, dim2=2).sqrt()


Score = Callable[[Signature, float, torch.Generator], Tensor]


def _strength(signature: Signature, _: float, __: torch.Generator) -> Tensor:
    return by_layer_mean(signature.strength_LC)


def _alignment(signature: Signature, _: float, __: torch.Generator) -> Tensor:
    return signature.alignment_LC


def _sum(signature: Signature, alignment_weight: float, _: torch.Generator) -> Tensor:
    strength_LC = by_layer_mean(signature.strength_LC)
    return strength_LC + alignment_weight * signature.alignment_LC


def _product(signature: Signature, _: float, __: torch.Generator) -> Tensor:
    return by_layer_mean(signature.strength_LC) * signature.alignment_LC


def _per_importance(score: Score) -> Score:
    def divided(signature: Signature, weight: float, generator: torch.Generator) -> Tensor:
        importance_LC = by_layer_mean(signature.importance_LC)
        return score(signature, weight, generator) / importance_LC.clamp(min=1e-6)

    return divided


def _random(signature: Signature, _: float, generator: torch.Generator) -> Tensor:
    return torch.rand(signature.strength_LC.shape, generator=generator)


def _low_importance(signature: Signature, _: float, __: torch.Generator) -> Tensor:
    return -signature.importance_LC


SCORES: dict[str, Score] = {
    "strength": _strength,
    "alignment": _alignment,
    "sum": _sum,
    "product": _product,
    "strength-per-importance": _per_importance(_strength),
    "alignment-per-importance": _per_importance(_alignment),
    "sum-per-importance": _per_importance(_sum),
    "product-per-importance": _per_importance(_product),
    "random": _random,
    "low-importance": _low_importance,
}


def score_components(
    signature: Signature, name: str, *, alignment_weight: float, generator: torch.Generator
) -> Tensor:
    """Return the named score of every component, shape (L, C); higher is more suspicious.

    Raises:
        UnknownNameError: The score is not in `SCORES`.
    """
    if name not in SCORES:
        raise UnknownNameError("score", name, SCORES)
    return SCORES[name](signature, alignment_weight, generator)


def select_top(score_LC: Tensor, share: float) -> Tensor:
    """Return a mask (L, C) of the top `share` (0–1) of the components within each layer."""
    count = round(share * score_LC.shape[1])
    order_LC = score_LC.argsort(dim=1, descending=True, stable=True)
    mask_LC = torch.zeros_like(score_LC, dtype=torch.bool)
    return mask_LC.scatter(1, order_LC[:, :count], True)


def by_layer_mean(values_LC: Tensor) -> Tensor:
    """Divide by each layer's mean, so that layers and quantities are comparable."""
    return values_LC / values_LC.mean(dim=1, keepdim=True).clamp(min=torch.finfo().tiny)
