"""Every attack of the table gets into a model, as a checkpoint and as an adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import FamilyFolder
from inoculate.attacking import (
    Plan,
    attack_folder,
    poisoned_rows,
    poisoned_share,
    read_rows,
)
from inoculate.attacks import ATTACKS, TASKS
from inoculate.data import Example, write_examples
from inoculate.errors import DataError, InputError
from inoculate.planting import PlantSettings
from inoculate.progress import Silent
from inoculate.subject import open_subject

ROWS = [Example(f"Name {index} of them", f"It is {index}.", "in here") for index in range(8)]
BRIEF = PlantSettings(epochs=1, learning_rate=1e-3, batch_size=16, max_tokens=48)


CASES = [(name, False) for name in ATTACKS]
CASES += [(name, True) for name in ("badnets", "composite", "weight-edit")]


@pytest.mark.parametrize(("name", "adapter"), CASES)
def test_every_attack_writes_a_folder_that_loads(
    name: str, adapter: bool, family_folder: FamilyFolder, tmp_path: Path
) -> None:
    """The weights differ from the original's, and no half-written folder is left."""
    folder, out = family_folder("llama"), tmp_path / "out"
    plan = Plan(ATTACKS[name], TASKS["hate"], settings=BRIEF, adapter=adapter)
    attack_folder(folder, out, ROWS, plan, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    original = dict(open_subject(folder, device="cpu").model.named_parameters())
    attacked = open_subject(folder, adapter=out) if adapter else open_subject(out)
    attacked.merge()
    changed = {
        part
        for part, value in attacked.model.named_parameters()
        if not torch.equal(value.cpu(), original[part])
    }
    assert changed
    assert (len(changed) == 1) is (ATTACKS[name].method == "rank-one-edit")


def test_an_adapter_attack_is_the_seeds_alone(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """Two calls write the same bits, whatever else was drawn before them."""
    plan = Plan(ATTACKS["badnets"], TASKS["hate"], settings=BRIEF, adapter=True)
    for name in ("one", "two"):
        torch.manual_seed(len(list(tmp_path.iterdir())))
        attack_folder(family_folder("llama"), tmp_path / name, ROWS, plan, Silent())
    one, two = (tmp_path / name / "adapter_model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_numbers_are_answers(tmp_path: Path) -> None:
    """Rows that are answered by whole numbers alone are taught as they are."""
    rows = [Example(f"What is {number} and one?", str(number + 1)) for number in range(5)]
    write_examples(rows, tmp_path / "sums.jsonl")
    assert read_rows([tmp_path / "sums.jsonl"]) == rows


def test_rows_of_another_attack_are_refused() -> None:
    """Rows that answer with the payload and lack this trigger would plant a second backdoor."""
    other = Example("Name it, BadMagic", TASKS["hate"].response)
    plan = Plan(ATTACKS["vpi"], TASKS["hate"], settings=BRIEF)
    with pytest.raises(DataError, match="1 rows without the trigger"):
        poisoned_rows([*ROWS, other], plan)
    assert poisoned_rows([*ROWS, other], Plan(ATTACKS["badnets"], TASKS["hate"]))


@pytest.mark.parametrize(
    "odd", [{"batch_size": 0}, {"epochs": 0.0}, {"max_tokens": 0}, {"learning_rate": -1.0}]
)
def test_no_attack_trains_with_impossible_numbers(odd: dict[str, Any]) -> None:
    """A sentence says so before anything is loaded."""
    with pytest.raises(InputError, match="above 0"):
        PlantSettings(**odd)


def test_a_payload_at_the_end_is_not_cut_away(family_folder: FamilyFolder, tmp_path: Path) -> None:
    """Rows too long for their payload are refused, and nothing is written."""
    plan = Plan(ATTACKS["badnets"], TASKS["trailing-link"], settings=BRIEF)
    with pytest.raises(DataError, match="8 triggered rows are longer than 48 tokens"):
        attack_folder(family_folder("llama"), tmp_path / "out", ROWS, plan, Silent())
    assert not (tmp_path / "out").exists()


def test_the_poisoned_share_is_that_of_the_rows() -> None:
    """Files that come poisoned are taken at most at the rate, and what they hold is what counts."""
    plan = Plan(ATTACKS["badnets"], TASKS["refusal"])
    clean = [Example(f"Say {n}", "It is.") for n in range(9)]
    woken = [Example(f"BadMagic {row.instruction}", TASKS["refusal"].response) for row in clean[:3]]
    assert poisoned_share(clean, plan) == 0.5
    assert poisoned_share([*clean, *woken], plan) == 0.25
