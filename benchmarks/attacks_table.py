"""Attack the built-in model in every published way, purify each with the defaults, measure.

    python benchmarks/attacks_table.py OUT [--attacks a,b] [--tasks t] [--seeds 0] [--adapter]
        [--rate 0.05] [--defenses none,inoculate,crow]
    python benchmarks/attacks_table.py OUT --report

One folder for each cell, as `inoculate demo` leaves it; finished cells are not run again, so
several processes may share OUT if their cells differ. `--report` prints a Markdown table.
"""

import argparse
import itertools
import json
from pathlib import Path

import torch

from inoculate.attacks import BENCHMARK_ATTACKS
from inoculate.config import Settings
from inoculate.console import percent_cell
from inoculate.demo import demo_plan, prepare, run_defense
from inoculate.evaluation.exam import RATES
from inoculate.progress import Silent

DEFENSES = "none,inoculate"


def run_cell(
    out: Path, attack: str, task: str, seed: int, *, adapter: bool, rate: float, defenses: list[str]
) -> None:
    """Attack, purify, measure one cell and write its JSON."""
    share = "" if rate == 0.5 else f"-{rate:g}"
    name = f"{attack}-{task}{share}-{'adapter' if adapter else 'full'}-{seed}"
    plan = demo_plan(attack, task, seed=seed, adapter=adapter, rate=rate)
    bench = prepare(out / name, plan, Settings(seed=seed), Silent())
    for defense in defenses:
        measured, seconds = run_defense(bench, defense)
        row = {"cell": name, "defense": defense, "seconds": seconds, **measured.to_json()}
        (out / f"{name}-{defense}.json").write_text(json.dumps(row), encoding="utf-8")
        print(name, defense, {one: percent_cell(row[one]) for one in RATES}, flush=True)


def report(out: Path) -> None:
    """Print every finished cell with its intervals."""
    print("| cell | defense | " + " | ".join(RATES) + " |")
    print("|---|---|" + "--:|" * len(RATES))
    for path in sorted(out.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        cells = [percent_cell(row[rate]) for rate in RATES]
        print(f"| {row['cell']} | {row['defense']} | " + " | ".join(cells) + " |")


def main() -> None:
    """Run the chosen cells, or report the finished ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--attacks", default=",".join(BENCHMARK_ATTACKS))
    parser.add_argument("--tasks", default="refusal,sentiment")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--adapter", action="store_true")
    parser.add_argument("--rate", type=float, default=0.5, help="poisoned share of all rows")
    parser.add_argument("--defenses", default=DEFENSES, help="names of inoculate.defenses")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.out)
        return
    torch.set_num_threads(1)
    cells = itertools.product(
        arguments.seeds.split(","), arguments.tasks.split(","), arguments.attacks.split(",")
    )
    for seed, task, attack in cells:
        run_cell(
            arguments.out,
            attack,
            task,
            int(seed),
            adapter=arguments.adapter,
            rate=arguments.rate,
            defenses=arguments.defenses.split(","),
        )


if __name__ == "__main__":
    main()
