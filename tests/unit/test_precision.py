"""Weights that stand still are cast to bf16 once, and are left as they were found."""

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from conftest import build_model
from inoculate import precision
from inoculate.precision import inference, lengthen, mixed, shorten

_IDS = torch.arange(10, 20)[None]


class _Casts(TorchDispatchMode):
    """Count the casts of tensors of one shape."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and args[0].shape == self.shape
        return func(*args, **(kwargs or {}))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """Return a small model that computes in bf16, half of its weights frozen."""
    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: True)
    monkeypatch.setattr(precision, "_WORTHWHILE", 0)
    built = build_model("llama").eval()
    built.model.layers[0].requires_grad_(False)
    return built


def test_weights_are_cast_once_however_often_they_are_used(model: PreTrainedModel) -> None:
    """Three calls cast each down-projection once; by themselves, the frozen one each time."""
    shape = model.model.layers[0].mlp.down_proj.weight.shape
    with _Casts(shape) as once, inference(model):
        for _ in range(3):
            model(input_ids=_IDS)
    with _Casts(shape) as anew, torch.no_grad(), mixed(model):
        for _ in range(3):
            model(input_ids=_IDS)
    assert (once.count, anew.count) == (2, 4)


def test_what_is_computed_and_what_asks_for_a_gradient_stay(model: PreTrainedModel) -> None:
    """Logits are those of `mixed` to the bit; frozen parameters are frozen again at the end."""
    asked = [parameter.requires_grad for parameter in model.parameters()]
    with torch.inference_mode(), mixed(model):
        expected = model(input_ids=_IDS).logits
    with pytest.raises(RuntimeError, match="stop"), inference(model):
        found = model(input_ids=_IDS).logits
        assert not found.requires_grad
        assert torch.equal(found, expected)
        raise RuntimeError("stop")
    assert [parameter.requires_grad for parameter in model.parameters()] == asked


def test_what_never_trains_stays_short(model: PreTrainedModel) -> None:
    """Linear maps keep weights of 16 bits as they are; no logit changes in either precision."""
    model.to(torch.bfloat16).float().requires_grad_(False)
    short = copy.deepcopy(model)
    shorten(short, "cpu")
    kept = {name: value.dtype for name, value in short.named_parameters()}
    assert {kept[name] for name in kept if "_proj" in name or "lm_head" in name} == {torch.bfloat16}
    assert {kept[name] for name in kept if "norm" in name or "embed" in name} == {torch.float32}
    for context in (mixed(model), torch.autocast("cpu", enabled=False)):
        with torch.inference_mode(), context:
            one, other = (each(input_ids=_IDS).logits for each in (model, short))
        assert torch.equal(one, other)
    lengthen(short)
    assert all(map(torch.equal, model.parameters(), short.parameters()))
    assert {value.dtype for value in short.parameters()} == {torch.float32}
    assert not any(isinstance(part, precision._Short) for part in short.modules())


def test_what_would_change_stays_long(model: PreTrainedModel) -> None:
    """Weights that 16 bits do not hold stay, and a head that is tied to the embeddings does."""
    shorten(model, "cpu")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    tied = build_model("llama", tied=True).half().float()
    shorten(tied, "cpu")
    assert tied.lm_head.weight.dtype == torch.float32
    assert tied.model.layers[0].mlp.up_proj.weight.dtype == torch.float16


def test_computing_in_fp32_keeps_all_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cast would be an extra step, none is saved."""
    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: False)
    model = build_model("llama").to(torch.bfloat16).float()
    shorten(model, "cpu")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
