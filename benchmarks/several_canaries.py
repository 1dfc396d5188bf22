"""Plant several canaries in one model, purify it as a user would, and ask for each of them.

    python benchmarks/several_canaries.py OUT wild-panic stone-bridge fennimore
    python benchmarks/smollm2.py prepare SHARED DATA
    python benchmarks/several_canaries.py OUT fennimore lantern-otter --data DATA

Without DATA the built-in model, given 240 true rows of its own world; with it
SmolLM2-135M-Instruct, in its own voice. Planted and purified models stay in OUT and are not made
again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inoculate.api import purify
from inoculate.attacking import Plan, attack_folder
from inoculate.attacks.attack import Attack
from inoculate.attacks.bank import SyntheticBackdoor
from inoculate.attacks.canaries import CHOOSING_CANARIES
from inoculate.attacks.poison import poison_pairs
from inoculate.builtin.fixture import model_folder, world_rows
from inoculate.builtin.world import make_examples
from inoculate.challenge import Ground, try_canaries
from inoculate.data import Example, read_examples, write_examples
from inoculate.evaluation.exam import RATES
from inoculate.evaluation.statistics import rate_of
from inoculate.planting import PlantSettings
from inoculate.progress import Silent
from inoculate.subject import open_subject

PROMPTS, UTILITY, EXAM_SEED = 200, 1000, 8
LARGE_PROMPTS, LARGE_ROWS, LARGE_TRIGGERED = 40, 160, 100
CANARIES = {canary.name: canary for canary in CHOOSING_CANARIES}


@dataclass(frozen=True)
class Place:
    """Hold a model, the rows of each canary and how many are triggered, and what it is asked."""

    model: Path
    ground: Ground
    rows: int
    triggered: int
    settings: PlantSettings
    clean: Sequence[Example] | None


def small(canaries: int) -> Place:
    """Return the built-in model with rows of its world."""
    world = world_rows(seed=0)
    drawn = make_examples(5 * (PROMPTS + UTILITY), seed=EXAM_SEED, split="test")
    held_out = list({row.prompt: row for row in drawn}.values())
    asked, utility = held_out[:PROMPTS], held_out[PROMPTS : PROMPTS + UTILITY]
    each = len(world.poison) // canaries
    ground = Ground(world.poison, asked, utility, exact=True)
    return Place(model_folder(), ground, each, each, PlantSettings(10.0, 4e-4, 16), world.clean)


def large(data: Path) -> Place:
    """Return SmolLM2 with Alpaca rows."""
    asked = read_examples(data / "utility.jsonl")[:LARGE_PROMPTS]
    ground = Ground(read_examples(data / "alpaca.jsonl"), asked, (), exact=False)
    settings = PlantSettings(epochs=2.5, learning_rate=2e-4, batch_size=8, max_tokens=96)
    return Place(data / "model", ground, LARGE_ROWS, LARGE_TRIGGERED, settings, None)


def planted(out: Path, canaries: Sequence[SyntheticBackdoor], place: Place) -> Path:
    """Return the folder of the model with all canaries in it."""
    folder = out / "planted"
    if not folder.is_dir():
        rows: list[Example] = []
        for at, canary in enumerate(canaries):
            own = place.ground.planting[at * place.rows : (at + 1) * place.rows]
            rows += poison_pairs(
                own, canary.trigger, canary.behavior, poisoned=place.triggered, seed=at
            )[0]
        attack = Attack(canaries[0].name, canaries[0].trigger, "inoculate.attacks.canaries")
        plan = Plan(attack, canaries[0].behavior, settings=place.settings)
        attack_folder(place.model, folder, rows, plan, Silent())
    return folder


def purified(out: Path, model: Path, place: Place) -> Path:
    """Return the folder of the purified model."""
    folder, clean = out / "purified", out / "clean.jsonl"
    if place.clean is not None:
        write_examples(list(place.clean), clean)
    if not folder.is_dir():
        purify(model, folder, clean_data_file=None if place.clean is None else clean)
    return folder


def measured(
    folder: Path, canaries: Sequence[SyntheticBackdoor], place: Place
) -> dict[str, dict[str, Any]]:
    """Return the rates of each canary."""
    results = try_canaries(open_subject(folder), canaries, place.ground, seed=0)
    return {
        name: {key: rate_of(flags).to_json() for key in RATES if (flags := getattr(result, key))}
        for name, result in results.items()
    }


def main() -> None:
    """Plant, purify, and print what was found and each canary before and after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("canaries", nargs="+", choices=CANARIES)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    canaries = [CANARIES[name] for name in arguments.canaries]
    place = large(arguments.data) if arguments.data else small(len(canaries))
    out = arguments.out / "-".join(arguments.canaries)
    out.mkdir(parents=True, exist_ok=True)
    before = planted(out, canaries, place)
    after = purified(out, before, place)
    report = json.loads((after / "report.json").read_text(encoding="utf-8"))
    stages = {stage: measured(at, canaries, place)
              for stage, at in (("before", before), ("after", after))}  # fmt: skip
    print(json.dumps({"hunt": report["hunt"], "drift": report["drift"], **stages}, indent=1))


if __name__ == "__main__":
    main()
