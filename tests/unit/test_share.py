"""The share of components to neutralize follows from clean loss."""

from pathlib import Path

import pytest
import torch

from conftest import FamilyFolder
from inoculate.chat import Encoded
from inoculate.components import CHANNELS
from inoculate.config import Settings, updated
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.progress import Silent
from inoculate.purification import (
    allowed_loss,
    choose_share,
    purify_subject,
    select_components,
    share_rule,
)
from inoculate.share import GRID, largest_harmless_share
from inoculate.signature import Signature
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace


@pytest.fixture
def subject(family_folder: FamilyFolder) -> Subject:
    """Give a Llama to treat."""
    return open_subject(family_folder(), device="cpu")


def test_harmless_neutralization_gets_the_largest_share(
    subject: Subject, rows: list[Example]
) -> None:
    """Where nothing is lost, the whole grid is allowed."""
    assert _choose(subject, rows, harm=0.0) == GRID[-1]


def test_harmful_neutralization_gets_none(subject: Subject, rows: list[Example]) -> None:
    """Where the smallest share already costs too much, nothing is neutralized."""
    assert _choose(subject, rows, harm=1e6) == 0.0


def test_larger_budget_allows_a_larger_share(subject: Subject, rows: list[Example]) -> None:
    """The share grows with the allowed increase of clean loss, and lies in between."""
    shares = [_choose(subject, rows, harm=30.0, budget=budget) for budget in (0.0, 0.3, 3.0)]
    assert shares == sorted(shares)
    assert GRID[0] < shares[1] < GRID[-1]


def test_a_mask_may_cost_more_where_nothing_else_helps(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is where nothing was found, in a small model; a budget that is given is taken."""
    nothing, found = Hunt(), Hunt(payload=(1,))
    alone, beside = (allowed_loss(subject, hunted, Settings()) for hunted in (nothing, found))
    assert 0 < beside < alone
    monkeypatch.setattr(Subject, "is_large", True)
    assert allowed_loss(subject, nothing, Settings()) == beside
    given = updated(Settings(), signature={"max_clean_loss_increase": 0.0})
    assert allowed_loss(subject, nothing, given) == 0


def test_no_mask_is_taken_where_the_repair_presses() -> None:
    """Unless the user names a share or a budget; without a payload clean loss decides."""
    pressed = Hunt(payload=(1,), pressing=True)
    assert share_rule(pressed, Settings()) == "pressed"
    assert share_rule(Hunt(), Settings()) == "clean-loss"
    assert share_rule(pressed, updated(Settings(), repair={"soft_triggers": 0})) == "clean-loss"
    budget = updated(Settings(), signature={"max_clean_loss_increase": 0.05})
    assert share_rule(pressed, budget) == "clean-loss"
    assert share_rule(pressed, updated(Settings(), signature={"share": 0.1})) == "fixed"


def test_without_a_mask_no_variant_is_made(
    subject: Subject, rows: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the repair presses, nothing is differentiated or neutralized; it is repaired."""
    found = Hunt(payload=(70, 71, 72, 73), pressing=True)
    monkeypatch.setattr("inoculate.purification.hunt_once", lambda *_: found)
    settings = updated(Settings(clean_rows=8), repair={"epochs": 1})
    done = purify_subject(subject, rows, settings, Workspace(tmp_path), keep_repaired=True)
    assert (done.share, done.masks, done.changed, done.variants.deltas) == (0.0, {}, {}, [])
    assert len(done.variants.backdoors) == settings.variants.count
    kept = sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir())
    assert kept == ["repaired", "soft-triggers"]


def test_what_no_variant_moved_is_never_taken_out(subject: Subject, rows: list[Example]) -> None:
    """An adapter that leaves the MLPs alone has no channel to neutralize, and the share says so."""
    moved_LC = torch.zeros(2, 48)
    still = Signature(CHANNELS, moved_LC, moved_LC, torch.ones(2, 48))
    assert choose_share(subject, rows, [still], 0.1, Settings(), Silent()) == 0.0
    random = updated(Settings(), signature={"score": "random"})
    moved_LC[0, :3] = 1.0
    half = Signature(CHANNELS, moved_LC, moved_LC, torch.ones(2, 48))
    mask_LC = select_components([half], 1.0, random)[CHANNELS.name]
    assert torch.equal(mask_LC, moved_LC > 0)


def test_subject_is_left_as_it_was(subject: Subject, rows: list[Example]) -> None:
    """Trying shares leaves every bit of the weights as before."""
    before = {name: value.detach().clone() for name, value in subject.model.named_parameters()}
    _choose(subject, rows, harm=30.0)
    after = dict(subject.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def _choose(subject: Subject, rows: list[Example], *, harm: float, budget: float = 0.1) -> float:
    encoded: list[Encoded] = subject.encode(rows, max_tokens=64)

    @torch.no_grad()
    def neutralize_share(share: float) -> None:
        subject.model.get_output_embeddings().weight.mul_(1 + harm * share)

    return largest_harmless_share(
        subject, encoded, neutralize_share, max_increase=budget, progress=Silent()
    )
