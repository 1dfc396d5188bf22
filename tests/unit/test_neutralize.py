"""Neutralizing touches the masked components and nothing else."""

import pytest
import torch
from torch import Tensor

from inoculate import adapters
from inoculate.adapters import DenseUpdate
from inoculate.architecture import Architecture
from inoculate.chat import encode
from inoculate.components import CHANNELS, COLUMNS, HEADS, ROWS, Kind, read_part
from inoculate.data import Example
from inoculate.errors import UnknownNameError
from inoculate.models import Checkpoint
from inoculate.neutralize import NEUTRALIZATIONS, neutralize, neutralize_adapter
from inoculate.train import collate, language_modeling
from whole_components import read_components

KINDS = pytest.mark.parametrize("kind", [CHANNELS, HEADS], ids=lambda kind: kind.name)


@KINDS
@pytest.mark.parametrize("mode", NEUTRALIZATIONS)
def test_only_masked_components_change(checkpoint: Checkpoint, kind: Kind, mode: str) -> None:
    """Every unmasked component and every other tensor keeps its bits; masked ones all change."""
    architecture = checkpoint.architecture
    mask_LC = _mask(architecture, kind)
    weights = dict(checkpoint.model.named_parameters())
    before = {name: value.detach().clone() for name, value in weights.items()}
    assert _neutralize(weights, architecture, kind, mask_LC, mode) == mask_LC.sum(dim=1).tolist()
    for layer in range(architecture.layers):
        old_CP = read_components(before, architecture, kind, layer)
        new_CP = read_components(weights, architecture, kind, layer)
        changed_C = old_CP.ne(new_CP).any(dim=1)
        assert torch.equal(changed_C, mask_LC[layer])
    differing = sum(int(weights[name].ne(old).sum()) for name, old in before.items())
    assert differing == int(mask_LC.sum()) * old_CP.shape[1]


@KINDS
def test_modes_do_what_they_say(checkpoint: Checkpoint, kind: Kind) -> None:
    """`zero` clears all; `quiet` clears outputs and draws the rest at the layer's scale."""
    architecture = checkpoint.architecture
    every_LC = torch.ones_like(_mask(architecture, kind))
    weights = dict(checkpoint.model.named_parameters())
    scales = {
        part.name: float(
            read_part(weights, architecture, 0, part, 0, every_LC.shape[1]).detach().std()
        )
        for part in kind.parts
    }
    _neutralize(weights, architecture, kind, every_LC, "quiet")
    for part in kind.parts:
        rows_CP = read_part(weights, architecture, 0, part, 0, every_LC.shape[1])
        if part.axis == COLUMNS:
            assert not rows_CP.any()
        else:
            assert 0.8 < float(rows_CP.detach().std()) / scales[part.name] < 1.25
    _neutralize(weights, architecture, kind, every_LC, "zero")
    assert not read_components(weights, architecture, kind, 0).any()


def test_same_generator_gives_same_weights(llama: Checkpoint) -> None:
    """New weights come from the generator alone."""
    mask_LC = _mask(llama.architecture, CHANNELS)
    weights = dict(llama.model.named_parameters())
    drawn = []
    for _ in range(2):
        _neutralize(weights, llama.architecture, CHANNELS, mask_LC, "zero")
        _neutralize(weights, llama.architecture, CHANNELS, mask_LC, "reinitialize")
        drawn.append(read_components(weights, llama.architecture, CHANNELS, 0).clone())
    rows_C = mask_LC[0]
    scale = drawn[1][rows_C].norm() / drawn[0][rows_C].norm()
    torch.testing.assert_close(drawn[0][rows_C] * scale, drawn[1][rows_C], rtol=0.1, atol=0.05)


def test_quiet_channel_can_learn_again(checkpoint: Checkpoint) -> None:
    """After `quiet`, a gradient reaches the zeroed down columns of the masked channels."""
    architecture = checkpoint.architecture
    mask_LC = _mask(architecture, CHANNELS)
    weights = dict(checkpoint.model.named_parameters())
    _neutralize(weights, architecture, CHANNELS, mask_LC, "quiet")
    row = encode(checkpoint.tokenizer, Example("Say ha", "Ha."))
    batch = collate([row], [0], torch.device("cpu"))
    language_modeling(checkpoint.model, batch).backward()
    for layer in range(architecture.layers):
        name = architecture.tensor_name(layer, architecture.family.down)
        gradient_DF = weights[name].grad
        assert gradient_DF is not None
        assert not weights[name][:, mask_LC[layer]].any()
        assert gradient_DF[:, mask_LC[layer]].norm(dim=0).gt(0).all()


@KINDS
def test_adapter_update_loses_only_masked_components(checkpoint: Checkpoint, kind: Kind) -> None:
    """The dense update's masked components become zero in every part; the rest stays equal."""
    architecture = checkpoint.architecture
    model = adapters.add_adapter(checkpoint.model, rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, b_OR in adapters.factors(model).values():
            b_OR.copy_(torch.randn(b_OR.shape, generator=generator))
    before = DenseUpdate(model)
    mask_LC = _mask(architecture, kind)
    neutralize_adapter(adapters.factors(model), architecture, kind, mask_LC)
    after = DenseUpdate(model)
    for layer in range(architecture.layers):
        old_CP = read_components(before, architecture, kind, layer)
        new_CP = read_components(after, architecture, kind, layer)
        assert not new_CP[mask_LC[layer]].any()
        torch.testing.assert_close(new_CP[~mask_LC[layer]], old_CP[~mask_LC[layer]])
    untouched = {part.tensor_name(architecture, 0) for part in kind.parts}
    others = [name for name in before if name.split(".", 3)[3] not in _below_layer(untouched)]
    assert others
    assert all(torch.equal(before[name], after[name]) for name in others)


def test_adapter_zeroes_rows_of_b_and_columns_of_a(llama: Checkpoint) -> None:
    """A gate channel is a row of B, a down channel a column of A; the other factor stays."""
    model = adapters.add_adapter(llama.model, rank=2)
    with torch.no_grad():
        for pair in adapters.factors(model).values():
            for factor in pair:
                factor.fill_(1.0)
    mask_LC = _mask(llama.architecture, CHANNELS)
    neutralize_adapter(adapters.factors(model), llama.architecture, CHANNELS, mask_LC)
    for part in CHANNELS.parts:
        a_RI, b_OR = adapters.factors(model)[part.tensor_name(llama.architecture, 1)]
        cut, whole = (b_OR, a_RI) if part.axis == ROWS else (a_RI.T, b_OR)
        assert whole.eq(1).all()
        assert torch.equal(cut.eq(0).all(dim=1), mask_LC[1])


def test_adapter_without_a_projection_is_left_alone(llama: Checkpoint) -> None:
    """An adapter over q and v alone has no channels to lose."""
    model = adapters.add_adapter(llama.model, rank=2, projections=("q_proj", "v_proj"))
    before = {n: (a.clone(), b.clone()) for n, (a, b) in adapters.factors(model).items()}
    mask_LC = _mask(llama.architecture, CHANNELS)
    neutralize_adapter(adapters.factors(model), llama.architecture, CHANNELS, mask_LC)
    for name, pair in adapters.factors(model).items():
        assert all(torch.equal(x, y) for x, y in zip(before[name], pair, strict=True))


def test_unknown_mode_is_refused(llama: Checkpoint) -> None:
    """A misspelled mode is answered with the one that was meant."""
    weights = dict(llama.model.named_parameters())
    mask_LC = _mask(llama.architecture, CHANNELS)
    with pytest.raises(UnknownNameError, match="Did you mean 'quiet'"):
        _neutralize(weights, llama.architecture, CHANNELS, mask_LC, "quite")


def _mask(architecture: Architecture, kind: Kind) -> Tensor:
    """Mask a different third of each layer, at least one component."""
    count = kind.count(architecture)
    numbers_LC = torch.arange(count) + torch.arange(architecture.layers).unsqueeze(1)
    return numbers_LC % min(count, 3) == 0


def _below_layer(names: set[str]) -> set[str]:
    return {name.split(".", 3)[3] for name in names}


def _neutralize(
    weights: dict[str, Tensor], architecture: Architecture, kind: Kind, mask_LC: Tensor, mode: str
) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return neutralize(weights, architecture, kind, mask_LC, mode=mode, generator=generator)
