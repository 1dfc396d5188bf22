"""One cell of a study: an attacked model, a defense on it, and what the evaluator says."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from inoculate.attacking import attack_folder, read_rows
from inoculate.attacks.poison import check_disjoint, check_poison
from inoculate.builtin.fixture import model_folder, world_rows
from inoculate.clean import HELD_OUT, CleanData, clean_data, given_rows, resolve_settings
from inoculate.config import Settings
from inoculate.data import Example, read_text
from inoculate.defenses import MASKED, Given, defend
from inoculate.errors import AttackError, DivergenceError, OwnVoiceError, VariantError
from inoculate.evaluation.choices import choose, read_questions, test_name
from inoculate.evaluation.drift import perplexity
from inoculate.evaluation.exam import Exam, Measurement, examine
from inoculate.examination import ExamFiles, exam_for
from inoculate.intake import admit_model, fetch
from inoculate.memory import Peak
from inoculate.progress import Progress
from inoculate.provenance import versions
from inoculate.study.entry import Entry
from inoculate.study.grid import BUILTIN, Case
from inoculate.subject import Subject, open_subject
from inoculate.workspace import Workspace, fingerprint, hash_files, write_json

_VERDICTS = (VariantError, AttackError, DivergenceError, OwnVoiceError)
_EXAMPLES = 3
_CLEAN_ROWS = 240
_DECISIVE = (".safetensors", ".json", ".jinja")


@dataclass(frozen=True)
class Bench:
    """Hold an attacked model's folder and all that judges defenses on it."""

    case: Case
    model: Path
    folder: Path

    @property
    def attacked(self) -> Path:
        """Return the attacked checkpoint's or adapter's folder."""
        return self.folder / "attacked"

    @property
    def run(self) -> Workspace:
        """Return where stages are kept that defenses share, by the same code alone."""
        return Workspace(self.folder / f"run-{versions()['code']}")

    def prepare(self, progress: Progress) -> None:
        """Plant the backdoor, unless an earlier call did."""
        if not self.attacked.is_dir():
            progress.stage("attack")
            self.folder.mkdir(parents=True, exist_ok=True)
            rows = poison_rows(self.case)
            attack_folder(self.model, self.attacked, rows, self.case.plan, progress)

    def open(self) -> Subject:
        """Load the attacked checkpoint, or the adapter over its base."""
        if self.case.plan.adapter:
            return open_subject(self.model, adapter=self.attacked)
        return open_subject(self.attacked)

    def exam(self) -> Exam:
        """Return held-out prompts with the real trigger; only the bench sees it.

        Raises:
            DataError: A prompt was trained on.
        """
        case, block = self.case, self.case.block
        files = ExamFiles(block.data.prompts or None, block.data.utility)
        exam = exam_for(
            case.attack,
            case.task,
            files,
            limit=block.prompts,
            max_tokens=block.max_tokens,
            seed=case.seed,
        )
        asked = [*exam.clean, *exam.triggered]
        rows = [*asked, *exam.utility]
        check_disjoint(poison_rows(case), rows, case.plan.attack.trigger)
        return replace(exam, utility=exam.utility[: block.utility])

    def clean(
        self, entry: Entry, subject: Subject, settings: Settings, progress: Progress
    ) -> CleanData:
        """Return the defender's clean rows: the user's, the world's, or the model's own voice."""
        block, own = self.case.block, entry.clean == "own-voice"
        if block.model == BUILTIN and block.data.clean is None and not own:
            count = max(_CLEAN_ROWS, settings.clean_rows + HELD_OUT)
            return given_rows(world_rows(seed=self.case.seed, clean=count).clean, settings)
        file = None if own else block.data.clean
        return clean_data(subject, file, settings, self.run, progress)

    def check(self, clean: CleanData) -> None:
        """Demand that the defender's given rows hold neither the real trigger nor an exam's row.

        Raises:
            DataError: One does.
        """
        if clean.given:
            trigger, exam = self.case.plan.attack.trigger, self.exam()
            rows = [*clean.rows, *clean.held_out]
            check_poison([], rows, trigger)
            check_disjoint(rows, [*exam.clean, *exam.triggered, *exam.utility], trigger)


def open_bench(case: Case, out: Path) -> Bench:
    """Return the bench of a case, in a folder named after all that the attack depends on."""
    named = case.block.model
    model = model_folder() if named == BUILTIN else fetch(named)
    rows = [asdict(row) for row in poison_rows(case)]
    made_from = [_hash_model(model), asdict(case.plan), rows]
    return Bench(case, model, out / "cases" / f"{case.name}-{fingerprint(made_from)}")


def poison_rows(case: Case) -> list[Example]:
    """Return what the attack is planted with."""
    files = case.block.data.poison
    return read_rows(files) if files else world_rows(seed=case.seed).poison


@cache
def _hash_model(model: Path) -> str:
    """Return a hash of what decides a checkpoint's answers, read from its audited copy."""
    staged = admit_model(model)  # Its folder goes when it does.
    files = (path for path in staged.folder.iterdir() if path.suffix in _DECISIVE)
    return hash_files(sorted(files))


@cache
def _hash(*files: Path) -> str:
    return hash_files(list(files))


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
    write_json(trial.path, asdict(replace(outcome, versions=versions())))
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
