"""Where each model family keeps its gate, up, down and q, k, v, o weights.

A family is a value in `FAMILIES`; a projection names its tensor and, where a file fuses
several projections into one tensor, which row block of it belongs to the projection.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inoculate.errors import ArchitectureError, CheckpointError


@dataclass(frozen=True)
class Projection:
    """Name a weight below `model.layers.{i}.` and its rows within a fused tensor.

    `block` lists the widths, as attribute names of `Architecture`, that come before the
    projection's own rows.
    """

    tensor: str
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Map the seven projections of a decoder block to file tensor names."""

    gate: Projection = Projection("mlp.gate_proj.weight")
    up: Projection = Projection("mlp.up_proj.weight")
    down: Projection = Projection("mlp.down_proj.weight")
    q: Projection = Projection("self_attn.q_proj.weight")
    k: Projection = Projection("self_attn.k_proj.weight")
    v: Projection = Projection("self_attn.v_proj.weight")
    o: Projection = Projection("self_attn.o_proj.weight")


_SPLIT = Family()
_FUSED = Family(
    gate=Projection("mlp.gate_up_proj.weight"),
    up=Projection("mlp.gate_up_proj.weight", ("mlp_width",)),
    q=Projection("self_attn.qkv_proj.weight"),
    k=Projection("self_attn.qkv_proj.weight", ("query_width",)),
    v=Projection("self_attn.qkv_proj.weight", ("query_width", "key_width")),
)
FAMILIES: dict[str, Family] = {
    "llama": _SPLIT,
    "mistral": _SPLIT,
    "qwen2": _SPLIT,
    "qwen3": _SPLIT,
    "gemma2": _SPLIT,
    "gemma3_text": _SPLIT,
    "phi3": _FUSED,
}


@dataclass(frozen=True)
class Defaults:
    """Hold what a family's configuration means where its file is silent."""

    architecture: str
    tied: bool = False
    key_heads: int | None = None
    head_size: int | None = None


FAMILY_DEFAULTS: dict[str, Defaults] = {
    "llama": Defaults("LlamaForCausalLM"),
    "mistral": Defaults("MistralForCausalLM", key_heads=8),
    "qwen2": Defaults("Qwen2ForCausalLM", key_heads=32),
    "qwen3": Defaults("Qwen3ForCausalLM", key_heads=32, head_size=128),
    "gemma2": Defaults("Gemma2ForCausalLM", tied=True, key_heads=4, head_size=256),
    "gemma3_text": Defaults("Gemma3ForCausalLM", tied=True, key_heads=4, head_size=256),
    "phi3": Defaults("Phi3ForCausalLM"),
}
# Special tokens that a family's published tokenizers hold past the embedding rows: its text
# models share the tokenizer of models that see images.
SPARE_TOKENS: dict[str, tuple[str, ...]] = {"gemma3_text": ("<image_soft_token>",)}


@dataclass(frozen=True)
class Architecture:
    """Describe the shapes of one decoder: layers, widths, heads and its family."""

    model_type: str
    layers: int
    hidden: int
    mlp_width: int
    heads: int
    key_heads: int
    head_size: int

    @property
    def family(self) -> Family:
        """Return the family's row of the table."""
        return FAMILIES[self.model_type]

    @property
    def query_width(self) -> int:
        """Return the rows of the query projection."""
        return self.heads * self.head_size

    @property
    def key_width(self) -> int:
        """Return the rows of the key projection, and of the value projection."""
        return self.key_heads * self.head_size

    @property
    def queries_per_key(self) -> int:
        """Return how many query heads share one key–value head."""
        return self.heads // self.key_heads

    def tensor_name(self, layer: int, projection: Projection) -> str:
        """Return the file tensor's name for a projection of one layer."""
        return f"model.layers.{layer}.{projection.tensor}"

    def first_row(self, projection: Projection) -> int:
        """Return where the projection's rows start within its file tensor."""
        return sum(int(getattr(self, width)) for width in projection.before)


def read_architecture(folder: Path) -> Architecture:
    """Read the shapes from a checkpoint folder's config.json.

    Raises:
        CheckpointError: config.json is missing or not a JSON object.
        ArchitectureError: The model type is not in `FAMILIES`, or a shape is missing.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} cannot be read ({error}). "
            "Pass a Hugging Face checkpoint folder."
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} is not a JSON object.")
    return parse_architecture(config)


def parse_architecture(config: dict[str, Any]) -> Architecture:
    """Build an `Architecture` from the fields of a config.json.

    Raises:
        ArchitectureError: The model type is not in `FAMILIES`, or a shape is missing.
    """
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ArchitectureError(
            f"Model type {model_type!r} is not supported. Supported: {', '.join(FAMILIES)}."
        )
    try:
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return Architecture(
            model_type=str(model_type),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            mlp_width=int(config["intermediate_size"]),
            heads=heads,
            key_heads=key_heads_of(config),
            head_size=head_size_of(config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(f"config.json lacks a usable {error}.") from error


def key_heads_of(config: Mapping[str, Any]) -> int:
    """Return how many heads keys have, the family's own number where the file does not tell."""
    unsaid = FAMILY_DEFAULTS[config["model_type"]].key_heads
    told = config.get("num_key_value_heads", unsaid)
    return int(told or config["num_attention_heads"])


def head_size_of(config: Mapping[str, Any]) -> int:
    """Return how wide a head is, the family's own width where the file does not tell."""
    told = config.get("head_dim", FAMILY_DEFAULTS[config["model_type"]].head_size)
    return int(told or config["hidden_size"] // config["num_attention_heads"])
