"""Weights as their files will hold them, so that what is measured is what is handed on."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from inoculate.models import weight_files

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@torch.no_grad()
def round_like(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Round weights in place, by name, to the precision that the folder's files hold them in.

    Training keeps fp32. At the small rates of large models a step is a fraction of the distance
    between two bf16 numbers, so rounding undoes part of a repair (docs/log.md).
    """
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in weights.keys() & set(file.keys()):
                kind = _DTYPES[file.get_slice(name).get_dtype()]
                weights[name].copy_(weights[name].to(kind))
