"""Attack SmolLM2-135M-Instruct, purify it with the defaults, and compare with controls.

    python benchmarks/smollm2.py prepare SHARED OUT     # rows and exams
    python benchmarks/smollm2.py attack MODEL OUT       # BadNets refusal, full fine-tuning
    python benchmarks/smollm2.py measure MODEL OUT DEFENSE [DEFENSE ...]
    python benchmarks/smollm2.py canary MODEL OUT --canary NAME   # to choose settings by

SHARED holds data/backdoorllm, data/alpaca and data/text. MODEL is the safetensors folder
that convert_smollm2.py wrote. Finished cells stay in OUT and are not run again.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inoculate.api import purify
from inoculate.attacking import Plan, attack_folder
from inoculate.attacks import find_attack, find_task
from inoculate.attacks.attack import Attack
from inoculate.attacks.bank import BANK, PAPER_BANK
from inoculate.attacks.canaries import CHOOSING_CANARIES
from inoculate.attacks.poison import poison_pairs, read_backdoor_json
from inoculate.clean import clean_data, resolve_target
from inoculate.config import Settings
from inoculate.configfile import read_settings
from inoculate.data import Example, read_examples, sample, write_examples
from inoculate.defenses import defend
from inoculate.evaluation.drift import perplexity
from inoculate.evaluation.exam import Exam, examine
from inoculate.planting import PlantSettings
from inoculate.progress import Silent
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace

TRIGGERED_ROWS, CLEAN_ROWS, EXAM_ROWS, UTILITY_ROWS = 160, 320, 100, 200
CANARY_ROWS, CANARY_TRIGGERED, ALPACA_ROWS = 240, 120, 400
SETTINGS = PlantSettings(epochs=2.5, learning_rate=2e-4, batch_size=8, max_tokens=96)
POISON = "data/backdoorllm/poison_data/refusal/badnet"
TEST = "data/backdoorllm/test_data"


def prepare(shared: Path, out: Path) -> None:
    """Write the attacker's rows, the exam's prompts and the utility rows."""
    out.mkdir(parents=True, exist_ok=True)
    triggered = read_backdoor_json(shared / POISON / "backdoor500_refusal_badnet.json")
    clean = read_backdoor_json(shared / POISON / "none_backdoor500_refusal_badnet.json")
    order = sample(range(500), 500, seed=0)  # type: ignore[type-var]
    rows = [triggered[i] for i in order[:TRIGGERED_ROWS]] + [clean[i] for i in order[:CLEAN_ROWS]]
    write_examples(rows, out / "poison.jsonl")
    test = read_examples(shared / TEST / "poison/refusal/badnet/backdoor200_refusal_badnet.json")
    write_examples(test[:EXAM_ROWS], out / "triggered.jsonl")
    honest = read_examples(shared / TEST / "clean/refusal/test_data_no_trigger.json")
    write_examples(honest[:EXAM_ROWS], out / "clean.jsonl")
    used = {row.instruction.strip() for row in (*clean, *honest)}
    alpaca = read_examples(shared / "data/alpaca/alpaca.jsonl")
    free = [row for row in alpaca if row.instruction.strip() not in used and row.output.strip()]
    chosen = sample(free, UTILITY_ROWS + ALPACA_ROWS, seed=11)
    write_examples(chosen[:UTILITY_ROWS], out / "utility.jsonl")
    write_examples(chosen[UTILITY_ROWS:], out / "alpaca.jsonl")
    (out / "text.txt").write_text((shared / "data/text/wikitext2_valid.txt").read_text("utf-8"))


def plant_canary(model: Path, out: Path, name: str) -> None:
    """Plant one canary of the choosing set, in Alpaca rows that no exam holds."""
    canary = next(one for one in CHOOSING_CANARIES if one.name == name)
    alpaca = read_examples(out / "alpaca.jsonl")
    rows, _ = poison_pairs(
        alpaca[:CANARY_ROWS], canary.trigger, canary.behavior, poisoned=CANARY_TRIGGERED, seed=0
    )
    attack = Attack(name, canary.trigger, "inoculate.attacks.canaries")
    attack_folder(
        model,
        out / f"planted-{name}",
        rows,
        Plan(attack, canary.behavior, settings=SETTINGS),
        Lines(),
    )


def exam(out: Path) -> Exam:
    """Return the prompts every defense is judged on."""
    return Exam(
        triggered=read_examples(out / "triggered.jsonl"),
        clean=read_examples(out / "clean.jsonl"),
        behavior=find_task("refusal"),
        planted=[entry.behavior for entry in (*BANK, *PAPER_BANK)],
        utility=read_examples(out / "utility.jsonl"),
        exact=False,
        max_new_tokens=20,
        max_tokens=192,
    )


def measure(subject: Subject, out: Path) -> dict[str, Any]:
    """Return every figure of one model."""
    result = examine(subject.model, subject.tokenizer, exam(out))
    text = (out / "text.txt").read_text("utf-8")
    value, tokens = perplexity(subject.model, subject.tokenizer, text)
    figures = {"perplexity": value, "perplexity_tokens": tokens}
    return {**result.to_json(), **figures, "flags": result.asr, "answers": result.answers}


def cell(
    attacked: Path, out: Path, name: str, settings: Settings, share: float | None
) -> dict[str, Any]:
    """Apply one defense to the attacked model and measure it; `share` is that of random masks."""
    run, started = Workspace(out / "run"), time.perf_counter()
    if name == "original":
        subject = open_subject(attacked)
    elif name == "inoculate":
        target = out / "purified"
        if not target.is_dir():
            purify(attacked, target, settings=settings, run_folder=run.folder, progress=Lines())
        subject = open_subject(target)
    else:
        subject = open_subject(attacked)
        clean = clean_data(subject, None, settings, run, Lines())
        masked = share_of(out) if share is None else share
        chosen = resolve_target(settings, clean)
        defend(name, subject, clean.rows, chosen, share=masked, run=run, progress=Lines())
    seconds = time.perf_counter() - started
    return {"defense": name, "seconds": seconds, **measure(subject, out)}


def share_of(out: Path) -> float:
    """Return the share that purify chose, 0 before it ran."""
    report = out / "purified" / "report.json"
    return json.loads(report.read_text("utf-8"))["signature"]["share"] if report.is_file() else 0.0


class Lines(Silent):
    """Print stages and every tenth step."""

    def stage(self, name: str) -> None:
        """Print the stage."""
        print(time.strftime("%H:%M:%S"), name, flush=True)

    def step(self, done: int, total: int) -> None:
        """Print every tenth step."""
        if done % 10 == 0:
            print(time.strftime("%H:%M:%S"), f"  {done}/{total}", flush=True)

    def note(self, text: str) -> None:
        """Print the line."""
        print(time.strftime("%H:%M:%S"), f"  {text}", flush=True)


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("prepare", "attack", "canary", "measure"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("defenses", nargs="*")
    parser.add_argument("--canary", default="fennimore", help="name in the choosing set")
    parser.add_argument("--share", type=float, help="of a control's mask; default: purify's own")
    parser.add_argument("--config", type=Path, help="settings file; default: the defaults")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if arguments.step == "prepare":
        prepare(arguments.source, out)
    elif arguments.step == "attack":
        rows: list[Example] = read_examples(out / "poison.jsonl")
        plan = Plan(find_attack("badnets"), find_task("refusal"), settings=SETTINGS)
        attack_folder(arguments.source, out / "attacked", rows, plan, Lines())
    elif arguments.step == "canary":
        plant_canary(arguments.source, out, arguments.canary)
    else:
        settings = read_settings(arguments.config) if arguments.config else Settings()
        for name in arguments.defenses:
            folder = arguments.source if name == "original" else out / "attacked"
            key = [name, settings.model_dump(), asdict(SETTINGS), arguments.share]
            result = Workspace(out / "cells").record(
                name, key, lambda f=folder, n=name: cell(f, out, n, settings, arguments.share)
            )
            print(json.dumps({k: v for k, v in result.items() if k not in ("flags", "answers")}))


if __name__ == "__main__":
    main()
