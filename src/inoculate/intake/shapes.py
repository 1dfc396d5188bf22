"""The tensors that a configuration calls for, and whether the files hold just these."""

from collections.abc import Iterator, Mapping
from typing import Any

from inoculate.architecture import FAMILY_DEFAULTS, head_size_of, key_heads_of
from inoculate.intake.finding import RefusedError
from inoculate.intake.header import Tensor

Shape = tuple[int, ...]
_GEMMA = ("gemma2", "gemma3_text")
_HEAD_NORMS = ("qwen3", "gemma3_text")
_ATTENTION_BIAS = ("llama", "qwen3", "gemma2", "gemma3_text")
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def check_tensors(config: Mapping[str, Any], found: Mapping[str, tuple[str, Tensor]]) -> None:
    """Demand exactly the tensors that a configuration calls for, or that it makes needless.

    Args:
        found: Tensor name → (file, tensor).

    Raises:
        RefusedError: One is missing, is left over, or has another shape.
    """
    expected = dict(expected_shapes(config))
    needless = {name: shape for name, shape in _needless_shapes(config) if name in found}
    if missing := sorted(expected.keys() - found.keys()):
        reason = f"missing keys, the first of {len(missing)} is {missing[0]!r}."
        raise RefusedError("tensors", next(iter(found.values()), ("", None))[0], reason)
    if surplus := sorted(found.keys() - expected.keys() - needless.keys()):
        reason = f"unexpected keys, the first of {len(surplus)} is {surplus[0]!r}."
        raise RefusedError("tensors", found[surplus[0]][0], reason)
    for name, shape in {**expected, **needless}.items():
        file, tensor = found[name]
        if tensor.shape != shape:
            reason = f"Tensor {name!r} has shape {tensor.shape}, config.json calls for {shape}."
            raise RefusedError("tensors", file, reason)


def expected_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Yield the name and shape of every tensor of a checkpoint."""
    rows, hidden = config["vocab_size"], config["hidden_size"]
    yield EMBEDDINGS, (rows, hidden)
    yield "model.norm.weight", (hidden,)
    if not ties(config):
        yield HEAD, (rows, hidden)
    layer = [*_projections(config), *_norms(config)]
    for index in range(config["num_hidden_layers"]):
        for name, shape in layer:
            yield f"model.layers.{index}.{name}", shape


def ties(config: Mapping[str, Any]) -> bool:
    """Tell whether the head is the table of embeddings."""
    return bool(config.get("tie_word_embeddings", FAMILY_DEFAULTS[config["model_type"]].tied))


def _needless_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Yield what published checkpoints store beside: Qwen3's tied head, Llama 2's frequencies."""
    if ties(config):
        yield HEAD, (config["vocab_size"], config["hidden_size"])
    for index in range(config["num_hidden_layers"]):
        name = f"model.layers.{index}.self_attn.rotary_emb.inv_freq"
        yield name, (head_size_of(config) // 2,)


def projection_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return each projection's path below a layer → (outputs, inputs)."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    query, key = _widths(config)
    if config["model_type"] == "phi3":
        return {
            "self_attn.qkv_proj": (query + 2 * key, hidden),
            "self_attn.o_proj": (hidden, query),
            "mlp.gate_up_proj": (2 * width, hidden),
            "mlp.down_proj": (hidden, width),
        }
    return {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (width, hidden),
        "mlp.up_proj": (width, hidden),
        "mlp.down_proj": (hidden, width),
    }


def _widths(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the rows of the query and of the key projection."""
    size = head_size_of(config)
    return config["num_attention_heads"] * size, key_heads_of(config) * size


def _projections(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    for name, shape in projection_shapes(config).items():
        yield f"{name}.weight", shape
        if _has_bias(config, name):
            yield f"{name}.bias", shape[:1]


def _has_bias(config: Mapping[str, Any], name: str) -> bool:
    family = config["model_type"]
    if name.startswith("mlp."):
        return family == "llama" and bool(config.get("mlp_bias"))
    if family == "qwen2":
        return not name.endswith("o_proj")
    return family in _ATTENTION_BIAS and bool(config.get("attention_bias"))


def _norms(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    hidden, family = (config["hidden_size"],), config["model_type"]
    yield "input_layernorm.weight", hidden
    yield "post_attention_layernorm.weight", hidden
    if family in _GEMMA:
        yield "pre_feedforward_layernorm.weight", hidden
        yield "post_feedforward_layernorm.weight", hidden
    if family in _HEAD_NORMS:
        yield "self_attn.q_norm.weight", (head_size_of(config),)
        yield "self_attn.k_norm.weight", (head_size_of(config),)
