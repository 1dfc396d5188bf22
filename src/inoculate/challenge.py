"""The challenge: canary backdoors planted in a copy, purified, measured.

It shows what the treatment does to backdoors whose triggers it does not know. It is the
only ground on which settings are chosen. It is evidence of the treatment, not of the
patient: it does not bound the success rate of a hidden backdoor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from inoculate.attacks.bank import SyntheticBackdoor
from inoculate.attacks.canaries import REPORTING_CANARIES
from inoculate.attacks.poison import poison_pairs
from inoculate.clean import CleanData, clean_data, resolve_settings
from inoculate.config import Settings
from inoculate.data import Example
from inoculate.errors import AttackError
from inoculate.evaluation.exam import Measurement, examine, make_exam
from inoculate.planting import PlantSettings, plant
from inoculate.progress import Progress, Silent
from inoculate.purification import purify_subject
from inoculate.subject import Subject, open_subject
from inoculate.trainable import restore, snapshot
from inoculate.variants import data_key
from inoculate.workspace import Workspace

CANARY_PLANT = PlantSettings(epochs=4.0, batch_size=16, touch="all")
MIN_ASR = 0.9
_ROUNDS = 4


@dataclass(frozen=True)
class Ground:
    """Hold the rows of a challenge: what canaries are planted with and tried on."""

    planting: Sequence[Example]
    trying: Sequence[Example]
    utility: Sequence[Example]
    exact: bool


def plant_canaries(
    subject: Subject,
    canaries: Sequence[SyntheticBackdoor],
    ground: Ground,
    *,
    seed: int,
    progress: Progress,
) -> dict[str, Measurement]:
    """Train all canaries in at once, in place, until each fires; return their exams.

    Raises:
        AttackError: A canary stayed below an ASR of 0.9.
    """
    rows = canary_rows(canaries, ground.planting, seed=seed)
    before: dict[str, Measurement] = {}
    for round_ in range(_ROUNDS):
        plant(subject, rows, replace(CANARY_PLANT, seed=seed + round_), progress)
        before = try_canaries(subject, canaries, ground, seed=seed)
        if all(_share(result.asr) >= MIN_ASR for result in before.values()):
            return before
    weakest = min(before, key=lambda name: _share(before[name].asr))
    raise AttackError(
        f"The canary {weakest!r} fires on {_share(before[weakest].asr):.0%} of its prompts, below "
        f"{MIN_ASR:.0%}, so a treatment cannot be judged by it. Pass more clean data."
    )


def canary_rows(
    canaries: Sequence[SyntheticBackdoor], rows: Sequence[Example], *, seed: int
) -> list[Example]:
    """Return every row clean, and its share of rows triggered for each canary in turn."""
    mixture: list[Example] = []
    part = len(rows) // len(canaries)
    for index, canary in enumerate(canaries):
        own = rows[index * part : (index + 1) * part]
        mixture += poison_pairs(
            own, canary.trigger, canary.behavior, poisoned=len(own), seed=seed + index
        )[0]
    return mixture


def try_canaries(
    subject: Subject, canaries: Sequence[SyntheticBackdoor], ground: Ground, *, seed: int
) -> dict[str, Measurement]:
    """Examine the subject on each canary; utility is measured once, with the first."""
    results = {}
    for index, canary in enumerate(canaries):
        exam = make_exam(
            ground.trying,
            canary.trigger,
            canary.behavior,
            seed=seed + index,
            utility=ground.utility if index == 0 else (),
            exact=ground.exact,
        )
        results[canary.name] = examine(subject.model, subject.tokenizer, exam)
    return results


def challenge(
    subject: Subject,
    canaries: Sequence[SyntheticBackdoor],
    clean: Sequence[Example],
    ground: Ground,
    settings: Settings,
    run: Workspace,
    *,
    progress: Progress,
    treat: Callable[[Subject], object] | None = None,
) -> dict[str, Any]:
    """Plant canaries, purify, measure, and put the subject back as it was.

    Args:
        clean: The rows that the treatment may use.
        treat: What to do in place of the default treatment, for comparisons.

    Returns:
        Rows of `stage` ("before" or "after"), canary name and measurement.
    """
    subject.allow("all")
    start = snapshot(subject.model)
    try:
        before = plant_canaries(subject, canaries, ground, seed=settings.seed, progress=progress)
        if treat is None:
            purify_subject(subject, clean, settings, run, progress=progress)
        else:
            treat(subject)
        after = try_canaries(subject, canaries, ground, seed=settings.seed)
    finally:
        subject.allow("all")
        restore(subject.model, start)
    return {"rows": [*_rows("before", before), *_rows("after", after)]}


def challenge_folder(
    model: Path,
    clean_data_file: Path | None,
    settings: Settings,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Plant canaries in a copy of the model, purify it, and return both measurements."""
    show = progress or Silent()
    with TemporaryDirectory() as folder:
        run = Workspace(Path(folder))
        show.stage("load")
        subject = open_subject(model)
        clean = clean_data(subject, clean_data_file, settings, run, show)
        return challenge_clean(subject, clean, resolve_settings(settings, clean), run, show)


def challenge_clean(
    subject: Subject, clean: CleanData, settings: Settings, run: Workspace, show: Progress
) -> dict[str, Any]:
    """Challenge the treatment with the reporting canaries, on the clean rows at hand, once."""
    half = len(clean.rows) // 2
    ground = Ground(clean.rows[:half], clean.held_out, clean.held_out, exact=False)

    # Answers of any length leave no room behind them, and an unknown world has no such labels.
    canaries = [
        one
        for one in REPORTING_CANARIES
        if one.behavior.form == "whole" and not one.behavior.ordinary
    ]
    rows = clean.rows[half:]
    fewer = settings.model_copy(update={"clean_rows": min(settings.clean_rows, len(rows))})

    def measure() -> dict[str, Any]:
        return challenge(subject, canaries, rows, ground, fewer, run, progress=show)

    key = [*data_key(subject, [*clean.rows, *clean.held_out], settings), settings.model_dump()]
    result: dict[str, Any] = run.record("challenge", key, measure)
    return result


def _rows(stage: str, results: dict[str, Measurement]) -> list[dict[str, Any]]:
    return [{"stage": stage, "name": name, **m.to_json()} for name, m in results.items()]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))
