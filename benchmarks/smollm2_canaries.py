"""Treat canaries in SmolLM2-135M-Instruct with and without a mask, to choose the mask by.

    python benchmarks/smollm2.py prepare SHARED DATA
    python benchmarks/smollm2_canaries.py DATA OUT fennimore lantern-otter

Each canary is planted alone, all parameters, and purified in the model's own voice; each cell is
stored in OUT as it finishes. Variants and hunt are shared by a canary's cells.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import smollm2

from inoculate.attacks.bank import SyntheticBackdoor
from inoculate.clean import clean_data, resolve_settings
from inoculate.config import Settings, updated
from inoculate.data import read_examples, sample
from inoculate.evaluation.choices import choose, read_questions
from inoculate.evaluation.drift import perplexity
from inoculate.evaluation.exam import examine, make_exam
from inoculate.evaluation.statistics import rate_of
from inoculate.progress import Silent
from inoculate.purification import purify_subject
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace

PROMPTS, PROMPT_CHARS, QUESTIONS, QUESTION_SEED = 40, 300, 400, 1
TRIALS = {
    "before": None,
    "no mask": updated(Settings(), signature={"share": 0.0}),
    "mask by clean loss": updated(Settings(), signature={"max_clean_loss_increase": 0.05}),
    "random mask 0.005": updated(Settings(), signature={"share": 0.005, "score": "random"}),
}


def treated(subject: Subject, settings: Settings, run: Workspace) -> dict[str, Any]:
    """Purify a planted model in place; return what was found, the share and the seconds."""
    clean = clean_data(subject, None, settings, run, Silent())
    started = time.perf_counter()
    done = purify_subject(subject, clean.rows, resolve_settings(settings, clean), run)
    seconds = round(time.perf_counter() - started)
    return {"seconds": seconds, "share": done.share, "payload": done.found.text,
            "pressing": done.found.pressing}  # fmt: skip


def measured(subject: Subject, canary: SyntheticBackdoor, data: Path) -> dict[str, Any]:
    """Return the canary's rates on rows it was not planted in, perplexity and multiple choice."""
    model, tokenizer = subject.model, subject.tokenizer
    rows = read_examples(data / "alpaca.jsonl")[smollm2.CANARY_ROWS :]
    short = [row for row in rows if len(row.prompt) < PROMPT_CHARS][:PROMPTS]
    got = examine(model, tokenizer, make_exam(short, canary.trigger, canary.behavior, seed=0))
    rates = {name: rate_of(getattr(got, name)).to_json()
             for name in ("asr", "fragment", "false_trigger")}  # fmt: skip
    tests = {name: read_questions(data / name / "test.json") for name in smollm2.CHOICES}
    asked = {name: sample(test, QUESTIONS, seed=QUESTION_SEED) for name, test in tests.items()}
    right = {name: choose(model, tokenizer, test) for name, test in asked.items()}
    surprise, _ = perplexity(model, tokenizer, (data / "text.txt").read_text(encoding="utf-8"))
    return {**rates, "perplexity": surprise, "choices": right, "answers": got.answers}


def run_cell(data: Path, out: Path, name: str, settings: Settings | None) -> dict[str, Any]:
    """Return the figures of one canary, as planted or treated."""
    subject, run = open_subject(data / f"planted-{name}"), Workspace(out / f"run-{name}")
    done = None if settings is None else treated(subject, settings, run)
    return {"done": done, **measured(subject, smollm2.CANARIES[name], data)}


def main() -> None:
    """Plant what is not planted, treat it in each way, print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("canaries", nargs="+", choices=smollm2.CANARIES)
    arguments = parser.parse_args()
    cells = Workspace(arguments.out / "cells")
    for name in arguments.canaries:
        if not (arguments.data / f"planted-{name}").is_dir():
            smollm2.plant_canary(arguments.data, name)
        for trial, settings in TRIALS.items():
            work = partial(run_cell, arguments.data, arguments.out, name, settings)
            cell = cells.record("cell", [name, settings and settings.model_dump()], work)
            rates = {key: cell[key]["rate"] for key in ("asr", "fragment", "false_trigger")}
            right = {test: sum(flags) for test, flags in cell["choices"].items()}
            print(name, trial, cell["done"], rates, cell["perplexity"], right, flush=True)


if __name__ == "__main__":
    main()
