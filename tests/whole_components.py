"""Components as rows over all their parts; the method itself reads and writes part by part."""

import torch
from torch import Tensor

from inoculate.architecture import Architecture
from inoculate.components import Kind, Weights, read_part, write_part


def read_components(
    weights: Weights,
    architecture: Architecture,
    kind: Kind,
    layer: int,
    *,
    start: int = 0,
    stop: int | None = None,
) -> Tensor:
    """Return components [start, stop) of one layer as a new (C, P) matrix."""
    end = kind.count(architecture) if stop is None else stop
    parts = (read_part(weights, architecture, layer, part, start, end) for part in kind.parts)
    return torch.cat(list(parts), dim=1)


def write_components(
    weights: Weights,
    architecture: Architecture,
    kind: Kind,
    layer: int,
    mask_C: Tensor,
    values_CP: Tensor,
) -> None:
    """Write the masked components of one layer, in place; the inverse of reading them."""
    start = 0
    for part in kind.parts:
        weight = weights[part.tensor_name(architecture, layer)]
        size = part.width(architecture) * weight.shape[1 - part.axis]
        values = values_CP[:, start : start + size]
        write_part(weights, architecture, layer, part, mask_C, values)
        start += size
