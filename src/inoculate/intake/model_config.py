"""config.json and generation_config.json, rebuilt from allow-lists with bounds."""

from collections.abc import Mapping
from typing import Any

from inoculate.architecture import FAMILIES, FAMILY_DEFAULTS, head_size_of
from inoculate.intake.fields import (
    GENERATION_FIELDS,
    MODEL_FIELDS,
    ROPE_FIELDS,
    rebuild,
)
from inoculate.intake.files import Folder
from inoculate.intake.finding import Finding, RefusedError, shorten
from inoculate.intake.strict_json import parse_object

CONFIG = "config.json"
GENERATION = "generation_config.json"
MAX_CONFIG_BYTES = 1_000_000
_NEEDED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
)  # fmt: skip
# Families some of whose layers slide where the file does not tell.
_UNSAID_KINDS = {family: ["sliding_attention"] for family in ("gemma2", "gemma3_text")}
_TOKEN_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
# Entries that change what is loaded, or from where, when they are set to anything true.
_FORBIDDEN = {
    "fusion_config": "config-key",
    "distributed_config": "config-key",
    "add_cross_attention": "config-key",
    "pruned_heads": "config-key",
    "tensor_parallel_plan": "config-key",
    "device_mesh": "config-key",
    "transformers_weights": "config-key",
    "adapter_path": "config-key",
    "is_encoder_decoder": "model-type",
    "vision_config": "model-type",
    "audio_config": "model-type",
    "text_config": "model-type",
}
_QUANTIZATION = ("quantization_config", "compression_config", "quantization")
_CODE = (
    "auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation",
    "_attn_implementation_internal", "_experts_implementation", "experts_implementation",
)  # fmt: skip


def read_config(folder: Folder, notes: list[Finding]) -> dict[str, Any]:
    """Return config.json rebuilt; what it leaves out is noted, in place.

    Raises:
        RefusedError: No supported decoder, a quantized one, or a value out of bounds.
    """
    given = parse_object(folder.read(CONFIG, MAX_CONFIG_BYTES), CONFIG)
    _check_kind(given)
    rope = {key: given[key] for key in ("rope_parameters", "rope_scaling") if key in given}
    notes.extend(code_findings(given, CONFIG))
    plain = {key: value for key, value in given.items() if key not in (*rope, *_CODE)}
    kept = rebuild(_without_empty(plain), MODEL_FIELDS, CONFIG, notes)
    kept |= {key: _rebuild_rope(value, key, notes) for key, value in rope.items()}
    for key in _NEEDED:
        if key not in kept:
            raise RefusedError("config-value", CONFIG, f"It lacks {key}.")
    _check_together(kept)
    return {key: kept[key] for key in given if key in kept}


def read_generation(
    folder: Folder, config: Mapping[str, Any], notes: list[Finding]
) -> dict[str, Any] | None:
    """Return generation_config.json rebuilt, or None where there is none.

    Raises:
        RefusedError: A value is out of bounds.
    """
    if folder.find(GENERATION) is None:
        return None
    given = parse_object(folder.read(GENERATION, MAX_CONFIG_BYTES), GENERATION)
    notes.extend(code_findings(given, GENERATION))
    plain = {key: value for key, value in given.items() if key not in _CODE}
    kept = rebuild(_without_empty(plain), GENERATION_FIELDS, GENERATION, notes)
    _check_ids(kept, int(config["vocab_size"]), GENERATION)
    return kept


def code_findings(given: Mapping[str, Any], file: str) -> list[Finding]:
    """Return a warning for each entry that names code to run."""
    return [
        Finding("ignored-key", file, f"It holds {key}: {shorten(given[key])}.")
        for key in _CODE
        if given.get(key)
    ]


def _check_kind(given: Mapping[str, Any]) -> None:
    model_type = given.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise RefusedError(
            "model-type",
            CONFIG,
            f"Model type {shorten(model_type)} is not supported; supported: {', '.join(FAMILIES)}.",
        )
    for key in _QUANTIZATION:
        if value := given.get(key):
            how = value.get("quant_method") if isinstance(value, dict) else None
            reason = f"{key} says that the weights are quantized ({shorten(how)})."
            raise RefusedError("quantized", CONFIG, reason)
    for key, rule in _FORBIDDEN.items():
        if given.get(key):
            raise RefusedError(rule, CONFIG, f"It sets {key} to {shorten(given[key])}.")
    expected = FAMILY_DEFAULTS[model_type].architecture
    if given.get("architectures") not in (None, [], [expected]):
        said = f"architectures is {shorten(given['architectures'])}, expected [{expected!r}]."
        raise RefusedError("model-type", CONFIG, said)


def _without_empty(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries without known ones that say nothing."""
    silent = (*_FORBIDDEN, *_QUANTIZATION)
    return {key: value for key, value in given.items() if value or key not in silent}


def _rebuild_rope(value: Any, key: str, notes: list[Finding]) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RefusedError("config-value", CONFIG, f"{key} is {shorten(value)}, no object.")
    kinds = ("full_attention", "sliding_attention")
    if any(kind in value for kind in kinds):
        return {kind: _rebuild_rope(value.get(kind), key, notes) for kind in kinds}
    return rebuild(value, ROPE_FIELDS, CONFIG, notes)


def _check_together(config: Mapping[str, Any]) -> None:
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    if heads % (config.get("num_key_value_heads") or 1):
        raise RefusedError("config-value", CONFIG, "num_key_value_heads does not divide the heads.")
    if not config.get("head_dim") and hidden % heads:
        raise RefusedError(
            "config-value", CONFIG, "num_attention_heads does not divide hidden_size."
        )
    layers = config["num_hidden_layers"]
    if config.get("layer_types") and len(config["layer_types"]) != layers:
        raise RefusedError("config-value", CONFIG, f"layer_types does not name {layers} layers.")
    kinds = config.get("layer_types") or _UNSAID_KINDS.get(config["model_type"], [])
    if "sliding_attention" in kinds and config.get("sliding_window", True) is None:
        reason = "It has layers of sliding_attention, and sliding_window is not set."
        raise RefusedError("config-value", CONFIG, reason)
    _check_factors(config)
    _check_ids(config, config["vocab_size"], CONFIG)


def _check_factors(config: Mapping[str, Any]) -> None:
    """Demand one factor of a stretched rotary embedding for each of its frequencies."""
    size = head_size_of(config)
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key) or {}
        part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
        for name in ("long_factor", "short_factor"):
            factors = rope.get(name)
            if isinstance(factors, list) and len(factors) != int(size * part) // 2:
                reason = f"{name} of {key} holds {len(factors)} numbers for heads of size {size}."
                raise RefusedError("config-value", CONFIG, reason)


def _check_ids(config: Mapping[str, Any], rows: int, file: str) -> None:
    for key in _TOKEN_KEYS:
        value = config.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if ids and max(ids) >= rows:
            reason = f"{key} is {shorten(value)}, the embedding has {rows} rows."
            raise RefusedError("token-ids", file, reason)
