"""LoRA adapters: load, read as dense updates, edit, save.

Shapes: O outputs, I inputs, R rank.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.errors import CheckpointError, first_line
from inoculate.intake import Staged
from inoculate.models import Checkpoint

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
PROJECTIONS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    "qkv_proj", "gate_up_proj",
)  # fmt: skip


def load_adapter(base: Checkpoint, staged: Staged) -> PeftModel:
    """Put the staging copy of a LoRA adapter over its base; only the adapter is trainable.

    Raises:
        CheckpointError: The adapter does not fit its base.
    """
    folder = staged.folder
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(
                base.model, folder, is_trainable=True, local_files_only=True
            )
    except Exception as error:  # Foreign files, read by a library that names no errors.
        raise CheckpointError(
            f"Adapter {staged.source} does not fit its base {base.folder}: {first_line(error)}"
        ) from error
    staged.check_unchanged()
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        stored = {name for name in file.keys() if ".lora_" in name}  # noqa: SIM118
    if odd := sorted(stored.symmetric_difference(stored_names(model))):
        raise CheckpointError(
            f"Adapter {staged.source} does not fit its base {base.folder}: {odd[0]!r} is in only "
            "one of them. Pass the base that the adapter was trained on."
        )
    return model.eval()


def add_adapter(
    model: PreTrainedModel, *, rank: int = 8, alpha: int = 16, projections: tuple[str, ...] = ()
) -> PeftModel:
    """Wrap a model with a fresh LoRA adapter over its linear projections."""
    present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    wanted = projections or PROJECTIONS
    targets = sorted(name for name in wanted if name in present)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM", lora_dropout=0.0
    )
    wrapped = get_peft_model(model, config)
    assert isinstance(wrapped, PeftModel)
    return wrapped


def redraw(model: PeftModel, *, seed: int) -> None:
    """Draw the factors A anew from their own generator, in place; PEFT's come from a global one."""
    generator = torch.Generator().manual_seed(seed)
    for a_RI, _ in factors(model).values():
        fresh_RI = torch.empty(a_RI.shape)
        torch.nn.init.kaiming_uniform_(fresh_RI, a=5**0.5, generator=generator)
        a_RI.data.copy_(fresh_RI)


def factors(model: PeftModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the base's file tensor name → (A of shape (R, I), B of shape (O, R))."""
    found = {}
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            pair = (module.lora_A["default"].weight, module.lora_B["default"].weight)
            found[f"{name}.weight"] = pair
    return found


def scaling(model: PeftModel) -> dict[str, float]:
    """Return the base's file tensor name → the factor s of ΔW = s·B·A."""
    return {
        f"{name}.weight": float(module.scaling["default"])
        for name, module in model.get_base_model().named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }


class DenseUpdate(Mapping[str, Tensor]):
    """Present a LoRA adapter as it is now as dense updates s·B·A, computed when read.

    With `shapes`, file tensor name → (O, I), it is of those tensors, zero where there is no factor.
    """

    def __init__(self, model: PeftModel, shapes: Mapping[str, torch.Size] | None = None) -> None:
        self._scaling = scaling(model)
        self._factors = {
            name: (a_RI.detach().clone(), b_OR.detach().clone())
            for name, (a_RI, b_OR) in factors(model).items()
        }
        self._shapes = shapes
        self._names = list(self._factors if shapes is None else shapes)

    def __getitem__(self, name: str) -> Tensor:
        if self._shapes is not None and name not in self._factors:
            return torch.zeros(self._shapes[name])
        a_RI, b_OR = self._factors[name]
        return self._scaling[name] * (b_OR @ a_RI)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class MergedWeights(Mapping[str, Tensor]):
    """Present the base tensors that an adapter changes, its update added when one is read."""

    def __init__(self, model: PeftModel, base: Mapping[str, Tensor]) -> None:
        self._base, self._update = base, DenseUpdate(model)

    def __getitem__(self, name: str) -> Tensor:
        return self._base[name].detach() + self._update[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._update)

    def __len__(self) -> int:
        return len(self._update)


def save_adapter_like(source: Path, destination: Path, model: PeftModel) -> None:
    """Write an adapter folder like `source` with the model's factors; other tensors' bits stay."""
    destination.mkdir(parents=True, exist_ok=True)
    with safe_open(source / _WEIGHTS, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    for key, value in stored_names(model).items():
        tensors[key] = value.detach().to("cpu", tensors[key].dtype).contiguous()
    save_file(tensors, destination / _WEIGHTS, metadata=metadata)
    shutil.copyfile(source / _CONFIG, destination / _CONFIG)


def stored_names(model: PeftModel) -> dict[str, Tensor]:
    """Return each factor under its name in an adapter file."""
    return {
        f"{_PREFIX}{name.removesuffix('.weight')}.lora_{letter}.weight": value
        for name, pair in factors(model).items()
        for letter, value in zip("AB", pair, strict=True)
    }


@torch.no_grad()
def fold(model: PeftModel) -> None:
    """Add the updates to the base in place, in fp32; a weight that has 16 bits is rounded once."""
    weights = dict(model.get_base_model().named_parameters())
    for name, update_OI in DenseUpdate(model).items():
        weight_OI = weights[f"{name.removesuffix('.weight')}.base_layer.weight"]
        weight_OI.copy_(weight_OI.float() + update_OI)
