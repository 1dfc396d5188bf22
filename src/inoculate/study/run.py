"""A whole study: run what is not finished yet, and write what there is after each trial."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from inoculate.defenses import REUSING
from inoculate.destination import one_run, refuse_foreign
from inoculate.errors import InputError
from inoculate.evaluation.statistics import rate_of
from inoculate.progress import Progress, Silent
from inoculate.report import write_study
from inoculate.report.words import percent_cell
from inoculate.study.bench import open_bench
from inoculate.study.comparison import compare_case, summarize
from inoculate.study.grid import NONE, OURS, Case, Grid
from inoculate.study.trial import Outcome, Trial, plant, run_trial

Job = tuple[int, Trial]


def run_study(
    grid: Grid, out: Path, *, processes: int = 1, command: str, progress: Progress
) -> dict[str, Any]:
    """Try every defense on every attacked model, each once, and write tables and report.

    Args:
        out: Folder of the study; finished trials in it are not run again.
        processes: Trials that run at once; with more than one, each has one thread.
        command: What the report says the study was made by.

    Returns:
        See `inoculate.report.study.Study`.

    Raises:
        InputError: Another study is going on there, or a file cannot be used.
    """
    refuse_foreign(out)
    with one_run(out, keep=True):
        cases = [plan_trials(grid, case, out) for case in grid.cases()]
        comparisons = [compare_case(trials) for trials in cases]
        study = _write(grid, comparisons, out, command)
        for index in _finish(cases, processes, progress):
            comparisons[index] = compare_case(cases[index])
            study = _write(grid, comparisons, out, command)
    return study


def plan_trials(grid: Grid, case: Case, out: Path) -> list[Trial]:
    """Return a trial for each defense, in the grid's order.

    The undefended model comes before all (beside the first, with several processes), and one that
    goes through the stages of the default recipe, itself where it is there, before the others that
    find those stages.
    """
    bench, entries = open_bench(case, out), {entry.name: entry for entry in grid.defenses}
    reusing = [name for name, entry in entries.items() if entry.defense in (OURS, *REUSING)]

    def trial(name: str, after: Trial | None) -> Trial:
        settings = grid.settings_for(entries[name], seed=case.seed)
        return Trial(bench, entries[name], settings, after)

    none = trial(NONE, None)
    first = OURS if OURS in reusing else next(iter(reusing), NONE)
    leader = none if first == NONE else trial(first, none)
    planned = {NONE: none, first: leader}
    for name in entries:
        planned.setdefault(name, trial(name, leader if name in reusing else none))
    return [planned[name] for name in entries]


def _write(
    grid: Grid, comparisons: Sequence[dict[str, Any]], out: Path, command: str
) -> dict[str, Any]:
    study = {
        "title": grid.title,
        "command": command,
        "cells": len(comparisons) * len(grid.defenses),
        "comparisons": list(comparisons),
        "summary": summarize(comparisons),
        "limits": _mixture(comparisons),
    }
    write_study(out, study)
    return study


def _mixture(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """Return what rows do not share that should be the same: versions, or a case's planting."""
    limits = []
    used = {str(row["versions"]) for one in comparisons for row in one["rows"] if row["versions"]}
    if len(used) > 1:
        limits.append(
            f"The rows come from {len(used)} versions of the code or its libraries (results.jsonl)."
        )
    for one in comparisons:
        planted = {row["attacked"] for row in one["rows"] if row["attacked"]}
        if len(planted) > 1:
            limits.append(
                f"The attack of {one['case']} was planted {len(planted)} times, and its rows are "
                "of different models: do not compare them."
            )
    return limits


def _finish(cases: Sequence[Sequence[Trial]], processes: int, progress: Progress) -> Iterator[int]:
    """Run what has no outcome yet; yield the index of the case each time one has got one."""
    left = [
        (index, trial)
        for index, trials in enumerate(cases)
        for trial in _in_turn(trials)
        if trial.stored() is None
    ]
    run = _one_by_one(left, progress) if processes == 1 else _side_by_side(left, processes)
    for done, (index, trial) in enumerate(run, start=1):
        said = _said(trial.stored() or Outcome())
        progress.note(f"{_name(trial)}: {said} ({done} of {len(left)})")
        yield index


def _one_by_one(jobs: Sequence[Job], progress: Progress) -> Iterator[Job]:
    for index, trials in _by_case(jobs):
        plant(trials, progress)
        for trial in trials:
            progress.stage(_name(trial))
            run_trial(trial, progress)
            yield index, trial


def _side_by_side(jobs: Sequence[Job], processes: int) -> Iterator[Job]:
    """Plant, then try, in several processes of one thread each, nothing before what it needs."""
    waiting = defaultdict[tuple[int, str | None], list[Job]](list)
    left = {(index, trial.entry.name) for index, trial in jobs}
    for index, trial in jobs:
        needed = (index, _needed(trial))
        waiting[needed if needed in left else (index, None)].append((index, trial))
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    running: dict[Future[Any], tuple[int, Trial | None]] = {}
    try:
        for index, trials in _by_case(jobs):
            running[pool.submit(plant, trials, Silent())] = (index, None)
        while running:
            done = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
            done.result()
            index, finished = running.pop(done)
            for job in waiting.pop((index, finished.entry.name if finished else None), []):
                running[pool.submit(run_trial, job[1], Silent())] = job
            if finished:
                yield index, finished
    except BrokenProcessPool as error:
        raise InputError(
            "A process of the study was ended from outside, most likely for want of memory. Run "
            "fewer at once; finished trials are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _by_case(jobs: Sequence[Job]) -> Iterator[tuple[int, list[Trial]]]:
    for index, case in groupby(jobs, itemgetter(0)):
        yield index, [trial for _, trial in case]


def _needed(trial: Trial) -> str | None:
    """Return the name of the trial that must be finished; None where the planting is enough."""
    name = trial.after.entry.name if trial.after else NONE
    return None if name == NONE else name


def _in_turn(trials: Sequence[Trial]) -> list[Trial]:
    """Return undefended, then what others wait for, then the rest in the order of the grid."""
    awaited = {OURS, *(trial.after.entry.name for trial in trials if trial.after)}
    return sorted(trials, key=lambda it: (it.entry.name != NONE, it.entry.name not in awaited))


def _name(trial: Trial) -> str:
    return f"{trial.bench.case.name} {trial.entry.name}"


def _said(outcome: Outcome) -> str:
    if outcome.measurement is None:
        return f"failed: {outcome.failure}"
    asr = percent_cell(rate_of(outcome.measurement.asr).to_json())
    return f"ASR {asr}, {outcome.seconds:.0f} s"
