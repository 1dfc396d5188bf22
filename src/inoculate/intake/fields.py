"""Bounded configuration fields as a table of types, and files rebuilt from such a table."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from inoculate.intake.finding import Finding, RefusedError, shorten

Table = Mapping[str, TypeAdapter[Any]]


def whole(low: int, high: int) -> Any:
    """Return the type of a whole number within bounds."""
    return Annotated[int, Field(strict=True, ge=low, le=high)]


def real(low: float, high: float) -> Any:
    """Return the type of a finite number within bounds, written with or without a point."""
    return Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)]


def text(pattern: str) -> Any:
    """Return the type of a text that matches a pattern in full."""
    return Annotated[str, StringConstraints(strict=True, pattern=f"^(?:{pattern})$")]


def many(kind: Any, most: int) -> Any:
    """Return the type of a list with at most `most` items."""
    return Annotated[list[kind], Field(max_length=most)]


TOKEN_ID = whole(0, 2**21)
_ID_OR_IDS = TOKEN_ID | many(TOKEN_ID, 256) | None
_BOOL = bool | None
_SHARE = real(0, 1) | None
_ACTIVATION = Literal["silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu"]
_DTYPE = Literal["float32", "float16", "bfloat16"]
_VERSION = text(r"[\w.+\-]{1,40}")
_IDENTIFIER = text(r"\w{1,80}")
_ATTENTION = Literal["full_attention", "sliding_attention"]
_FACTORS = many(real(0, 1e6), 1024)

_MODEL: dict[str, Any] = {
    "model_type": _IDENTIFIER,
    "architectures": many(_IDENTIFIER, 4) | None,
    "transformers_version": _VERSION | None,
    "dtype": _DTYPE | None,
    "torch_dtype": _DTYPE | None,
    "vocab_size": whole(1, 2**21),
    "hidden_size": whole(1, 65_536),
    "intermediate_size": whole(1, 524_288),
    "num_hidden_layers": whole(1, 512),
    "num_attention_heads": whole(1, 1024),
    "num_key_value_heads": whole(1, 1024) | None,
    "head_dim": whole(1, 2048) | None,
    "max_position_embeddings": whole(1, 2**27),
    "original_max_position_embeddings": whole(1, 2**27) | None,
    "sliding_window": whole(1, 2**27) | None,
    "sliding_window_pattern": whole(1, 512) | None,
    "_sliding_window_pattern": whole(1, 512) | None,
    "max_window_layers": whole(0, 512) | None,
    "layer_types": many(_ATTENTION, 512) | None,
    "query_pre_attn_scalar": real(1e-3, 1e6),
    "pretraining_tp": whole(1, 64) | None,
    "bos_token_id": _ID_OR_IDS,
    "eos_token_id": _ID_OR_IDS,
    "pad_token_id": _ID_OR_IDS,
    "unk_token_id": _ID_OR_IDS,
    "rms_norm_eps": real(1e-12, 1e-2),
    "initializer_range": real(0, 10),
    "rope_theta": real(1, 1e10),
    "rope_local_base_freq": real(1, 1e10),
    "partial_rotary_factor": real(1e-3, 1),
    "attention_dropout": _SHARE,
    "embd_pdrop": _SHARE,
    "resid_pdrop": _SHARE,
    "attn_logit_softcapping": real(1e-3, 1e6) | None,
    "final_logit_softcapping": real(1e-3, 1e6) | None,
    "hidden_act": _ACTIVATION,
    "hidden_activation": _ACTIVATION | None,
    "use_cache": _BOOL,
    "tie_word_embeddings": bool,
    "attention_bias": _BOOL,
    "mlp_bias": _BOOL,
    "use_sliding_window": _BOOL,
    "use_bidirectional_attention": _BOOL,
    "output_attentions": _BOOL,
    "output_hidden_states": _BOOL,
}
_ROPE: dict[str, Any] = {
    "rope_type": Literal["default", "linear", "dynamic", "yarn", "longrope", "su", "llama3"],
    "type": Literal["default", "linear", "dynamic", "yarn", "longrope", "su", "llama3"],
    "rope_theta": real(1, 1e10),
    "factor": real(1e-3, 1e6),
    "attention_factor": real(1e-3, 1e6) | None,
    "partial_rotary_factor": real(1e-3, 1),
    "original_max_position_embeddings": whole(1, 2**27),
    "low_freq_factor": real(1e-3, 1e6),
    "high_freq_factor": real(1e-3, 1e6),
    "beta_fast": real(0, 1e6),
    "beta_slow": real(0, 1e6),
    "mscale": real(0, 1e6),
    "mscale_all_dim": real(0, 1e6),
    "truncate": _BOOL,
    "short_factor": _FACTORS,
    "long_factor": _FACTORS,
    "short_mscale": real(0, 1e6),
    "long_mscale": real(0, 1e6),
}
_GENERATION: dict[str, Any] = {
    "_from_model_config": _BOOL,
    "transformers_version": _VERSION | None,
    "bos_token_id": _ID_OR_IDS,
    "eos_token_id": _ID_OR_IDS,
    "pad_token_id": _ID_OR_IDS,
    "do_sample": _BOOL,
    "temperature": real(0, 100) | None,
    "top_k": whole(0, 2**21) | None,
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _SHARE,
    "repetition_penalty": real(1e-3, 100) | None,
    "length_penalty": real(-100, 100) | None,
    "no_repeat_ngram_size": whole(0, 1000) | None,
    "num_beams": whole(1, 64) | None,
    "max_length": whole(1, 2**27) | None,
    "max_new_tokens": whole(1, 2**27) | None,
    "use_cache": _BOOL,
    "output_attentions": _BOOL,
    "output_hidden_states": _BOOL,
}
MODEL_FIELDS: Table = {name: TypeAdapter(kind) for name, kind in _MODEL.items()}
ROPE_FIELDS: Table = {name: TypeAdapter(kind) for name, kind in _ROPE.items()}
GENERATION_FIELDS: Table = {name: TypeAdapter(kind) for name, kind in _GENERATION.items()}


def field_table(kinds: Mapping[str, Any]) -> Table:
    """Return types as validators."""
    return {name: TypeAdapter(kind) for name, kind in kinds.items()}


def rebuild(
    given: Mapping[str, Any], table: Table, file: str, notes: list[Finding]
) -> dict[str, Any]:
    """Return the entries that the table allows; others are noted and left out.

    Args:
        notes: Receives a finding about what was left out, in place.

    Raises:
        RefusedError: An allowed entry is out of its bounds.
    """
    kept = {key: value for key, value in given.items() if key in table}
    for key, value in kept.items():
        check(table[key], value, key, file)
    if unknown := sorted(set(given) - set(kept)):
        listed = ", ".join(shorten(key, 40) for key in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        notes.append(Finding("dropped-key", file, f"It holds {listed}{more}."))
    return kept


def check(kind: TypeAdapter[Any], value: Any, key: str, file: str) -> None:
    """Demand that a value is of its type.

    Raises:
        RefusedError: It is not.
    """
    try:
        kind.validate_python(value, strict=True)
    except ValidationError as error:
        # Of several alternatives the first is the one that is usual.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        said = f"{key} is {shorten(value)}: {first['msg'][:120].lower()}."
        raise RefusedError("config-value", file, said) from None
