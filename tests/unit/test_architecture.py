"""Where each family keeps its projections."""

from dataclasses import fields
from pathlib import Path

import pytest
from safetensors.torch import load_file

from conftest import PLAIN, SHARDED, TIED, FamilyFolder
from inoculate.architecture import (
    FAMILIES,
    Architecture,
    Family,
    parse_architecture,
    read_architecture,
)
from inoculate.errors import ArchitectureError, CheckpointError
from inoculate.models import weight_files


@pytest.mark.parametrize("form", [PLAIN, TIED, SHARDED])
def test_projection_names_exist_in_saved_files(
    family_folder: FamilyFolder, family: str, form: str
) -> None:
    """Every projection of every layer is in the files, with the width that the shapes say."""
    folder = family_folder(family, form)
    architecture = read_architecture(folder)
    tensors = {k: v for path in weight_files(folder) for k, v in load_file(path).items()}
    for layer in range(architecture.layers):
        ends: dict[str, int] = {}
        for name, (rows, columns) in _shapes(architecture).items():
            projection = getattr(architecture.family, name)
            tensor = architecture.tensor_name(layer, projection)
            assert tensors[tensor].shape[1] == columns
            ends[tensor] = max(ends.get(tensor, 0), architecture.first_row(projection) + rows)
        assert {tensor: tensors[tensor].shape[0] for tensor in ends} == ends


def test_forms_differ_as_intended(family_folder: FamilyFolder) -> None:
    """The test checkpoints are really tied and really sharded."""
    assert len(weight_files(family_folder("llama", SHARDED))) > 2
    (path,) = weight_files(family_folder("llama", TIED))
    assert "lm_head.weight" not in load_file(path)
    (path,) = weight_files(family_folder("llama", PLAIN))
    assert "lm_head.weight" in load_file(path)


def test_shapes_are_read_from_config(family_folder: FamilyFolder, family: str) -> None:
    """All shapes come from config.json, and heads share keys as configured."""
    architecture = read_architecture(family_folder(family))
    assert architecture == Architecture(family, 2, 32, 48, 4, 2, 8)
    assert architecture.queries_per_key == 2


def test_missing_key_heads_and_head_size_follow_from_heads() -> None:
    """A config without grouped keys and without head size means one key per query head."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    assert parse_architecture(config) == Architecture("llama", 2, 32, 48, 4, 4, 8)


def test_what_a_family_does_not_say_is_its_own_default() -> None:
    """A silent Mistral has eight key heads, a silent Qwen3 heads of 128; null is one per head."""
    silent = {
        "hidden_size": 2048,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
    }
    shapes = {
        family: parse_architecture({"model_type": family, **silent})
        for family in ("mistral", "qwen3", "gemma2")
    }
    assert (shapes["mistral"].key_heads, shapes["mistral"].head_size) == (8, 64)
    assert (shapes["qwen3"].key_heads, shapes["qwen3"].head_size) == (32, 128)
    assert (shapes["gemma2"].key_heads, shapes["gemma2"].head_size) == (4, 256)
    null = {"model_type": "mistral", **silent, "num_key_value_heads": None}
    assert parse_architecture(null).key_heads == 32


def test_unknown_type_is_refused_with_the_list() -> None:
    """A model type that no family describes is named, and so are the supported ones."""
    with pytest.raises(ArchitectureError) as caught:
        parse_architecture({"model_type": "mamba"})
    assert all(name in str(caught.value) for name in ("mamba", *FAMILIES))


def test_missing_shape_is_an_architecture_error() -> None:
    """A config without a needed shape names that shape."""
    with pytest.raises(ArchitectureError, match="num_attention_heads"):
        parse_architecture({"model_type": "llama"})


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_unreadable_config_is_a_checkpoint_error(tmp_path: Path, text: str | None) -> None:
    """A missing, broken or non-object config.json is reported with its path."""
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_architecture(tmp_path)


def _shapes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    hidden, width = architecture.hidden, architecture.mlp_width
    query, key = architecture.query_width, architecture.key_width
    shapes = {
        "gate": (width, hidden),
        "up": (width, hidden),
        "down": (hidden, width),
        "q": (query, hidden),
        "k": (key, hidden),
        "v": (key, hidden),
        "o": (hidden, query),
    }
    assert set(shapes) == {field.name for field in fields(Family)}
    return shapes
