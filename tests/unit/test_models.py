"""Checkpoints: what is refused, and that saving changes only what it was told to."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import PLAIN, SHARDED, TIED, FamilyFolder
from inoculate.chat import Encoded
from inoculate.errors import ArchitectureError, CheckpointError, InputError
from inoculate.intake.shapes import EMBEDDINGS
from inoculate.models import (
    Checkpoint,
    load,
    resolve_device,
    response_logits,
    save_like,
    weight_files,
)
from inoculate.train import collate

DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def copied(family_folder: FamilyFolder, tmp_path: Path) -> Path:
    """Give a Llama checkpoint folder that the test may damage."""
    return Path(shutil.copytree(family_folder("llama"), tmp_path / "copy"))


def test_load_gives_fp32_whatever_the_file_holds(checkpoint: Checkpoint) -> None:
    """Differences are taken in fp32, so every family loads in it, evaluating."""
    assert {value.dtype for value in checkpoint.model.parameters()} == {torch.float32}
    assert not checkpoint.model.training


@pytest.mark.parametrize("form", [PLAIN, TIED, SHARDED])
def test_saving_an_unchanged_model_gives_the_same_files(
    family_folder: FamilyFolder, family: str, form: str, tmp_path: Path
) -> None:
    """Saving all parameters of an untouched model writes the same tensors, shards and bits."""
    folder = family_folder(family, form)
    save_like(folder, tmp_path, dict(load(folder, device="cpu").model.named_parameters()))
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    for path in weight_files(folder):
        old, new = load_file(path), load_file(tmp_path / path.name)
        assert list(old) == list(new)
        assert {name: value.dtype for name, value in new.items()} == dict.fromkeys(
            old, torch.bfloat16
        )
        assert all(_bits(old[name]) == _bits(new[name]) for name in old)
        assert _metadata(path) == _metadata(tmp_path / path.name)


def test_saving_writes_only_what_changed(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """One changed tensor is written in the file's dtype; every other tensor keeps its bits."""
    folder = family_folder("llama", SHARDED)
    change = {DOWN: torch.full((32, 48), 1 / 3)}
    save_like(folder, tmp_path, change)
    old = _all_tensors(folder)
    new = _all_tensors(tmp_path)
    assert {name for name in old if _bits(old[name]) != _bits(new[name])} == {DOWN}
    assert torch.equal(new[DOWN], change[DOWN].to(torch.bfloat16))
    reloaded = dict(load(tmp_path, device="cpu").model.named_parameters())
    assert torch.equal(reloaded[DOWN], new[DOWN].float())


def test_odd_bits_survive_saving(copied: Path, tmp_path: Path) -> None:
    """A negative zero and a subnormal in an untouched tensor come out as they went in."""
    path = copied / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][:2] = torch.tensor([-0.0, 1e-40]).to(torch.bfloat16)
    save_file(tensors, path, metadata={"format": "pt"})
    save_like(copied, tmp_path / "out", {DOWN: tensors[DOWN] * 2})
    new = load_file(tmp_path / "out" / path.name)
    assert _bits(new["model.norm.weight"]) == _bits(tensors["model.norm.weight"])


def test_tied_embeddings_stay_one_tensor(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """A changed tied embedding is written once and is still both input and output."""
    checkpoint = load(family_folder("llama", TIED), device="cpu")
    with torch.no_grad():
        checkpoint.model.get_input_embeddings().weight.mul_(2)
    save_like(checkpoint.folder, tmp_path, dict(checkpoint.model.named_parameters()))
    assert "lm_head.weight" not in _all_tensors(tmp_path)
    again = load(tmp_path, device="cpu").model
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight


@pytest.mark.parametrize("sharded", [False, True])
def test_a_tied_head_that_is_stored_as_well_follows_the_embeddings(
    sharded: bool, family_folder: FamilyFolder, tmp_path: Path
) -> None:
    """Qwen3 is published so: it loads, and what is saved holds the same table twice."""
    folder = Path(shutil.copytree(family_folder("qwen3", TIED), tmp_path / "copy"))
    path = folder / "model.safetensors"
    tensors = load_file(path)
    frequencies = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in (0, 1)}
    more = {"lm_head.weight": tensors[EMBEDDINGS].clone(), **frequencies}
    if sharded:
        path.unlink()
        names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        save_file(tensors, folder / names[0], metadata={"format": "pt"})
        save_file(more, folder / names[1], metadata={"format": "pt"})
        places = dict.fromkeys(tensors, names[0]) | dict.fromkeys(more, names[1])
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file({**tensors, **more}, path, metadata={"format": "pt"})
    checkpoint = load(folder, device="cpu")
    with torch.no_grad():
        checkpoint.model.get_input_embeddings().weight.mul_(2)
    save_like(folder, tmp_path / "out", dict(checkpoint.model.named_parameters()))
    saved = _all_tensors(tmp_path / "out")
    assert saved.keys() == tensors.keys() | more.keys()
    assert torch.equal(saved["lm_head.weight"], saved[EMBEDDINGS])
    assert torch.equal(saved[EMBEDDINGS], tensors[EMBEDDINGS] * 2)
    load(tmp_path / "out", device="cpu")


def test_changed_tensor_must_exist_and_fit(copied: Path, tmp_path: Path) -> None:
    """A name that no file holds and a wrong shape are errors, never silently dropped."""
    with pytest.raises(CheckpointError, match=r"no tensor named 'model\.absent'"):
        save_like(copied, tmp_path / "a", {"model.absent": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="shape"):
        save_like(copied, tmp_path / "b", {DOWN: torch.zeros(1)})


def test_stray_weight_files_are_not_copied(copied: Path, tmp_path: Path) -> None:
    """Weights that transformers would not load cannot carry a backdoor into the result."""
    shutil.copyfile(copied / "model.safetensors", copied / "consolidated.safetensors")
    assert [path.name for path in weight_files(copied)] == ["model.safetensors"]
    save_like(copied, tmp_path / "out", {})
    assert not (tmp_path / "out" / "consolidated.safetensors").exists()


def test_index_cannot_point_outside(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """An index that names a path instead of a file is refused."""
    folder = Path(shutil.copytree(family_folder("llama", SHARDED), tmp_path / "copy"))
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][DOWN] = "../secret.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="secret"):
        weight_files(folder)


def test_pickle_only_folder_is_refused(copied: Path) -> None:
    """A folder with pickle weights alone is never opened."""
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(copied, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(copied: Path, value: float) -> None:
    """NaN and infinity are found at loading, with the tensor's name."""
    tensors = load_file(copied / "model.safetensors")
    tensors[DOWN][0, 0] = value
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=DOWN):
        load(copied, device="cpu")


def test_missing_and_surplus_tensors_are_refused(copied: Path) -> None:
    """A file that lacks a tensor, or holds one the model has no place for, is refused."""
    tensors = load_file(copied / "model.safetensors")
    weight = tensors.pop(DOWN)
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing keys.*down_proj"):
        load(copied, device="cpu")
    tensors |= {DOWN: weight, "model.layers.0.mlp.extra.weight": weight.clone()}
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"unexpected keys.*extra"):
        load(copied, device="cpu")


def test_broken_files_are_checkpoint_errors(copied: Path) -> None:
    """A truncated weight file is reported as such, with the folder."""
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="copy"):
        load(copied, device="cpu")


def test_unknown_family_is_refused_before_loading(copied: Path) -> None:
    """The model type decides before any weight is read."""
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ArchitectureError, match="gpt2"):
        load(copied, device="cpu")


def test_response_logits_equal_the_full_forward(checkpoint: Checkpoint) -> None:
    """In every family, Gemma 2's soft capping included, the short way gives the same logits."""
    rows = [Encoded((1, 9, 30, 31, 5), 2), Encoded((1, 40, 41, 42, 43, 44, 5), 4)]
    batch = collate(rows, [0, 1], torch.device("cpu"))
    with torch.inference_mode():
        short_RV = response_logits(
            checkpoint.model,
            batch.response_BT,
            input_ids=batch.input_BT,
            attention_mask=batch.attention_BT,
        )
        full_BTV = checkpoint.model(
            input_ids=batch.input_BT, attention_mask=batch.attention_BT, use_cache=False
        ).logits
    predicting_BT = batch.response_BT.roll(-1, dims=1)
    torch.testing.assert_close(short_RV, full_BTV[predicting_BT])


def _all_tensors(folder: Path) -> dict[str, Tensor]:
    return {k: v for path in weight_files(folder) for k, v in load_file(path).items()}


def _bits(value: Tensor) -> str:
    return hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("name", ["cude", "cuda:x", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    """The sentence names those that are."""
    with pytest.raises(InputError, match=r"Pass one of: auto, .*cpu"):
        resolve_device(name)
