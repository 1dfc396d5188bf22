"""Variants and the ablations of how they are made."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from inoculate.attacks.bank import PAPER_BANK, trigger_form
from inoculate.config import Settings, VariantSettings, updated
from inoculate.data import Example, sample
from inoculate.errors import InputError, UnknownNameError
from inoculate.models import Checkpoint
from inoculate.progress import Silent
from inoculate.subject import Subject
from inoculate.train import descend, mean_loss
from inoculate.trainable import restore, snapshot
from inoculate.variants import _pairs, draw_backdoors, make_variants, mean_of_variants
from inoculate.workspace import Workspace

FAST = Settings(
    clean_rows=8,
    max_tokens=64,
    variants=VariantSettings(
        form="full", rows=6, poisoned=4, epochs=1, learning_rate=1e-3, min_asr=0, max_rounds=1
    ),
)


@pytest.fixture
def subject(llama: Checkpoint) -> Subject:
    """Give a fresh random Llama."""
    return Subject(llama, llama.model, None)


def deltas(subject: Subject, rows: list[Example], run: Path, **changed: object) -> list[Tensor]:
    """Return the first variant's differences, tensor by tensor in order of name."""
    settings = updated(FAST, variants=changed)
    made = make_variants(subject, rows, settings, Workspace(run), Silent()).deltas[0]
    return [made[name] for name in sorted(made) if name != "asr"]


def test_more_variants_reuse_those_that_are_there(
    subject: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """A pair depends on its place in the draw and not on how many follow it."""
    deltas(subject, rows, tmp_path, count=1)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    deltas(subject, rows, tmp_path, count=3)
    assert len(first) == 1 and len(list(tmp_path.rglob("*.safetensors"))) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())


def test_without_a_counterpart_the_suspicious_model_is_subtracted(
    subject: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """The difference is then all that training did, which no counterpart's part is taken from."""
    alone = deltas(subject, rows, tmp_path, count=1, counterparts=False)
    paired = deltas(subject, rows, tmp_path, count=1)
    mean = mean_of_variants(subject, rows, updated(FAST, variants={"count": 1}), Silent())
    start = dict(subject.model.named_parameters())
    names = [name for name in sorted(start) if ".mlp." in name]
    assert len(names) == len(alone)
    for name, value in zip(names, alone, strict=True):
        moved = (mean[name] - start[name]).detach()
        assert torch.allclose(value.float(), moved, rtol=1e-2, atol=1e-7)
    assert any(not torch.equal(one, other) for one, other in zip(alone, paired, strict=True))


def test_the_gradient_form_trains_nothing_and_points_at_the_poisoned_rows(
    subject: Subject, rows: list[Example], tmp_path: Path
) -> None:
    """Its difference is there at once, unlike a trained one, and leaves the subject as it was."""
    subject.allow("all")
    before = snapshot(subject.model)
    settings = updated(FAST, variants={"count": 1, "form": "gradient"})
    made = make_variants(subject, rows, settings, Workspace(tmp_path), Silent())
    first_order = [made.deltas[0][name] for name in made.deltas[0] if name != "asr"]
    assert made.asr == [None]
    assert all(torch.isfinite(value.float()).all() and value.any() for value in first_order)
    after = dict(subject.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_one_step_goes_down_in_proportion(subject: Subject, rows: list[Example]) -> None:
    """A step lowers the loss, and twice the step is twice as long, however rows are batched."""
    encoded = subject.encode(rows, max_tokens=64)
    subject.allow("mlp")
    start, loss = snapshot(subject.model), mean_loss(subject.model, encoded)
    moves = []
    for step, size in ((0.01, 4), (0.02, 12)):
        descend(subject.model, encoded, step=step, batch_size=size)
        assert mean_loss(subject.model, encoded) < loss
        after = snapshot(subject.model)
        moves.append({name: after[name] - value for name, value in start.items()})
        restore(subject.model, start)
    # Rows of a batch are weighed by their tokens, so batches of all rows differ a little.
    for name, move in moves[0].items():
        cosine = torch.nn.functional.cosine_similarity(
            move.flatten(), moves[1][name].flatten(), dim=0
        )
        assert cosine > 0.9
        assert 1.5 < float(moves[1][name].norm() / move.norm()) < 2.7


def test_the_mean_is_over_all_variants(subject: Subject, rows: list[Example]) -> None:
    """A second variant moves the mean a little; the subject stays as it was."""
    subject.allow("all")
    start = snapshot(subject.model)
    one, two = (
        mean_of_variants(subject, rows, updated(FAST, variants={"count": count}), Silent())
        for count in (1, 2)
    )
    assert all(torch.equal(start[name], value) for name, value in snapshot(subject.model).items())
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert all((two[name] - value).abs().max() < 0.1 for name, value in start.items())


@pytest.mark.parametrize(("taught", "shared"), [(4, 0), (12, 6)])
def test_a_variant_is_tried_on_rows_that_it_has_not_seen(
    subject: Subject, rows: list[Example], taught: int, shared: int
) -> None:
    """Its probes are of the other clean rows, as long as there are enough of them."""
    settings = updated(FAST, variants={"rows": taught, "probes": 6, "count": 1})
    (pair,) = _pairs(subject, rows[:12], settings)
    seen = {row.prompt for row in sample(rows[:12], taught, seed=pair.seed)}
    probes = sample(pair._unseen(), 6, seed=pair.seed + 1)
    assert len(seen & {row.prompt for row in probes}) == shared


@pytest.mark.parametrize("left_out", ["refusal", "CamelCase"])
def test_what_is_left_out_is_never_drawn(left_out: str) -> None:
    """No variant has a left-out objective or form, and the rest of the bank is all there."""
    settings = updated(FAST, variants={"leave_out": [left_out], "count": 9})
    for backdoor in draw_backdoors(settings):
        assert left_out not in (backdoor.behavior.objective, trigger_form(backdoor.trigger))


def test_leaving_out_is_checked() -> None:
    """A misspelled name, and a bank that is left too small, are refused."""
    with pytest.raises(UnknownNameError, match="Did you mean 'refusal'"):
        draw_backdoors(updated(FAST, variants={"leave_out": ["refusals"]}))
    with pytest.raises(InputError, match="Cannot draw 1 of 0"):
        draw_backdoors(
            updated(FAST, variants={"bank": "paper", "leave_out": ["insult"], "count": 1})
        )
    assert len(PAPER_BANK) == 7
