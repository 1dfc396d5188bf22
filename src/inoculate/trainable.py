"""Which parameters a fine-tune may touch, and how they are kept and put back."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.errors import UnknownNameError

_EMBEDDINGS = ("embed_tokens", "lm_head")

TOUCHES: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "blocks": lambda name: ".layers." in name,
    "mlp": lambda name: ".mlp." in name,
    "attention": lambda name: ".self_attn." in name,
    "not-embeddings": lambda name: not any(part in name for part in _EMBEDDINGS),
}


def set_trainable(model: PreTrainedModel, touch: str, *, adapter: bool = False) -> list[str]:
    """Let gradients reach only the named part of the model, in place.

    Args:
        touch: A name of `TOUCHES`.
        adapter: Whether only LoRA factors may train.

    Returns:
        The names of the trainable parameters.

    Raises:
        UnknownNameError: The touch is not in the table.
    """
    chosen = trainable_names(model, touch, adapter=adapter)
    wanted = set(chosen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
    return chosen


def trainable_names(model: PreTrainedModel, touch: str, *, adapter: bool = False) -> list[str]:
    """Return the names of what `set_trainable` would let train."""
    if touch not in TOUCHES:
        raise UnknownNameError("part of the model", touch, TOUCHES)
    names = (name for name, _ in model.named_parameters() if TOUCHES[touch](name))
    return [name for name in names if not adapter or "lora_" in name]


def snapshot(model: PreTrainedModel) -> dict[str, Tensor]:
    """Copy the trainable parameters, off a GPU, where there is more room."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def restore(model: PreTrainedModel, saved: Mapping[str, Tensor]) -> None:
    """Write copied parameters back, in place."""
    parameters = dict(model.named_parameters())
    for name, value in saved.items():
        parameters[name].copy_(value)
