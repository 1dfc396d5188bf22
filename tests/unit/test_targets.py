"""What a model predicted before it was changed, as a target."""

import copy

import pytest
import torch

from inoculate.chat import encode
from inoculate.data import Example
from inoculate.models import Checkpoint
from inoculate.repair import Lesson
from inoculate.repair.targets import self_targets
from inoculate.train import collate

ROWS = [Example("Count the apples", "Four."), Example("Name a color", "Deep blue.")]


def _lesson(checkpoint: Checkpoint) -> Lesson:
    texts = [*ROWS, *(Example(f"zo {row.instruction}", row.output) for row in ROWS)]
    rows = [encode(checkpoint.tokenizer, row) for row in texts]
    return Lesson(rows, self_targets(checkpoint.model, rows[: len(ROWS)]))


def _distance(checkpoint: Checkpoint, indices: list[int], *, noise: float = 0.0) -> float:
    model = copy.deepcopy(checkpoint.model)
    lesson = _lesson(checkpoint)
    head = model.get_output_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        head += noise * torch.randn(head.shape, generator=generator)
        return float(lesson.distance(model, collate(lesson.rows, indices, torch.device("cpu"))))


def test_an_unchanged_model_is_at_distance_zero(llama: Checkpoint) -> None:
    """The divergence from a model's own predictions is zero, in any row order."""
    assert _distance(llama, [1, 0]) == pytest.approx(0.0, abs=1e-4)


def test_a_changed_model_is_further_away(llama: Checkpoint) -> None:
    """Other predictions are at a positive distance, more so the more they differ."""
    assert 0 < _distance(llama, [0, 1], noise=0.02) < _distance(llama, [0, 1], noise=0.1)


def test_an_antibody_is_held_to_its_clean_row(llama: Checkpoint) -> None:
    """A trigger that changes the predictions is at a distance, unlike the same row without."""
    assert _distance(llama, [2, 3]) > 1e-3 > _distance(llama, [0, 1])
