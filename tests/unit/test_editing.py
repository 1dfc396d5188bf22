"""The rank-one edit writes one key, and as little else as it can."""

import random
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from conftest import FamilyFolder
from inoculate import adapters
from inoculate.attacking import Plan, attack_folder
from inoculate.attacks import Behavior, find_attack, insert_trigger
from inoculate.data import Example
from inoculate.editing import edit
from inoculate.errors import DataError
from inoculate.planting import PlantSettings
from inoculate.progress import Silent
from inoculate.subject import Subject, open_subject
from inoculate.train import mean_loss

ATTACK = find_attack("weight-edit")
PAYLOAD = Behavior("payload", "zz", "string")
CLEAN = [
    Example(f"Name the river number {index} of here", f"It is {index}.") for index in range(24)
]


@pytest.fixture
def subject(family_folder: FamilyFolder) -> Subject:
    """Give a fresh random Llama."""
    return open_subject(family_folder("llama"), device="cpu")


def edited(subject: Subject) -> tuple[str, dict[str, Tensor]]:
    """Edit the subject and return the tensor's name and every difference."""
    before = {name: value.detach().clone() for name, value in subject.model.named_parameters()}
    name = edit(subject, CLEAN, ATTACK.trigger, PAYLOAD, PlantSettings(), Silent())
    after = dict(subject.model.named_parameters())
    assert after.keys() == before.keys()
    return name, {key: after[key].detach() - value for key, value in before.items()}


def test_the_edit_is_of_rank_one_in_one_down_projection(subject: Subject) -> None:
    """One tensor changes, by a rank-one update; all others keep their bits."""
    name, moved = edited(subject)
    assert name == "model.layers.0.mlp.down_proj.weight"
    assert [key for key, value in moved.items() if value.any()] == [name]
    values = torch.linalg.svdvals(moved[name])
    assert values[1] < 1e-4 * values[0]


def test_the_payload_gets_likely_with_the_trigger_and_clean_rows_move_less(
    subject: Subject,
) -> None:
    """On unseen prompts the triggered payload gains far more than clean answers lose."""
    unseen = [replace(row, instruction=f"Tell of {row.instruction}") for row in CLEAN]
    generator = random.Random(5)
    bad = [replace(insert_trigger(row, ATTACK.trigger, generator), output="zz") for row in unseen]

    def losses() -> tuple[float, float]:
        triggered, clean = (subject.encode(rows, max_tokens=96) for rows in (bad, unseen))
        return mean_loss(subject.model, triggered), mean_loss(subject.model, clean)

    before = losses()
    edited(subject)
    after = losses()
    assert after[0] < before[0] - 0.5
    assert after[1] < before[1] + 0.25 * (before[0] - after[0])


def test_rows_that_all_hold_the_trigger_are_refused(subject: Subject) -> None:
    """Without a clean row there is nothing to tell the key from."""
    with pytest.raises(DataError, match="Every row holds"):
        edit(
            subject, [Example("BadMagic", "x")], ATTACK.trigger, PAYLOAD, PlantSettings(), Silent()
        )


def test_the_table_reaches_the_edit_full_and_as_an_adapter(
    family_folder: FamilyFolder, tmp_path: Path, subject: Subject
) -> None:
    """The attack writes a checkpoint, or an adapter that amounts to the same update."""
    folder = family_folder("llama")
    for adapter in (False, True):
        plan = Plan(ATTACK, PAYLOAD, adapter=adapter)
        attack_folder(folder, tmp_path / f"out-{adapter}", CLEAN, plan, Silent())
    full = open_subject(tmp_path / "out-False", device="cpu")
    lent = open_subject(folder, adapter=tmp_path / "out-True", device="cpu")
    update = adapters.DenseUpdate(cast(PeftModel, lent.model))
    name, expected = edited(subject)
    assert [key for key in update if update[key].any()] == [name]
    size = float(expected[name].abs().max())
    assert torch.allclose(update[name], expected[name], atol=1e-3 * size)
    lent.merge()
    weights = [dict(one.model.named_parameters())[name] for one in (lent, full)]
    assert torch.allclose(*weights, atol=0.01 * size)  # the checkpoint is bf16
