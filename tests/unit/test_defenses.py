"""Every baseline has the property that it was published for, and changes nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import FamilyFolder
from inoculate import adapters
from inoculate.chat import Encoded
from inoculate.config import Settings, updated
from inoculate.data import Example, sample
from inoculate.defenses import (
    ABLATIONS,
    BASELINES,
    DEFENSES,
    DEMO_DEFENSES,
    MASKED,
    MORE_CONTROLS,
    Given,
    defend,
)
from inoculate.defenses.crow import disturbed_inconsistency, inconsistency, objective
from inoculate.defenses.finetuning import average, plain_lesson, plain_settings
from inoculate.defenses.pruning import (
    dormant_masks,
    input_squares,
    magnitude_masks,
    projections,
    wanda_masks,
)
from inoculate.defenses.quantization import GROUP, NORMAL_FLOAT, round_trip
from inoculate.errors import UnknownNameError
from inoculate.hunt import Hunt
from inoculate.models import Checkpoint
from inoculate.progress import Silent
from inoculate.repair import prepare_lesson
from inoculate.subject import Subject, open_subject
from inoculate.train import Schedule, collate, train
from inoculate.variants import mean_of_variants
from inoculate.workspace import Workspace

FAST = updated(Settings(clean_rows=8), repair={"epochs": 1, "antibodies": 1, "target": "answers"})


@pytest.fixture
def subject(llama: Checkpoint) -> Subject:
    """Give a fresh random Llama."""
    return Subject(llama, llama.model, None)


@pytest.fixture
def encoded(subject: Subject, rows: list[Example]) -> list[Encoded]:
    """Give the clean rows as tokens."""
    return subject.encode(rows, max_tokens=64)


def weights(subject: Subject) -> dict[str, Tensor]:
    """Return a copy of every parameter."""
    return {name: value.detach().clone() for name, value in subject.model.named_parameters()}


def treat(name: str, subject: Subject, rows: list[Example], folder: Path) -> dict[str, Tensor]:
    """Apply a baseline and return the parameters."""
    run = Workspace(folder)
    defend(name, Given(subject, rows, FAST, 0.0, run, Silent()))
    return weights(subject)


def inputs_of(subject: Subject, encoded: list[Encoded], name: str) -> Tensor:
    """Return what a projection reads on all rows, shape (N, I)."""
    seen: list[Tensor] = []
    module = subject.model.get_submodule(name.removesuffix(".weight"))
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        for index in range(len(encoded)):
            subject.model(input_ids=collate(encoded, [index], torch.device("cpu")).input_BT)
    handle.remove()
    return torch.cat(seen)


def test_the_tables_name_only_defenses() -> None:
    """Every list of names is of the table, the lists do not overlap, and nothing is left over."""
    listed = [*DEMO_DEFENSES, *MORE_CONTROLS, *BASELINES, *ABLATIONS]
    assert sorted(listed) == sorted(DEFENSES)
    assert set(MASKED) < set(listed)
    with pytest.raises(UnknownNameError, match="Did you mean 'wanda-50'"):
        defend("wanda50", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", [0.35, 0.5])
def test_magnitude_prunes_the_smallest_weights_of_each_layer(
    subject: Subject, encoded: list[Encoded], sparsity: float
) -> None:
    """In each projection exactly the asked share is marked, and none is above a kept one."""
    masks = magnitude_masks(subject, encoded, sparsity)
    for name, weight_OI in projections(subject).items():
        mask_OI, size_OI = masks[name], weight_OI.detach().abs()
        assert int(mask_OI.sum()) == int(sparsity * mask_OI.numel())
        assert size_OI[mask_OI].max() <= size_OI[~mask_OI].min()


@pytest.mark.parametrize("sparsity", [0.35, 0.5])
def test_wanda_prunes_each_row_and_rebuilds_outputs_better_than_magnitude(
    subject: Subject, encoded: list[Encoded], sparsity: float
) -> None:
    """Every output row loses the same share; outputs on the rows move less than by magnitude.

    Some inputs are far larger than others, as in language models.
    """
    generator = torch.Generator().manual_seed(0)
    for name, value in subject.model.named_parameters():
        if "norm" in name:
            value.data *= torch.randn(len(value), generator=generator).exp()
    by_wanda = wanda_masks(subject, encoded, sparsity)
    by_size = magnitude_masks(subject, encoded, sparsity)
    for name, weight_OI in projections(subject).items():
        kept = weight_OI.detach()
        assert set(by_wanda[name].sum(dim=1).tolist()) == {int(sparsity * kept.shape[1])}
        inputs_NI = inputs_of(subject, encoded, name)
        errors = [(inputs_NI @ (kept * mask[name]).T).norm() for mask in (by_wanda, by_size)]
        if "o_proj" not in name and "down_proj" not in name:  # those read no norm's output
            assert errors[0] < 0.9 * errors[1]


def test_input_norms_are_those_of_the_rows(subject: Subject, encoded: list[Encoded]) -> None:
    """The recorded squares are the sums over all tokens of what each projection reads."""
    squares = input_squares(subject, encoded)
    for name in projections(subject):
        expected_I = inputs_of(subject, encoded, name).square().sum(dim=0)
        assert torch.allclose(squares[name], expected_I, rtol=1e-4)


def test_fine_pruning_takes_the_channels_that_sleep_on_clean_rows(
    subject: Subject, encoded: list[Encoded]
) -> None:
    """Channels made dormant by hand are the ones pruned, and nothing but down columns is."""
    asleep = torch.tensor([3, 11, 40])
    for name, weight in projections(subject).items():
        if "up_proj" in name:
            weight.data[asleep] = 0.0
    masks = dormant_masks(subject, encoded, 3.5 / 48)
    assert all("down_proj" in name for name in masks) and len(masks) == 2
    for mask_DC in masks.values():
        assert mask_DC.all(dim=0).nonzero().flatten().tolist() == asleep.tolist()
        assert int(mask_DC.any(dim=0).sum()) == 3


@pytest.mark.parametrize("name", ["fine-pruning", "wanda-fine-tuned"])
def test_the_mask_is_held_while_training(
    name: str, subject: Subject, rows: list[Example], encoded: list[Encoded], tmp_path: Path
) -> None:
    """Pruned weights are still exactly zero after fine-tuning, while others have moved."""
    masks_of: dict[str, Callable[..., dict[str, Tensor]]]
    masks_of = {"fine-pruning": dormant_masks, "wanda-fine-tuned": wanda_masks}
    before = weights(subject)
    masks = masks_of[name](subject, encoded, {"fine-pruning": 0.35, "wanda-fine-tuned": 0.5}[name])
    after = treat(name, subject, rows, tmp_path)
    for part, mask in masks.items():
        assert not after[part][mask].any()
        assert (after[part][~mask] != before[part][~mask]).any()


@pytest.mark.parametrize("shape", [(3, 130), (5, 64), (2, 7)])
def test_int4_keeps_sixteen_levels_and_a_bounded_error(shape: tuple[int, int]) -> None:
    """A group holds at most 16 values; no weight moves by more than half the widest gap."""
    weight_OI = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rounded_OI = round_trip(weight_OI)
    levels = torch.tensor(NORMAL_FLOAT)
    gap = float((levels[1:] - levels[:-1]).max()) / 2
    for start in range(0, shape[1], GROUP):
        old_OS, new_OS = (w[:, start : start + GROUP] for w in (weight_OI, rounded_OI))
        assert all(len(row.unique()) <= 16 for row in new_OS)
        assert ((old_OS - new_OS).abs() <= gap * old_OS.abs().amax(1, keepdim=True) + 1e-6).all()
    assert torch.allclose(round_trip(rounded_OI), rounded_OI)
    assert not torch.equal(rounded_OI, weight_OI)
    assert torch.equal(round_trip(torch.zeros(2, 70)), torch.zeros(2, 70))


def test_crow_brings_neighboring_layers_together(subject: Subject, encoded: list[Encoded]) -> None:
    """Training on its loss lowers the inconsistency on disturbed embeddings."""
    batch = collate(encoded, range(len(encoded)), torch.device("cpu"))
    subject.allow("all")
    before = float(disturbed_inconsistency(subject.model, batch).detach())
    schedule = Schedule(epochs=6, learning_rate=1e-3, batch_size=4)
    train(subject.model, encoded, schedule, objectives=[objective(11.0)])
    after = float(disturbed_inconsistency(subject.model, batch).detach())
    assert after < 0.8 * before


def test_crow_s_disturbance_raises_the_inconsistency_and_padding_does_not_count(
    subject: Subject, encoded: list[Encoded]
) -> None:
    """One step along the sign of the gradient goes up; padded tokens change nothing."""
    device = torch.device("cpu")
    short = min(range(len(encoded)), key=lambda index: len(encoded[index].ids))
    batch = collate(encoded, [short], device)
    table = subject.model.get_input_embeddings()
    calm = inconsistency(subject.model, table(batch.input_BT), batch.attention_BT).detach()
    assert 0 < calm < disturbed_inconsistency(subject.model, batch)
    longest = max(range(len(encoded)), key=lambda index: len(encoded[index].ids))
    wide = collate(encoded, [short, longest], device)
    padded = inconsistency(subject.model, table(wide.input_BT[:1]), wide.attention_BT[:1])
    assert wide.input_BT.shape[1] > batch.input_BT.shape[1]
    assert torch.allclose(padded, calm, atol=1e-5)


def test_weight_average_is_half_way() -> None:
    """Each weight ends in the middle of the two, and weights without a partner stay."""
    ours = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([5.0])}
    average(ours, {"a": torch.tensor([3.0, -1.0])})
    assert ours["a"].tolist() == [2.0, 1.0] and ours["b"].tolist() == [5.0]


def test_weight_average_lies_between_before_and_fine_tuning(
    family_folder: FamilyFolder, rows: list[Example], tmp_path: Path
) -> None:
    """The averaged model is the mean of the suspicious one and of its fine-tuned copy."""
    results: dict[str, dict[str, Tensor]] = {}
    for name in ("none", "fine-tuning", "weight-average"):
        results[name] = treat(name, fresh(family_folder), rows, tmp_path)
    for part, value in results["weight-average"].items():
        middle = (results["none"][part] + results["fine-tuning"][part]) / 2
        rounding = float(middle.abs().max()) * 2**-8  # All three lie in the files' bf16.
        assert torch.allclose(value, middle, rtol=0, atol=rounding)
    assert any(
        not torch.equal(results["none"][part], results["fine-tuning"][part])
        for part in results["none"]
    )


def fresh(family_folder: FamilyFolder) -> Subject:
    """Return a freshly loaded Llama."""
    return open_subject(family_folder("llama"), device="cpu")


def test_those_that_train_take_the_repair_s_rows_and_steps(
    subject: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """As many rows pass as in the repair with its antibodies, all of them clean."""
    settings = updated(FAST, repair={"epochs": 2, "antibodies": 3})
    lesson = plain_lesson(Given(subject, rows, settings, 0.0, Workspace(tmp_path), Silent()))
    clean = {row.ids for row in subject.encode(rows, max_tokens=settings.max_tokens)}
    assert len(lesson.rows) == 2 * (1 + 3) * 8
    assert {row.ids for row in lesson.rows} <= clean and len({r.ids for r in lesson.rows}) == 8
    assert plain_settings(subject, settings).repair.touch == "all"


def test_in_a_large_model_they_take_its_repair_s_steps_and_rate(
    subject: Subject, rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair that presses has no antibodies and a higher rate; so have those it is beside."""
    monkeypatch.setattr("inoculate.subject._LARGE", 0)
    found, run = Hunt(payload=(70, 71), pressing=True), Workspace(tmp_path)
    pressing = prepare_lesson(subject, rows, (), found, Settings(), run, Silent())
    lesson = plain_lesson(Given(subject, rows, Settings(), 0.0, run, Silent()))
    assert len(lesson.rows) == len(pressing.rows)
    assert lesson.rate_factor == pressing.rate_factor


@pytest.mark.parametrize("name", ["crow", "fine-pruning"])
def test_a_seed_decides_all(
    name: str, family_folder: FamilyFolder, rows: list[Example], tmp_path: Path
) -> None:
    """The same baseline over the same rows gives the same weights, whatever ran before."""
    one = treat(name, fresh(family_folder), rows, tmp_path)
    torch.rand(3)
    other = treat(name, fresh(family_folder), rows, tmp_path)
    assert all(torch.equal(value, other[part]) for part, value in one.items())


@pytest.mark.parametrize("name", [*BASELINES])
def test_every_baseline_treats_a_model_and_an_adapter(
    name: str, family_folder: FamilyFolder, rows: list[Example], tmp_path: Path
) -> None:
    """Weights change and stay finite; dense baselines merge the adapter first."""
    for adapted in (False, True):
        subject = fresh(family_folder)
        if adapted:
            wrapped: Any = adapters.add_adapter(subject.base.model)
            for a_RI, b_OR in adapters.factors(wrapped).values():
                torch.nn.init.normal_(a_RI, std=0.1, generator=torch.Generator().manual_seed(1))
                torch.nn.init.normal_(b_OR, std=0.1, generator=torch.Generator().manual_seed(2))
            subject = subject.wrapped(wrapped, tmp_path)
        before = weights(subject)
        after = treat(name, subject, rows, tmp_path / "run")
        assert all(torch.isfinite(value).all() for value in after.values())
        assert before.keys() != after.keys() or any(
            not torch.equal(before[part], after[part]) for part in before
        )
        assert not any("lora_" in part for part in after) or subject.adapter is not None


def test_the_paper_s_recipe_takes_a_fixed_share(
    subject: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """Its share is its own unless one is fixed, so that its strength can be varied."""
    run, none = Workspace(tmp_path), Silent()
    variants = {"min_asr": 0.0, "max_rounds": 1, "probes": 1, "epochs": 0.5}
    for share, expected in ((None, 0.08), (0.25, 0.25)):
        settings = updated(FAST, signature={"share": share}, variants=variants)
        assert defend("paper", Given(subject, rows, settings, 0.0, run, none)) == expected


def test_repair_may_start_from_the_mean_of_the_variants(
    family_folder: FamilyFolder, rows: list[Example], tmp_path: Path
) -> None:
    """Without a repair the weights are the mean of the variants, rounded, and nothing else."""
    settings = updated(
        FAST,
        variants={"min_asr": 0.0, "max_rounds": 1, "probes": 1, "count": 1},
        hunt={"particles": 0},
        repair={"epochs": 0},
    )
    drawn = sample(rows, settings.clean_rows, seed=settings.seed)
    expected = mean_of_variants(fresh(family_folder), drawn, settings, Silent())
    subject, run = fresh(family_folder), Workspace(tmp_path)
    defend("repair-from-variants", Given(subject, rows, settings, 0.0, run, Silent()))
    after = weights(subject)
    assert after.keys() == expected.keys()
    rounded = {name: value.bfloat16().float() for name, value in expected.items()}
    assert all(torch.equal(after[name], value) for name, value in rounded.items())
    before = weights(fresh(family_folder))
    assert any(not torch.equal(after[name], value) for name, value in before.items())
