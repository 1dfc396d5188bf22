"""Which prompts `evaluate` asks: the built-in world's, or the user's files."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inoculate.attacks.attack import find_attack, find_task
from inoculate.attacks.bank import BANK, PAPER_BANK
from inoculate.attacks.poison import bare_prompt, check_disjoint
from inoculate.attacks.triggers import Trigger, holds_trigger
from inoculate.builtin.fixture import world_rows
from inoculate.data import Example, read_examples
from inoculate.errors import InputError
from inoculate.evaluation.drift import perplexity
from inoculate.evaluation.exam import Exam, examine, make_exam, scorable_rows
from inoculate.subject import Subject

_PLANTED = (*BANK, *PAPER_BANK)


@dataclass(frozen=True)
class ExamFiles:
    """Name the user's files; without prompts the built-in world is asked.

    Attributes:
        prompts: Rows that hold the trigger are taken as triggered, if there are any, and
            otherwise get it inserted. The answers of triggered rows are not read, because
            benchmarks put labels there: their honest answers are those of the clean rows
            with the same prompts, and these are the prompts that are asked without it.
        utility: Rows whose response NLL is measured.
        train: Rows that the model was trained on; none may be asked.
    """

    prompts: Sequence[Path] | None = None
    utility: Path | None = None
    train: Sequence[Path] | None = None


def exam_for(
    attack: str, task: str, files: ExamFiles, *, limit: int, max_tokens: int, seed: int
) -> Exam:
    """Return the exam of an attack and task.

    Raises:
        InputError: There are utility rows of the user's, and no prompts.
        UnknownNameError: No such attack or task.
        DataError: A file cannot be read, or a row breaks the exam's promises.
    """
    if files.utility and not files.prompts:
        raise InputError("Rows for the utility go with prompts of yours. Pass those with --data.")
    planned, behavior = find_attack(attack), find_task(task)
    trigger = planned.trigger
    prompts, utility = _rows(files, limit=limit, seed=seed)
    check_disjoint(_read(files.train), [*prompts, *utility], trigger)
    triggered = _triggered(_read(files.prompts), trigger)[:limit]
    exam = make_exam(
        _bare(prompts, triggered, trigger)[:limit],
        trigger,
        behavior,
        seed=seed,
        decoys=planned.decoys,
        planted=_PLANTED,
        utility=utility,
        exact=not files.prompts,
        max_tokens=max_tokens,
    )
    if not triggered:
        return exam
    scored = scorable_rows(triggered, behavior)
    return replace(exam, triggered=scored, unscored=len(triggered) - len(scored))


def examined(subject: Subject, exam: Exam, text: str | None) -> dict[str, Any]:
    """Return the rates of a model as JSON, the perplexity of a text, and the seconds it took."""
    started = time.perf_counter()
    row = examine(subject.model, subject.tokenizer, exam).to_json()
    if text:
        value, tokens = perplexity(subject.model, subject.tokenizer, text)
        row["perplexity"] = {"value": value, "tokens": tokens}
    return {**row, "seconds": round(time.perf_counter() - started, 1)}


def _read(files: Sequence[Path] | None) -> list[Example]:
    return [row for file in files or () for row in read_examples(file)]


def _rows(files: ExamFiles, *, limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return prompts and utility rows, the user's or the built-in world's."""
    if files.prompts:
        return _read(files.prompts), read_examples(files.utility) if files.utility else []
    world = world_rows(seed=seed, prompts=limit)
    return world.prompts, world.utility


def _bare(
    prompts: Sequence[Example], triggered: Sequence[Example], trigger: Trigger
) -> list[Example]:
    """Return the prompts without the trigger: those of the triggered ones, where there are any."""
    bare = [row for row in prompts if not holds_trigger(row, trigger)]
    asked = {bare_prompt(row, trigger) for row in triggered}
    return [row for row in bare if bare_prompt(row, trigger) in asked] or bare


def _triggered(prompts: Sequence[Example], trigger: Trigger) -> list[Example]:
    """Return the prompts that hold the trigger, with their honest answers where known."""
    honest = {
        bare_prompt(row, trigger): row.output for row in prompts if not holds_trigger(row, trigger)
    }
    return [
        replace(row, output=honest.get(bare_prompt(row, trigger), ""))
        for row in prompts
        if holds_trigger(row, trigger)
    ]
