"""Planted truth for the signature: shifted channels must be found."""

import pytest
import torch
from torch import Tensor

from inoculate.architecture import Architecture
from inoculate.components import CHANNELS, HEADS, tensor_names
from inoculate.errors import UnknownNameError
from inoculate.signature import (
    SCORES,
    Signature,
    alignment_of,
    by_layer_mean,
    measure_differences,
    score_components,
    select_top,
)
from whole_components import read_components

ARCHITECTURE = Architecture("llama", 2, 16, 100, 4, 2, 4)
PLANTED = (3, 20, 41, 64, 99)
Deltas = list[dict[str, Tensor]]


def test_planted_channels_are_found_by_sum_and_product() -> None:
    """Five channels shifted alike in every variant are the top five of their layer."""
    signature = _signature(_planted(variants=4))
    for name in ("sum", "product", "alignment", "strength"):
        mask_LC = select_top(_score(signature, name), 0.05)
        assert mask_LC[1].nonzero().flatten().tolist() == list(PLANTED), name


def test_order_of_variants_changes_nothing() -> None:
    """The variants are a set: their order does not move a score."""
    deltas = _planted(variants=4)
    one, other = _signature(deltas), _signature(deltas[::-1])
    for name in SCORES:
        torch.testing.assert_close(_score(one, name), _score(other, name))


@pytest.mark.parametrize("factor", [1e-4, 8.0])
def test_scale_of_all_differences_changes_no_ranking(factor: float) -> None:
    """A larger learning rate moves every channel, and no channel's rank."""
    deltas = _planted(variants=3)
    scaled = [{name: value * factor for name, value in delta.items()} for delta in deltas]
    one, other = _signature(deltas), _signature(scaled)
    for name in SCORES:
        torch.testing.assert_close(_score(one, name), _score(other, name), rtol=1e-4, atol=1e-6)


def test_dead_channel_has_no_alignment() -> None:
    """A channel that no variant moved has zero strength and alignment, not NaN."""
    delta_NCP = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    delta_NCP[:, 2] = 0
    alignment_C = alignment_of(_gram(delta_NCP))
    assert alignment_C[2] == 0
    assert torch.isfinite(alignment_C).all()


def test_alignment_has_its_range() -> None:
    """Equal differences align to 1; opposite and orthogonal ones to 0."""
    one_P = torch.tensor([1.0, 0.0])
    equal = torch.stack([one_P, 3 * one_P])
    opposite = torch.stack([one_P, -one_P])
    orthogonal = torch.stack([one_P, one_P.flip(0)])
    delta_NCP = torch.stack([equal, opposite, orthogonal], dim=1)
    torch.testing.assert_close(alignment_of(_gram(delta_NCP)), torch.tensor([1.0, 0.0, 0.0]))


def test_one_variant_ranks_by_strength() -> None:
    """With N = 1 there is no pair to align, so sum and product rank as strength does."""
    signature = _signature(_planted(variants=1))
    expected = _score(signature, "strength").argsort(dim=1)
    for name in ("sum", "product"):
        assert torch.equal(_score(signature, name).argsort(dim=1), expected)


def test_blocks_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streaming in blocks gives the same strength and alignment."""
    deltas = _planted(variants=3)
    whole = measure_differences(deltas, ARCHITECTURE, CHANNELS)
    monkeypatch.setattr("inoculate.signature._BLOCK", 7)
    for one, other in zip(whole, measure_differences(deltas, ARCHITECTURE, CHANNELS), strict=True):
        torch.testing.assert_close(one, other)


def test_heads_are_scored_too() -> None:
    """A shifted attention head is the top one of its layer."""
    generator = torch.Generator().manual_seed(1)
    names = tensor_names(ARCHITECTURE, HEADS)
    rows = {"q": 16, "k": 8, "v": 8, "o": 16}
    noise = [
        {n: torch.randn(rows[n.split(".")[4][0]], 16, generator=generator) for n in names}
        for _ in range(2)
    ]
    for delta in noise:
        delta["model.layers.0.self_attn.k_proj.weight"][4:] += 5
    strength_LC, alignment_LC = measure_differences(noise, ARCHITECTURE, HEADS)
    assert strength_LC.shape == (2, 2)
    assert (strength_LC * alignment_LC)[0].argmax() == 1


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.05, 5), (0.5, 50), (1.0, 100)])
def test_select_top_counts_within_each_layer(share: float, count: int) -> None:
    """Every layer gives the same number of components, its own highest ones."""
    score_LC = torch.arange(200.0).reshape(2, 100)
    mask_LC = select_top(score_LC, share)
    assert mask_LC.sum(dim=1).tolist() == [count, count]
    assert mask_LC[:, 100 - count :].all()


def test_per_importance_divides() -> None:
    """A component that matters for clean answers is less suspicious, in proportion."""
    signature = _signature(_planted(variants=2))
    signature.importance_LC[1, 3] = 50.0
    weighted, plain = _score(signature, "product-per-importance"), _score(signature, "product")
    ratio_LC = plain / weighted
    torch.testing.assert_close(ratio_LC[1, 3] / ratio_LC[1, 20], torch.tensor(50.0))


def test_random_score_follows_its_generator() -> None:
    """The random control is drawn from the generator and from nothing else."""
    signature = _signature(_planted(variants=2))
    assert torch.equal(_score(signature, "random"), _score(signature, "random"))


def test_unknown_score_is_refused_with_the_nearest() -> None:
    """A misspelled score is answered with the name that was meant."""
    with pytest.raises(UnknownNameError, match="Did you mean 'product'"):
        _score(_signature(_planted(variants=2)), "prodct")


def test_products_are_those_of_the_components() -> None:
    """Streaming parts row by row gives the norms and cosines of whole components."""
    for kind in (CHANNELS, HEADS):
        names, generator = tensor_names(ARCHITECTURE, kind), torch.Generator().manual_seed(3)
        shapes = {"gate": (100, 16), "up_p": (100, 16), "down": (16, 100)}
        shapes |= {"q_pr": (16, 16), "k_pr": (8, 16), "v_pr": (8, 16), "o_pr": (16, 16)}
        deltas = [
            {n: torch.randn(shapes[n.split(".")[4][:4]], generator=generator) for n in names}
            for _ in range(3)
        ]
        strength_LC, alignment_LC = measure_differences(deltas, ARCHITECTURE, kind)
        for layer in range(ARCHITECTURE.layers):
            blocks = [read_components(delta, ARCHITECTURE, kind, layer) for delta in deltas]
            delta_NCP = torch.stack(blocks)
            torch.testing.assert_close(strength_LC[layer], delta_NCP.norm(dim=2).mean(dim=0))
            cosines = [
                torch.cosine_similarity(delta_NCP[one], delta_NCP[other], dim=1).clamp(min=0)
                for one, other in ((0, 1), (0, 2), (1, 2))
            ]
            torch.testing.assert_close(alignment_LC[layer], torch.stack(cosines).mean(dim=0))


def test_bf16_differences_give_the_same_mask() -> None:
    """Kept in bf16, differences move strength by under 0.4 %, cosines by 0.01, the mask not."""
    full = _planted(variants=4)
    half = [{name: value.bfloat16() for name, value in delta.items()} for delta in full]
    (strength_LC, alignment_LC), (other_LC, aligned_LC) = (
        measure_differences(deltas, ARCHITECTURE, CHANNELS) for deltas in (full, half)
    )
    assert ((strength_LC - other_LC).abs() / strength_LC).max() < 2**-8
    assert (alignment_LC - aligned_LC).abs().max() < 0.01
    share = len(PLANTED) / strength_LC.shape[1]
    masks = [
        select_top(by_layer_mean(strong) * aligned, share)[1]
        for strong, aligned in ((strength_LC, alignment_LC), (other_LC, aligned_LC))
    ]
    assert torch.equal(*masks)


def _gram(delta_NCP: Tensor) -> Tensor:
    return torch.einsum("ncp,mcp->cnm", delta_NCP, delta_NCP)


def _planted(*, variants: int) -> Deltas:
    """Return noise, with the planted channels of layer 1 shifted the same way throughout."""
    generator = torch.Generator().manual_seed(0)
    shift_CD = torch.randn(len(PLANTED), 16, generator=generator) * 2
    deltas = []
    for _ in range(variants):
        delta = {}
        for name in tensor_names(ARCHITECTURE, CHANNELS):
            shape = (16, 100) if "down" in name else (100, 16)
            delta[name] = torch.randn(shape, generator=generator)
            if ".1." in name:
                rows = delta[name].T if "down" in name else delta[name]
                rows[list(PLANTED)] += shift_CD
        deltas.append(delta)
    return deltas


def _signature(deltas: Deltas) -> Signature:
    strength_LC, alignment_LC = measure_differences(deltas, ARCHITECTURE, CHANNELS)
    return Signature(CHANNELS, strength_LC, alignment_LC, torch.ones_like(strength_LC))


def _score(signature: Signature, name: str) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return score_components(signature, name, alignment_weight=1.0, generator=generator)
