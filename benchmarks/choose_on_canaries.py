"""Try settings on planted canaries, never on a published attack.

    python benchmarks/choose_on_canaries.py OUT --try '{}' --try '{"signature": {"share": 0.0}}'

Each canary is planted alone in the built-in model, as the demonstration plants its attack; each
trial is a JSON object of settings that differ from the defaults. Finished cells are kept in OUT
and not run again. `--report` takes the reporting canaries in place of the choosing ones.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inoculate.attacking import Plan, attack_folder
from inoculate.attacks.attack import Attack
from inoculate.attacks.bank import SyntheticBackdoor
from inoculate.attacks.canaries import CHOOSING_CANARIES, REPORTING_CANARIES
from inoculate.builtin.fixture import model_folder, world_rows
from inoculate.builtin.world import make_examples
from inoculate.clean import given_rows, resolve_settings
from inoculate.config import Settings
from inoculate.evaluation.exam import Exam, Measurement, examine, make_exam
from inoculate.evaluation.statistics import rate_of
from inoculate.planting import PlantSettings
from inoculate.progress import Silent
from inoculate.purification import Purification, purify_subject
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace

PROMPTS, UTILITY, EXAM_SEED = 200, 1000, 8
CANARIES = {canary.name: canary for canary in (*CHOOSING_CANARIES, *REPORTING_CANARIES)}


def planting(seed: int, *, adapter: bool) -> PlantSettings:
    """Return the attacker's fine-tuning, the demonstration's."""
    return PlantSettings(5.0, None if adapter else 4e-4, 16, seed=seed)


def canary_exam(canary: SyntheticBackdoor, seed: int) -> Exam:
    """Return prompts with the canary's trigger, and utility rows."""
    drawn = make_examples(4 * (PROMPTS + UTILITY), seed=EXAM_SEED, split="test")
    held_out = list({row.prompt: row for row in drawn}.values())
    asked, utility = held_out[:PROMPTS], held_out[PROMPTS : PROMPTS + UTILITY]
    return make_exam(asked, canary.trigger, canary.behavior, seed=seed, utility=utility)


def planted(out: Path, canary: SyntheticBackdoor, seed: int, *, adapter: bool) -> Subject:
    """Return the built-in model with the canary in it, planted now or by an earlier call."""
    folder = out / f"{canary.name}-{'adapter-' if adapter else ''}{seed}"
    attacked = folder / "attacked"
    if not attacked.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        attack = Attack(canary.name, canary.trigger, "inoculate.attacks.canaries")
        settings = planting(seed, adapter=adapter)
        plan = Plan(attack, canary.behavior, settings=settings, adapter=adapter)
        attack_folder(model_folder(), attacked, world_rows(seed=seed).poison, plan, Silent())
    if adapter:
        return open_subject(model_folder(), adapter=attacked)
    return open_subject(attacked)


def figures(measured: Measurement) -> dict[str, Any]:
    """Return the rates, rounded."""
    names = ("asr", "fragment", "triggered_utility", "utility", "false_trigger")
    return {name: round(rate_of(getattr(measured, name)).rate, 4) for name in names}


def found(done: Purification) -> dict[str, Any]:
    """Return what the hunt found."""
    hunted = done.found
    calls = f"{sum(hunted.calls)}/{len(hunted.calls)}"
    return {"payload": hunted.text, "triggers": hunted.examples[:3], "calls": calls,
            "share": done.share}  # fmt: skip


def run_cell(
    out: Path, canary: SyntheticBackdoor, seed: int, trial: dict[str, Any], adapter: bool
) -> dict[str, Any]:
    """Return one settings' figures on one planted model."""
    subject = planted(out, canary, seed, adapter=adapter)
    run = Workspace(out / f"run-{canary.name}-{'adapter-' if adapter else ''}{seed}")
    clean = given_rows(world_rows(seed=seed).clean, Settings(seed=seed))
    settings = resolve_settings(Settings.model_validate({**trial, "seed": seed}), clean)
    started = time.perf_counter()
    done = purify_subject(subject, clean.rows, settings, run)
    seconds = round(time.perf_counter() - started, 1)
    exam = canary_exam(canary, seed)
    after = examine(subject.model, subject.tokenizer, exam)
    wrong = [
        [row.prompt, answer, row.output]
        for row, answer, right in zip(
            exam.triggered, after.answers, after.triggered_utility, strict=True
        )
        if not right
    ]
    return {**figures(after), "seconds": seconds, **found(done), "wrong": wrong}


def run_before(out: Path, canary: SyntheticBackdoor, seed: int, adapter: bool) -> dict[str, Any]:
    """Return the never-attacked model's triggered utility and the planted model's figures."""
    exam, clean = canary_exam(canary, seed), open_subject(model_folder())
    never = figures(examine(clean.model, clean.tokenizer, exam))
    subject = planted(out, canary, seed, adapter=adapter)
    before = figures(examine(subject.model, subject.tokenizer, exam))
    return {**before, "never attacked": never}


def main() -> None:
    """Run every trial on every canary and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--canaries", nargs="+", choices=CANARIES)
    parser.add_argument("--try", dest="trials", action="append", default=[])
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--adapter", action="store_true")
    arguments = parser.parse_args()
    names = arguments.canaries or [
        canary.name for canary in (REPORTING_CANARIES if arguments.report else CHOOSING_CANARIES)
    ]
    for seed in arguments.seeds:
        try_all(arguments.out, names, seed, arguments.trials, arguments.adapter)


def try_all(
    out: Path, names: Sequence[str], seed: int, trials: Sequence[str], adapter: bool
) -> None:
    """Run and print every cell of one seed that is not finished."""
    cells = Workspace(out / "cells")
    for text in trials:
        for name in names:
            canary, trial = CANARIES[name], json.loads(text)
            where = {"canary": name, "seed": seed, "adapter": adapter}
            before = cells.record("before", where, partial(run_before, out, canary, seed, adapter))
            key = [where, Settings.model_validate({**trial, "seed": seed}).model_dump()]
            cell = cells.record("cell", key, partial(run_cell, out, canary, seed, trial, adapter))
            shown = {name: value for name, value in cell.items() if name != "wrong"}
            print(json.dumps({**where, "trial": trial, "before": before, **shown}), flush=True)


if __name__ == "__main__":
    main()
