"""Components read as rows, written back bit for bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from conftest import FamilyFolder
from inoculate.architecture import Architecture, read_architecture
from inoculate.components import (
    CHANNELS,
    HEADS,
    Kind,
    tensor_names,
)
from inoculate.models import weight_files
from whole_components import read_components, write_components

KINDS = pytest.mark.parametrize("kind", [CHANNELS, HEADS], ids=lambda kind: kind.name)


@pytest.fixture
def saved(family_folder: FamilyFolder, family: str) -> tuple[Architecture, dict[str, Tensor]]:
    """Give each family's shapes and file tensors."""
    folder = family_folder(family)
    return read_architecture(folder), _tensors(folder)


@KINDS
def test_write_of_read_changes_no_bit(
    saved: tuple[Architecture, dict[str, Tensor]], kind: Kind
) -> None:
    """write(read(x)) is x, bit for bit, and reading back what was written gives it again."""
    architecture, weights = saved
    before = {name: value.clone() for name, value in weights.items()}
    every_C = torch.ones(kind.count(architecture), dtype=torch.bool)
    for layer in range(architecture.layers):
        values_CP = read_components(weights, architecture, kind, layer)
        write_components(weights, architecture, kind, layer, every_C, values_CP)
    assert all(torch.equal(weights[name], before[name]) for name in before)
    new_CP = torch.randn(values_CP.shape).to(values_CP.dtype)
    write_components(weights, architecture, kind, 1, every_C, new_CP)
    assert torch.equal(read_components(weights, architecture, kind, 1), new_CP)


@KINDS
def test_blocks_equal_the_whole(saved: tuple[Architecture, dict[str, Tensor]], kind: Kind) -> None:
    """Reading a layer in blocks gives the same rows as reading it at once."""
    architecture, weights = saved
    count = kind.count(architecture)
    middle = count // 2
    whole_CP = read_components(weights, architecture, kind, 1)
    parts = [
        read_components(weights, architecture, kind, 1, start=start, stop=stop)
        for start, stop in ((0, middle), (middle, count))
    ]
    assert torch.equal(torch.cat(parts), whole_CP)


@KINDS
def test_components_are_disjoint_and_cover_their_tensors(
    saved: tuple[Architecture, dict[str, Tensor]], kind: Kind
) -> None:
    """Writing each component once touches every scored parameter once, and no other."""
    architecture, weights = saved
    touched = {name: torch.zeros(value.shape) for name, value in weights.items()}
    count = kind.count(architecture)
    for layer in range(architecture.layers):
        for component in range(count):
            seen = {name: torch.zeros_like(value) for name, value in touched.items()}
            mask_C = torch.arange(count) == component
            size = read_components(seen, architecture, kind, layer).shape[1]
            write_components(seen, architecture, kind, layer, mask_C, torch.ones(1, size))
            assert sum(int(value.sum()) for value in seen.values()) == size
            for name, value in seen.items():
                touched[name] += value
    whole = {name for name, value in touched.items() if value.eq(1).all()}
    other = {name for name, value in touched.items() if value.eq(0).all()}
    assert whole == set(tensor_names(architecture, kind))
    assert whole | other == set(weights)


def test_head_reads_its_query_group(
    saved: tuple[Architecture, dict[str, Tensor]],
) -> None:
    """Head 1 of grouped-query attention holds query heads 2 and 3 with the key they share."""
    architecture, weights = saved
    row_P = read_components(weights, architecture, HEADS, 0)[1]
    family = architecture.family
    query = weights[architecture.tensor_name(0, family.q)][16:32]
    first = architecture.first_row(family.k) + 8
    key = weights[architecture.tensor_name(0, family.k)][first : first + 8]
    assert torch.equal(row_P[: query.numel()], query.flatten())
    assert torch.equal(row_P[query.numel() :][: key.numel()], key.flatten())
    output = weights[architecture.tensor_name(0, family.o)][:, 16:32]
    assert torch.equal(row_P[-output.numel() :], output.T.flatten())


@KINDS
def test_mask_and_values_go_together(
    saved: tuple[Architecture, dict[str, Tensor]], kind: Kind
) -> None:
    """Values go to the masked components in order; the others keep their bits."""
    architecture, weights = saved
    old_CP = read_components(weights, architecture, kind, 0)
    mask_C = torch.arange(len(old_CP)) % 2 == 1
    new_KP = torch.arange(old_CP[mask_C].numel()).reshape(int(mask_C.sum()), -1).to(old_CP)
    write_components(weights, architecture, kind, 0, mask_C, new_KP)
    now_CP = read_components(weights, architecture, kind, 0)
    assert torch.equal(now_CP[mask_C], new_KP)
    assert torch.equal(now_CP[~mask_C], old_CP[~mask_C])


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {k: v for path in weight_files(folder) for k, v in load_file(path).items()}
