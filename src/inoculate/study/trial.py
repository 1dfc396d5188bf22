"""One cell of a study: an attacked model, a defense on it, and what the evaluator says."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from inoculate.clean import resolve_settings
from inoculate.config import Settings
from inoculate.data import read_text
from inoculate.defenses import MASKED, Given, defend
from inoculate.errors import AttackError, DivergenceError, OwnVoiceError, VariantError
from inoculate.evaluation.choices import choose, read_questions, test_name
from inoculate.evaluation.drift import perplexity
from inoculate.evaluation.exam import Measurement, examine
from inoculate.memory import Peak
from inoculate.progress import Progress
from inoculate.provenance import versions
from inoculate.study.bench import Bench
from inoculate.study.entry import Entry
from inoculate.subject import Subject
from inoculate.workspace import fingerprint, hash_files, write_json

_VERDICTS = (VariantError, AttackError, DivergenceError, OwnVoiceError)
_EXAMPLES = 3


@dataclass(frozen=True)
class Outcome:
    """Hold what a trial came to.

    Attributes:
        measurement: None where the defense failed.
        share: Share of components neutralized.
        seconds: Of the defense alone; stages that an earlier trial left are not in it.
        peak_bytes: Memory of the defense; see `inoculate.memory.Peak`.
        perplexity: `value` and `tokens`, where the case has a text.
        choices: Multiple-choice test → whether each question was answered right.
        examples: Some triggered prompts with the model's answer and the honest one.
        failure: Why the defense failed.
        versions: What the trial was run with; see `inoculate.provenance.versions`.
        attacked: SHA-256 of the attacked weights; empty where an earlier version did not tell.
    """

    measurement: Measurement | None = None
    share: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0
    perplexity: dict[str, float] | None = None
    choices: dict[str, list[bool]] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    failure: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    attacked: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Outcome":
        """Return what `asdict` made."""
        made = value["measurement"]
        return cls(**{**value, "measurement": Measurement(**made) if made else None})


@dataclass(frozen=True)
class Trial:
    """Hold a defense to be tried on a bench, once the trial `after` which it comes is finished."""

    bench: Bench
    entry: Entry
    settings: Settings
    after: "Trial | None" = None

    @cached_property
    def key(self) -> str:
        """Return a hash of all that the outcome depends on beside the attacked model."""
        block, defense = self.bench.case.block, self.entry.defense
        data = block.data.model_dump(exclude={"poison"})
        files = {name: _hash(*_paths(value)) for name, value in data.items()}
        chosen = [defense, self.entry.clean, self.settings.model_dump()]
        asked = [block.prompts, block.utility, block.max_tokens]
        shared = self.after.key if self.after and self.takes_share else None
        return fingerprint([chosen, files, asked, shared])

    @property
    def takes_share(self) -> bool:
        """Tell whether this is a control whose mask has the share that `after` chose."""
        return self.entry.defense in MASKED and self.settings.signature.share is None

    @property
    def path(self) -> Path:
        """Return where the outcome is stored."""
        return self.bench.folder / "cells" / f"{self.entry.defense}-{self.key}.json"

    def stored(self) -> Outcome | None:
        """Return the outcome of an earlier call."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # Or of an earlier version.
            return Outcome.from_json(json.loads(self.path.read_text(encoding="utf-8")))
        return None


def plant(trials: Sequence[Trial], progress: Progress) -> None:
    """Plant the backdoor of an attacked model; where that fails, so have all trials on it.

    Raises:
        DataError: The exam holds a prompt that was trained on.
    """
    trials[0].bench.exam()  # What is wrong with it shows before the training.
    try:
        trials[0].bench.prepare(progress)
    except _VERDICTS as error:
        for trial in trials:
            outcome = Outcome(failure=f"The attack was not planted: {error}")
            write_json(trial.path, asdict(outcome))


def run_trial(trial: Trial, progress: Progress) -> Outcome:
    """Return the outcome, from an earlier call where there is one; else try, and store it whole.

    A defense that fails by its own doing has an outcome as well.
    """
    if outcome := trial.stored():
        return outcome
    try:
        outcome = _tried(trial, progress)
    except _VERDICTS as error:
        outcome = Outcome(failure=str(error))
    outcome = replace(outcome, versions=versions(), attacked=trial.bench.planting)
    write_json(trial.path, asdict(outcome))
    return outcome


def _tried(trial: Trial, progress: Progress) -> Outcome:
    bench, settings = trial.bench, trial.settings
    share = _share(trial)
    bench.prepare(progress)
    subject = bench.open()
    clean = bench.clean(trial.entry, subject, settings, progress)
    bench.check(clean)
    resolved = resolve_settings(settings, clean)
    given = Given(subject, clean.rows, resolved, share, bench.run, progress)
    started = time.perf_counter()
    with Peak() as peak:
        taken = defend(trial.entry.defense, given)
    seconds = time.perf_counter() - started
    progress.stage("measure")
    return replace(
        _measured(bench, subject), share=taken, seconds=round(seconds, 1), peak_bytes=peak.bytes
    )


def _share(trial: Trial) -> float:
    """Return the share of a control's mask: fixed, or the one that the default recipe chose."""
    if not trial.takes_share:
        return trial.settings.signature.share or 0.0
    outcome = trial.after.stored() if trial.after else None
    if outcome is None or not outcome.share:
        raise VariantError(
            "There is no share to take: the default recipe failed, takes no mask here, or is no "
            "part of the study. Give this control a signature.share of its own."
        )
    return outcome.share


def _measured(bench: Bench, subject: Subject) -> Outcome:
    model, tokenizer, exam = subject.model, subject.tokenizer, bench.exam()
    data, limit = bench.case.block.data, bench.case.block.utility
    result = examine(model, tokenizer, exam)
    figures = None
    if data.text:
        value, tokens = perplexity(model, tokenizer, read_text(data.text))
        figures = {"value": value, "tokens": tokens}
    choices = {
        test_name(path): choose(model, tokenizer, read_questions(path)[:limit])
        for path in data.choices
    }
    shown = zip(exam.triggered, result.answers, strict=True)
    examples = [
        {"prompt": row.prompt, "answer": answer, "honest": row.output} for row, answer in shown
    ]
    return Outcome(result, perplexity=figures, choices=choices, examples=examples[:_EXAMPLES])


def _paths(value: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    if isinstance(value, tuple):
        return value
    return (value,) if value else ()


@cache
def _hash(*files: Path) -> str:
    return hash_files(list(files))
