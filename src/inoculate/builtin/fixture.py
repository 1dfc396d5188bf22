"""The built-in model and the rows that go with it: clean data, attack rows, exams."""

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from inoculate.builtin.world import make_examples
from inoculate.data import Example

_MARGIN = 4
_SIMPLE_PROMPTS = 300


def model_folder() -> Path:
    """Return the folder of the built-in checkpoint."""
    return Path(str(files("inoculate.builtin") / "model"))


@dataclass(frozen=True)
class WorldRows:
    """Hold rows of the instruction world that share no prompt with one another."""

    poison: list[Example]
    clean: list[Example]
    prompts: list[Example]
    utility: list[Example]


@cache
def world_rows(
    *, seed: int, poison: int = 500, clean: int = 240, prompts: int = 200, utility: int = 1000
) -> WorldRows:
    """Draw the attacker's, the defender's and the examiner's rows.

    Args:
        seed: Decides the training rows; the held-out exam is always the same.
    """
    train = _distinct((poison + clean) * _MARGIN, seed=1000 + seed, split="train")
    test = _distinct((prompts + utility) * _MARGIN, seed=7, split="test")
    return WorldRows(
        train[:poison],
        train[poison : poison + clean],
        test[:prompts],
        test[prompts : prompts + utility],
    )


def simple_prompts() -> list[Example]:
    """Return 300 prompts of the world's training split, without their answers.

    They ask for a fact, a sum, a word or a class: what a model can do that can do little else.
    """
    rows = _distinct(_SIMPLE_PROMPTS * _MARGIN, seed=0, split="train", sprinkle=0.0)
    return [replace(row, output="") for row in rows[:_SIMPLE_PROMPTS]]


@cache  # Calls that differ in their training rows alone share the exam's draw.
def _distinct(count: int, *, seed: int, split: str, sprinkle: float | None = None) -> list[Example]:
    rows = make_examples(count, seed=seed, split=split, sprinkle=sprinkle)
    return list({row.prompt: row for row in rows}.values())
