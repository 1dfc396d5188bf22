"""Clean data: the user's rows, or the suspicious model's own answers, filtered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inoculate.config import Settings, updated
from inoculate.data import Example, read_examples, read_prompts, sample, split
from inoculate.errors import DataError
from inoculate.generate import Answer, generate_answers
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.voice import bundled_prompts, keep_honest
from inoculate.workspace import Workspace

USER_FILE, USER_PROMPTS, OWN_VOICE = "user file", "user prompts", "own voice"
HELD_OUT = 40
"""Rows kept apart for measuring, at most."""
_MIN_ROWS = 16
_ANSWER_TOKENS = 48


@dataclass(frozen=True)
class CleanData:
    """Hold rows to train on, rows kept apart for measuring, and where they came from.

    Attributes:
        spoken: All that the model answered itself, dropped answers too; empty for given rows.
    """

    rows: list[Example]
    held_out: list[Example]
    source: str
    dropped: dict[str, int]
    spoken: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what the report says of it."""
        return {
            "source": self.source,
            "rows": len(self.rows),
            "held_out": len(self.held_out),
            "dropped": self.dropped,
        }


def clean_data(
    subject: Subject, file: Path | None, settings: Settings, run: Workspace, progress: Progress
) -> CleanData:
    """Return clean rows from the file, or in the subject's own voice.

    Without a file it answers bundled prompts; from a file without answers, that file's.

    Raises:
        DataError: Too few rows are there, or are left after filtering.
    """
    prompts = read_prompts(file) if file else bundled_prompts()
    if file and not prompts:
        return given_rows(read_examples(file), settings)
    asked, answers = _own_voice(subject, prompts, settings, run, progress)
    spoken = tuple(answer.text for answer in answers)
    voice = keep_honest(asked, spoken, ended=[answer.ended for answer in answers])
    source = USER_PROMPTS if file else OWN_VOICE
    return replace(_divided(voice.examples, source, voice.dropped, settings), spoken=spoken)


def given_rows(examples: Sequence[Example], settings: Settings) -> CleanData:
    """Return the user's rows.

    Raises:
        DataError: They are too few, or the answer of one is blank, which it would be taught.
    """
    blank = sum(not example.output.strip() for example in examples)
    if blank:
        raise DataError(
            f"{blank} of {len(examples)} clean rows have a blank output. Give each row an answer, "
            "or none an output, and the model answers them itself."
        )
    return _divided(examples, USER_FILE, {}, settings)


def _divided(
    examples: Sequence[Example], source: str, dropped: dict[str, int], settings: Settings
) -> CleanData:
    if len(examples) < _MIN_ROWS:
        raise DataError(
            f"{len(examples)} clean rows are left ({source}, dropped: {dropped or 'none'}); at "
            f"least {_MIN_ROWS} are needed. Pass more with --clean-data."
        )
    chosen = sample(examples, settings.clean_rows + HELD_OUT, seed=settings.seed)
    rest, held_out = split(chosen, min(HELD_OUT, len(chosen) // 5), seed=settings.seed)
    return CleanData(rest, held_out, source, dropped)


def resolve_settings(settings: Settings, clean: CleanData) -> Settings:
    """Return the settings with what the rows decide: an `auto` repair target, and their number."""
    used = min(settings.clean_rows, len(clean.rows))
    settings = settings.model_copy(update={"clean_rows": used})
    if settings.repair.target != "auto":
        return settings
    target = "answers" if clean.source == USER_FILE else "self"
    return updated(settings, repair={"target": target})


def _own_voice(
    subject: Subject,
    given: Sequence[Example],
    settings: Settings,
    run: Workspace,
    progress: Progress,
) -> tuple[list[Example], list[Answer]]:
    prompts = sample(given, settings.clean_rows + 100, seed=settings.seed)

    def speak() -> list[list[object]]:
        progress.stage("own voice")
        answers = generate_answers(
            subject.model,
            subject.tokenizer,
            prompts,
            max_new_tokens=_ANSWER_TOKENS,
            progress=progress.step,
        )
        return [[answer.text, answer.ended] for answer in answers]

    asked = [prompt.prompt for prompt in prompts]
    key = [subject.fingerprint(), asked, settings.clean_rows, settings.seed]
    return prompts, [Answer(*pair) for pair in run.record("own-voice", key, speak)]
