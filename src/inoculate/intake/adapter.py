"""adapter_config.json rebuilt, and an adapter's tensors against its base."""

import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any, Literal

from inoculate.architecture import FAMILY_DEFAULTS
from inoculate.intake.fields import field_table, many, real, rebuild, text, whole
from inoculate.intake.files import Folder
from inoculate.intake.finding import Finding, RefusedError, shorten
from inoculate.intake.header import Tensor, read_header
from inoculate.intake.patterns import may_never_end
from inoculate.intake.shapes import projection_shapes
from inoculate.intake.strict_json import parse_object
from inoculate.intake.weights import PICKLES, check_dtypes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1_000_000
MAX_RANK = 1_024
_TENSOR = re.compile(
    r"base_model\.model\.((?:model\.layers\.(\d{1,4})\.)?([\w.]+))\.lora_([AB])\.weight"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(?:/[A-Za-z0-9][\w.\-]*)?")
_MODULE = text(r"[A-Za-z0-9_.]{1,256}")
_KEY = re.compile(r"\^?[A-Za-z0-9_.]{1,256}")
_BOOL = bool | None
_INDEXES = many(whole(0, 1023), 1024)
_FIELDS = field_table({
    "peft_type": Literal["LORA"],
    "task_type": Literal["CAUSAL_LM"] | None,
    "peft_version": text(r"[\w.+\-@]{1,60}") | None,
    "base_model_name_or_path": text(r"[\w.\-/]{0,200}") | None,
    "revision": text(r"[\w.\-/]{1,100}") | None,
    "r": whole(1, MAX_RANK),
    "lora_alpha": real(1e-6, 1e6),
    "lora_dropout": real(0, 1),
    "bias": Literal["none"],
    "fan_in_fan_out": Literal[False],
    "inference_mode": _BOOL,
    "use_rslora": _BOOL,
    "init_lora_weights": bool | Literal["gaussian"],
    "target_modules": many(_MODULE, 20_000) | Literal["all-linear"],
    "exclude_modules": many(_MODULE, 20_000) | None,
    "auto_mapping": dict[str, str] | None,
    "layers_to_transform": _INDEXES | whole(0, 1023) | None,
    "rank_pattern": dict[str, whole(1, MAX_RANK)],  # type: ignore[misc]
    "alpha_pattern": dict[str, real(1e-6, 1e6)],  # type: ignore[misc]
})  # fmt: skip
# Entries of other methods than plain LoRA; set to anything, they change what the adapter is.
_OTHER_METHODS = {
    "use_dora": "DoRA",
    "layer_replication": "layer replication",
    "modules_to_save": "whole modules to replace the base's",
    "layers_pattern": "a layer pattern",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "LoRA on bare parameters",
}
_MAPPINGS = [
    {
        "base_model_class": usual.architecture,
        "parent_library": "transformers.models.{0}.modeling_{0}".format(family.split("_")[0]),
    }
    for family, usual in FAMILY_DEFAULTS.items()
]
_DEFAULTS = ("megatron_core", "qalora_group_size")


def read_adapter(folder: Folder, notes: list[Finding]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return adapter_config.json rebuilt, and the header of the adapter's weights.

    Raises:
        RefusedError: It is no plain LoRA adapter in safetensors, or a value is out of bounds.
    """
    given = parse_object(folder.read(CONFIG, MAX_CONFIG_BYTES), CONFIG)
    if folder.find(WEIGHTS) is None:
        raise _no_weights(folder)
    header = read_header(folder, WEIGHTS)
    check_dtypes(header, WEIGHTS)
    _check_tensors(header)
    config = _rebuild(given, header, notes)
    _check_ranks(config, header)
    return config, header


def check_base(header: Mapping[str, Tensor], base: Mapping[str, Any]) -> None:
    """Demand that every factor of an adapter fits a projection of its base.

    Args:
        base: The base's config.json, rebuilt.

    Raises:
        RefusedError: A layer, a projection or a width is another base's.
    """
    shapes = projection_shapes(base)
    for name, tensor in header.items():
        layer, path, letter = _parts(name)
        outputs, inputs = shapes.get(path, (0, 0))
        there = path in shapes and layer is not None and layer < base["num_hidden_layers"]
        width = tensor.shape[1] if letter == "A" else tensor.shape[0]
        if not there or width != (inputs if letter == "A" else outputs):
            reason = f"Factor {name!r} of shape {tensor.shape} does not fit its base."
            raise RefusedError("adapter-base", WEIGHTS, reason)


def _rebuild(
    given: Mapping[str, Any], header: Mapping[str, Tensor], notes: list[Finding]
) -> dict[str, Any]:
    for key, method in _OTHER_METHODS.items():
        if given.get(key):
            raise _refusal(f"It sets {key}, so it is {method} and not plain LoRA.")
    for key in set(given) - set(_FIELDS):
        if given[key] is True or (given[key] and isinstance(given[key], dict | list)):
            raise _refusal(f"It sets {shorten(key)} to {shorten(given[key])}.")
    if given.get("peft_type") != "LORA":
        raise _refusal(f"It is of type {shorten(given.get('peft_type'))}; only LORA is supported.")
    chosen = dict(given)
    chosen["target_modules"] = _targets(given, header)
    chosen["exclude_modules"] = None  # What is excluded is no target.
    chosen["base_model_name_or_path"] = _base_name(given.get("base_model_name_or_path"), notes)
    for key in ("rank_pattern", "alpha_pattern"):
        chosen[key] = chosen.get(key) or {}
        _check_keys(chosen[key], key)
    chosen["auto_mapping"] = _mapping(given.get("auto_mapping"))
    quiet = {key: value for key, value in chosen.items() if value or key in _FIELDS}
    plain = {key: value for key, value in quiet.items() if key not in _DEFAULTS}
    return rebuild(plain, _FIELDS, CONFIG, notes)


def _targets(given: Mapping[str, Any], header: Mapping[str, Tensor]) -> Any:
    """Return the target modules.

    A pattern, and what others are excluded from, is replaced by the modules that the file holds.
    """
    patterns = {key: given.get(key) for key in ("target_modules", "exclude_modules")}
    for key, value in patterns.items():
        if isinstance(value, str) and may_never_end(value):
            raise RefusedError("regex-bomb", CONFIG, f"{key} is {shorten(value)}.")
    targets, excluded = patterns.values()
    if not excluded and (not isinstance(targets, str) or targets == "all-linear"):
        return targets
    found = (_TENSOR.fullmatch(name) for name in header)
    return sorted({match[1] for match in found if match})


def _check_keys(patterns: Any, key: str) -> None:
    for pattern in patterns if isinstance(patterns, dict) else ():
        if not _KEY.fullmatch(pattern):
            reason = f"{key} holds {shorten(pattern)}, which is no module name."
            raise RefusedError("regex-bomb", CONFIG, reason)


def _mapping(given: Any) -> Any:
    """Return auto_mapping, which may name the class of a supported family, without switches."""
    named = given
    if isinstance(given, dict):
        named = {key: value for key, value in given.items() if not isinstance(value, bool)}
    if named and named not in _MAPPINGS:
        raise _refusal(f"auto_mapping names code: {shorten(given)}.")
    return named or None


def _base_name(given: Any, notes: list[Finding]) -> str | None:
    if given is None or (isinstance(given, str) and not given):
        return None
    if not isinstance(given, str) or "://" in given:
        raise _refusal(f"base_model_name_or_path is {shorten(given)}, which is no model name.")
    if _HUB_ID.fullmatch(given):
        return given
    last = PureWindowsPath(given).name  # Which parts at either slash.
    notes.append(Finding("base-name", CONFIG, f"It names the base by a path ({shorten(last)})."))
    return None


def _check_tensors(header: Mapping[str, Tensor]) -> None:
    if not header:
        raise RefusedError("adapter", WEIGHTS, "It holds no tensor.")
    for name, tensor in header.items():
        if not _TENSOR.fullmatch(name) or len(tensor.shape) != 2:
            reason = f"Tensor {name!r} is no LoRA factor of a projection."
            raise RefusedError("adapter", WEIGHTS, reason)


def _check_ranks(config: Mapping[str, Any], header: Mapping[str, Tensor]) -> None:
    most = max([config.get("r", 8), *config["rank_pattern"].values()])
    for name, tensor in header.items():
        letter = _parts(name)[2]
        other = name.replace(f".lora_{letter}.", ".lora_B." if letter == "A" else ".lora_A.")
        rank = tensor.shape[0] if letter == "A" else tensor.shape[1]
        if other not in header:
            raise RefusedError("adapter", WEIGHTS, f"Factor {name!r} lacks its partner.")
        partner = header[other].shape[1 if letter == "A" else 0]
        if rank != partner or rank > most:
            reason = f"Factor {name!r} has rank {rank}, its partner {partner}; r is {most}."
            raise RefusedError("adapter", WEIGHTS, reason)


def _parts(name: str) -> tuple[int | None, str, str]:
    """Return the layer, the path below it, and A or B."""
    match = _TENSOR.fullmatch(name)
    assert match is not None
    return None if match[2] is None else int(match[2]), match[3], match[4]


def _no_weights(folder: Folder) -> RefusedError:
    pickle = next((name for name in folder.files if name.endswith(PICKLES)), None)
    if pickle:
        return RefusedError("pickle-only", pickle, f"The folder holds it but no {WEIGHTS}.")
    return RefusedError("missing-file", WEIGHTS, "The folder holds no such file.")


def _refusal(reason: str) -> RefusedError:
    return RefusedError("adapter", CONFIG, reason)
