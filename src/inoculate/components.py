"""Components of a layer (MLP channels, attention heads) read as rows and written back.

Shapes: C components, P parameters of a component, D hidden.
An MLP channel is a row of gate and up and a column of down. An attention head is one
key–value head with the query heads that share it: rows of q, k, v and columns of o, so
that no two components share a parameter under grouped-query attention.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from inoculate.architecture import Architecture, Projection

Weights = Mapping[str, Tensor]
ROWS, COLUMNS = 0, 1


@dataclass(frozen=True)
class Part:
    """Say which slices of one projection belong to a component.

    Component c owns the indices [c·width, (c+1)·width) along `axis`.
    """

    name: str
    axis: int
    width: Callable[[Architecture], int]

    def projection(self, architecture: Architecture) -> Projection:
        """Return where the family keeps this projection."""
        projection: Projection = getattr(architecture.family, self.name)
        return projection

    def tensor_name(self, architecture: Architecture, layer: int) -> str:
        """Return the file tensor's name for one layer."""
        return architecture.tensor_name(layer, self.projection(architecture))


@dataclass(frozen=True)
class Kind:
    """Describe one kind of component: its name, how many a layer has, and its parts."""

    name: str
    count: Callable[[Architecture], int]
    parts: tuple[Part, ...]


def _one(_: Architecture) -> int:
    return 1


def _group_width(architecture: Architecture) -> int:
    return architecture.queries_per_key * architecture.head_size


def _head_size(architecture: Architecture) -> int:
    return architecture.head_size


CHANNELS = Kind(
    "mlp",
    lambda architecture: architecture.mlp_width,
    (Part("gate", ROWS, _one), Part("up", ROWS, _one), Part("down", COLUMNS, _one)),
)
HEADS = Kind(
    "attention",
    lambda architecture: architecture.key_heads,
    (
        Part("q", ROWS, _group_width),
        Part("k", ROWS, _head_size),
        Part("v", ROWS, _head_size),
        Part("o", COLUMNS, _group_width),
    ),
)
SCOPES: dict[str, tuple[Kind, ...]] = {
    "mlp": (CHANNELS,),
    "attention": (HEADS,),
    "both": (CHANNELS, HEADS),
}


def tensor_names(architecture: Architecture, kind: Kind) -> list[str]:
    """Return the file tensors that hold this kind of component, in layer order, once each."""
    names = (
        part.tensor_name(architecture, layer)
        for layer in range(architecture.layers)
        for part in kind.parts
    )
    return list(dict.fromkeys(names))


def span(architecture: Architecture, part: Part, start: int, stop: int) -> tuple[int, int]:
    """Return (first index, length) on the part's axis for components [start, stop)."""
    width = part.width(architecture)
    offset = architecture.first_row(part.projection(architecture)) if part.axis == ROWS else 0
    return offset + start * width, (stop - start) * width


def read_part(
    weights: Weights, architecture: Architecture, layer: int, part: Part, start: int, stop: int
) -> Tensor:
    """Return one part of components [start, stop) as a (C, P) matrix."""
    weight = weights[part.tensor_name(architecture, layer)]
    first, length = span(architecture, part, start, stop)
    block = weight.narrow(part.axis, first, length)
    rows = block if part.axis == ROWS else block.T
    return rows.reshape(stop - start, -1)


def write_part(
    weights: Weights,
    architecture: Architecture,
    layer: int,
    part: Part,
    mask_C: Tensor,
    values_CP: Tensor,
) -> None:
    """Write one part of the masked components, in place.

    Args:
        mask_C: True for the components to write.
        values_CP: New values, one row for each component that is true in the mask.
    """
    weight = weights[part.tensor_name(architecture, layer)]
    first, length = span(architecture, part, 0, mask_C.numel())
    block = weight.narrow(part.axis, first, length)
    rows = block if part.axis == ROWS else block.T
    chosen = mask_C.to(weight.device).repeat_interleave(part.width(architecture))
    rows[chosen] = values_CP.to(weight).reshape(-1, rows.shape[1])
