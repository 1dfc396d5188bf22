"""LoRA adapters: read as dense updates, saved so that PEFT reads them."""

import json
import shutil
import sys
from pathlib import Path
from typing import cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from conftest import FamilyFolder
from inoculate import precision
from inoculate.adapters import (
    DenseUpdate,
    MergedWeights,
    add_adapter,
    factors,
    load_adapter,
    save_adapter_like,
    stored_names,
)
from inoculate.builtin.fixture import model_folder
from inoculate.cli import main
from inoculate.components import CHANNELS, HEADS, tensor_names
from inoculate.config import Settings
from inoculate.errors import CheckpointError
from inoculate.hunt import Hunt
from inoculate.intake import admit_adapter
from inoculate.models import Checkpoint, load
from inoculate.repair import trained_part
from inoculate.repair.lesson import rate_factor
from inoculate.subject import open_subject

STORED = "adapter_model.safetensors"
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(family_folder: FamilyFolder, tmp_path: Path) -> Path:
    """Give a LoRA folder over Llama's q and down projections, as PEFT itself writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LoraConfig(
            r=3,
            lora_alpha=8,
            use_rslora=True,
            target_modules=["q_proj", "down_proj"],
            init_lora_weights=False,
        )
        model = get_peft_model(load(family_folder(), device="cpu").model, config)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def loaded(base: Checkpoint, folder: Path) -> PeftModel:
    """Put the checked copy of an adapter over its base."""
    return load_adapter(base, admit_adapter(folder, base.staged.config))


def test_what_is_measured_is_what_is_saved(
    family_folder: FamilyFolder, folder: Path, tmp_path: Path
) -> None:
    """Rounded to its 16-bit files, a changed adapter or checkpoint is the one that is read back."""
    file = folder / STORED
    save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file)
    openings: tuple[tuple[Path, Path | None], ...] = (
        (family_folder(), folder), (model_folder(), None),
    )  # fmt: skip
    for model, adapter in openings:
        subject = open_subject(model, adapter=adapter, device="cpu")
        subject.allow("all")
        with torch.no_grad():
            for parameter in subject.model.parameters():
                parameter.add_(1e-4 * parameter.requires_grad)
        exact = subject.fingerprint()
        subject.round()
        assert subject.fingerprint() != exact
        out = tmp_path / model.name
        subject.save(out)
        again = open_subject(model if adapter else out, adapter=out if adapter else None)
        saved = dict(again.model.named_parameters())
        assert all(torch.equal(saved[n], p) for n, p in subject.model.named_parameters())


def test_what_is_not_a_weight_tells_subjects_apart(
    family_folder: FamilyFolder, folder: Path, tmp_path: Path
) -> None:
    """Stages made with one template or scaling are not taken for those of another."""
    model = shutil.copytree(family_folder(), tmp_path / "model")
    first = open_subject(model, adapter=folder, device="cpu").fingerprint()
    assert open_subject(model, adapter=folder, device="cpu").fingerprint() == first
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 16}))
    scaled = open_subject(model, adapter=folder, device="cpu").fingerprint()
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<end>", "<end>\n"))
    assert len({first, scaled, open_subject(model, adapter=folder).fingerprint()}) == 3


def test_only_the_adapter_trains(llama: Checkpoint, folder: Path) -> None:
    """A loaded adapter is trainable, its base is not, and the model evaluates."""
    model = loaded(llama, folder)
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert not model.training


def test_the_repair_trains_what_an_adapter_has(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """Attention where there is some, all blocks where the adapter lies on the MLPs alone."""
    for projection, part in (("q_proj", "attention"), ("down_proj", "blocks")):
        config = LoraConfig(target_modules=[projection])
        wrapped = get_peft_model(load(family_folder(), device="cpu").model, config)
        wrapped.save_pretrained(tmp_path / projection)
        subject = open_subject(family_folder(), adapter=tmp_path / projection, device="cpu")
        assert trained_part(subject, Hunt(), Settings()) == part
        assert subject.allow(part)


def test_the_repair_is_gentler_with_an_adapter_it_can_aim_at(
    family_folder: FamilyFolder, folder: Path
) -> None:
    """A quarter of the rate where a payload was found, the rate of a whole model."""
    whole = open_subject(family_folder(), device="cpu")
    part = open_subject(family_folder(), adapter=folder, device="cpu")
    aimed, pressing = Hunt(payload=(40, 41)), Hunt(payload=(40, 41), pressing=True)
    assert [rate_factor(whole, found) for found in (Hunt(), aimed, pressing)] == [0.5, 0.5, 2.0]
    assert [rate_factor(part, found) for found in (Hunt(), aimed, pressing)] == [0.5, 0.125, 2.0]


def test_a_base_in_16_bits_changes_nothing(
    family_folder: FamilyFolder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors keep their fp32 bits over it; merged on the disk or in memory it is the same."""
    whole = open_subject(family_folder(), adapter=folder, device="cpu")
    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: True)
    monkeypatch.setattr(precision, "_WORTHWHILE", 0)
    short = open_subject(family_folder(), adapter=folder, device="cpu")
    kinds = {value.dtype for value in short.base.model.parameters()}
    assert kinds == {torch.float32, torch.bfloat16}
    assert short.fingerprint() == whole.fingerprint()
    stored = load_file(folder / STORED)
    for name, value in stored_names(cast(PeftModel, short.model)).items():
        assert torch.equal(value, stored[name])
    for subject, out in ((whole, tmp_path / "whole"), (short, tmp_path / "short")):
        subject.save(out, merged=True)
        subject.merge()
    one, other = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "short"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.fingerprint() == short.fingerprint()


def test_scored_updates_are_zero_where_there_is_no_factor(
    family_folder: FamilyFolder, folder: Path
) -> None:
    """An adapter of the down projections moves no other tensor of the MLPs, and stays as read."""
    subject = open_subject(family_folder(), adapter=folder, device="cpu")
    kept = subject.scored_weights((CHANNELS,))
    assert list(kept) == tensor_names(subject.architecture, CHANNELS)
    moved = {name: value for name, value in kept.items() if value.any()}
    assert {name.rsplit(".", 2)[1] for name in moved} == {"down_proj"}
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.mul_(2.0)
    assert all(torch.equal(kept[name], value) for name, value in moved.items())


def test_dense_update_is_merged_minus_base(family_folder: FamilyFolder, folder: Path) -> None:
    """s·B·A of each projection is what PEFT's own merging adds to the base."""
    base = {n: v.detach() for n, v in load(family_folder(), device="cpu").model.named_parameters()}
    model = loaded(load(family_folder(), device="cpu"), folder)
    update = DenseUpdate(model)
    merged = MergedWeights(model, base)
    theirs = dict(model.merge_and_unload().named_parameters())
    assert set(update) == {n for n in base if not torch.equal(base[n], theirs[n])}
    for name in update:
        torch.testing.assert_close(update[name], theirs[name] - base[name])
        torch.testing.assert_close(merged[name], theirs[name].detach())


def test_saved_adapter_loads_in_peft(llama: Checkpoint, folder: Path, tmp_path: Path) -> None:
    """What is saved keeps config, keys and dtypes, and PEFT loads the changed factors."""
    model = loaded(llama, folder)
    with torch.no_grad():
        factors(model)[QUERY][1].zero_()
    save_adapter_like(folder, tmp_path / "out", model)
    old = load_file(folder / STORED)
    new = load_file(tmp_path / "out" / STORED)
    assert list(new) == list(old)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {f"base_model.model.{QUERY.removesuffix('.weight')}.lora_B.weight"}
    again = PeftModel.from_pretrained(load(llama.folder, device="cpu").model, tmp_path / "out")
    assert not factors(again)[QUERY][1].any()


def test_base_stays_as_it_was(llama: Checkpoint, folder: Path) -> None:
    """Wrapping changes no bit of the base, and reading components covers every projection."""
    before = load(llama.folder, device="cpu").model.state_dict()
    model = loaded(llama, folder)
    inner = {n.replace(".base_layer", ""): v for n, v in model.get_base_model().named_parameters()}
    assert all(torch.equal(inner[n], v) for n, v in before.items() if n in inner)


def test_fresh_adapter_covers_every_scored_tensor(checkpoint: Checkpoint) -> None:
    """In every family a fresh adapter reaches all projections, and starts as no change."""
    model = add_adapter(checkpoint.model, rank=2)
    update = DenseUpdate(model)
    scored = {n for kind in (CHANNELS, HEADS) for n in tensor_names(checkpoint.architecture, kind)}
    assert set(update) == scored
    assert not any(update[name].any() for name in update)


def test_unloading_a_fresh_adapter_restores_the_model(llama: Checkpoint) -> None:
    """A model can be wrapped and unwrapped repeatedly without a trace."""
    before = {name: value.detach().clone() for name, value in llama.model.named_parameters()}
    for _ in range(2):
        add_adapter(llama.model, rank=2).unload()
    after = dict(llama.model.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_merged_and_unmerged_saving_agree(
    family_folder: FamilyFolder, folder: Path, tmp_path: Path
) -> None:
    """A subject saved merged answers as the adapter over its base, up to the file's dtype."""
    subject = open_subject(family_folder(), adapter=folder, device="cpu")
    subject.save(tmp_path / "merged", merged=True)
    subject.save(tmp_path / "adapter-out")
    merged = load(tmp_path / "merged", device="cpu").model
    tokens = torch.arange(6, 20).unsqueeze(0)
    with torch.inference_mode():
        ours, theirs = subject.model(tokens).logits, merged(tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["adapter_config.json", STORED])
def test_incomplete_folder_is_refused(llama: Checkpoint, folder: Path, name: str) -> None:
    """A folder without its config, or with pickle weights alone, names what it lacks."""
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        loaded(llama, folder)


def test_adapter_of_another_width_is_refused(llama: Checkpoint, folder: Path) -> None:
    """Factors whose shapes do not fit the base are reported, not loaded."""
    path = folder / STORED
    tensors = load_file(path)
    inputs = {name: value for name, value in tensors.items() if "lora_A" in name}
    wider = {name: torch.cat([value, value], dim=1) for name, value in inputs.items()}
    save_file(tensors | wider, path)
    with pytest.raises(CheckpointError, match="does not fit"):
        loaded(llama, folder)


def test_adapter_with_other_layers_is_refused(llama: Checkpoint, folder: Path) -> None:
    """Factors for layers that the base lacks, or lacking for layers it has, are reported."""
    path = folder / STORED
    tensors = load_file(path)
    save_file({n.replace("layers.1.", "layers.7."): v for n, v in tensors.items()}, path)
    with pytest.raises(CheckpointError, match="does not fit"):
        loaded(llama, folder)


def test_adapter_that_is_no_plain_lora_is_refused(
    family_folder: FamilyFolder, folder: Path, tmp_path: Path
) -> None:
    """A method whose update is not s·B·A is refused rather than read wrongly."""
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    config = json.loads((broken / "adapter_config.json").read_text())
    (broken / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(CheckpointError, match="DoRA"):
        loaded(load(family_folder(), device="cpu"), broken)


def test_two_adapters_are_compared_over_one_base(
    family_folder: FamilyFolder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`utility --base` measures each adapter over its base; one of zeros does as the base alone."""
    still = tmp_path / "still"
    shutil.copytree(folder, still)
    zeros = {name: 0 * value for name, value in load_file(folder / STORED).items()}
    save_file(zeros, still / STORED)
    rows, result = tmp_path / "rows.jsonl", tmp_path / "result.json"
    rows.write_text(json.dumps({"instruction": "Name a color.", "output": "red"}), "utf-8")
    base = str(family_folder())

    def losses(*models: str) -> list[float]:
        words = ["utility", *models, "--rows", str(rows), "--json", str(result)]
        monkeypatch.setattr(sys, "argv", ["inoculate", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        loss = json.loads(result.read_text("utf-8"))["loss"]
        return [loss["before"], loss["after"]]

    alone, _ = losses(base, base)
    before, after = losses(str(still), str(folder), "--base", base)
    assert before == pytest.approx(alone, abs=1e-5)
    assert abs(after - alone) > 1e-3
