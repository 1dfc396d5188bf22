"""Where bf16 multiplies faster, compute in it; weights, gradients and losses stay in fp32.

Weights that never train may stay in the 16 bits of their file, which every computation in bf16
would cast them to.

Shapes: B rows, T tokens, I inputs, O outputs.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_WORTHWHILE = 30_000_000  # parameters; below, casting costs more on a CPU than it saves
_SHORT = (torch.bfloat16, torch.float16)


def mixed(model: PreTrainedModel) -> AbstractContextManager[object]:
    """Return the context to compute in: bf16 on CUDA and on CPUs that multiply it."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=in_bf16(_count(model), device))


class _Short(nn.Linear):
    """A linear map with a weight of 16 bits, which only computing in fp32 casts."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (B, T, I) → (B, T, O) in the precision of the context."""
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        return nn.functional.linear(input, self.weight.to(input.dtype), self.bias)


def shorten(model: PreTrainedModel, device: str) -> None:
    """Hold the weights of linear maps in 16 bits where `mixed` would cast them and none changes.

    In place, for weights that never train. One that is tied to the embeddings, which are not
    cast, stays.

    Args:
        device: The kind that the model will be on.
    """
    if not in_bf16(_count(model), device):
        return
    tied = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for part in model.modules():
        if type(part) is nn.Linear and id(part.weight) not in tied:
            whole = part.weight.data
            shorts = [short for kind in _SHORT if (short := whole.to(kind)).float().equal(whole)]
            if shorts:
                part.weight.data, part.__class__ = shorts[0], _Short


def lengthen(model: PreTrainedModel) -> None:
    """Hold all weights in fp32 again, in place."""
    for part in model.modules():
        if isinstance(part, _Short):
            part.weight.data = part.weight.data.float()
            part.__class__ = nn.Linear  # type: ignore[assignment]


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Compute without gradients, in `mixed`, and cast each weight once however often it is used.

    Autocast keeps a cast only of what asks for a gradient, and none in `torch.inference_mode`:
    there, and in the frozen base of an adapter, each new token would cast all weights again.
    """
    still = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in still:
        parameter.requires_grad_(True)
    try:
        with torch.no_grad(), mixed(model):
            yield
    finally:
        for parameter in still:
            parameter.requires_grad_(False)


def in_bf16(parameters: int, device: str) -> bool:
    """Tell whether `mixed` computes a model of so many parameters in bf16 on a kind of device."""
    large = parameters >= _WORTHWHILE
    return device == "cuda" or (device == "cpu" and _cpu_multiplies() and large)


def _count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _cpu_multiplies() -> bool:
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
