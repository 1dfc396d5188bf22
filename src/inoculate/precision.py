"""Where bf16 multiplies faster, compute in it; weights, gradients and losses stay in fp32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from transformers import PreTrainedModel

_WORTHWHILE = 30_000_000  # parameters; below, casting costs more on a CPU than it saves


def mixed(model: PreTrainedModel) -> AbstractContextManager[object]:
    """Return the context to compute in: bf16 on CUDA and on CPUs that multiply it."""
    parameter = next(model.parameters())
    device = parameter.device.type
    fast = device == "cuda" or (device == "cpu" and _cpu_multiplies() and _large(model))
    return torch.autocast(device, torch.bfloat16, enabled=fast)


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


def _large(model: PreTrainedModel) -> bool:
    return sum(parameter.numel() for parameter in model.parameters()) >= _WORTHWHILE


def _cpu_multiplies() -> bool:
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
