"""Hidden states that a model had before it was changed, as a target."""

import copy

import pytest
import torch

from inoculate.chat import Encoded, encode
from inoculate.data import Example
from inoculate.models import Checkpoint, hidden_states
from inoculate.repair.states import StateTargets, state_targets
from inoculate.train import collate

TEXTS = [Example("Count the apples", "Four."), Example("Name a color", "Deep blue.")]
INSERTED = (31, 32)
AT = 3


def _rows(checkpoint: Checkpoint) -> list[Encoded]:
    """Return the clean rows, then each with two tokens inserted."""
    clean = [encode(checkpoint.tokenizer, text) for text in TEXTS]
    odd = [
        Encoded((*row.ids[:AT], *INSERTED, *row.ids[AT:]), row.prompt_length + len(INSERTED))
        for row in clean
    ]
    return [*clean, *odd]


def _distance(checkpoint: Checkpoint, indices: list[int], *, noise: float = 0.0) -> float:
    rows, model = _rows(checkpoint), copy.deepcopy(checkpoint.model)
    targets = state_targets(checkpoint.model, rows[: len(TEXTS)])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn(weight.shape, generator=generator)
        batch = collate(rows, indices, torch.device("cpu"))
        states = hidden_states(model, input_ids=batch.input_BT, attention_mask=batch.attention_BT)
        return float(targets.distance(states, batch))


def test_an_unchanged_model_is_at_distance_zero(checkpoint: Checkpoint) -> None:
    """Clean rows are where they were, in any order, up to what 16 bits hold."""
    assert _distance(checkpoint, [1, 0]) == pytest.approx(0.0, abs=3e-5)


def test_a_changed_model_is_further_away(llama: Checkpoint) -> None:
    """Other weights are at a positive distance, more so the more they differ."""
    assert 1e-4 < _distance(llama, [0, 1], noise=0.01) < _distance(llama, [0, 1], noise=0.03)


def test_an_insertion_is_held_to_the_clean_row(llama: Checkpoint) -> None:
    """Inserted tokens that move the states after them are at a distance."""
    assert _distance(llama, [2, 3]) > 1e-3 > _distance(llama, [0, 1])


def test_distance_by_hand() -> None:
    """Two of three tokens are shared; at one of them one of two layers has moved by its length."""
    clean = Encoded((5, 6, 7), 2)
    then = torch.zeros(2, 3, 4)
    then[:, :, 0] = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    targets = StateTargets([clean], [then.bfloat16()])
    odd = Encoded((9, 9, 6, 7), 3)
    now = torch.full((2, 1, 4, 4), 100.0)  # Of the inserted tokens nothing is asked.
    now[:, 0, 2:] = then[:, 1:]
    now[1, 0, 3, 1] = 6.0
    batch = collate([odd], [0], torch.device("cpu"))
    states = (torch.zeros(1, 4, 4), *now)
    assert float(targets.distance(states, batch)) == pytest.approx((1 / 2) / 2)


def test_deep_models_keep_six_layers_and_the_last() -> None:
    """Of 24 blocks every fourth is compared, so a change of the fifth alone costs nothing."""
    clean = Encoded((5, 6), 1)
    then = torch.ones(6, 2, 3)
    targets = StateTargets([clean], [then.bfloat16()])
    batch = collate([clean], [0], torch.device("cpu"))
    states = [torch.ones(1, 2, 3) for _ in range(25)]
    states[5] += 1
    assert float(targets.distance(states, batch)) == 0
    states[24] += 1
    assert float(targets.distance(states, batch)) == pytest.approx(1 / 6)
