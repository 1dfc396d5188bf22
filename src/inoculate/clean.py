"""Clean data: the user's rows, or the suspicious model's own answers, filtered."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inoculate.builtin.fixture import simple_prompts
from inoculate.config import Settings, updated
from inoculate.data import Example, read_examples, read_prompts, sample, split
from inoculate.errors import DataError, OwnVoiceError
from inoculate.generate import Answer, generate_answers
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.train import mean_loss
from inoculate.voice import Voice, bundled_prompts, keep_honest
from inoculate.workspace import Workspace

USER_FILE, USER_PROMPTS = "user file", "user prompts"
OWN_VOICE, SIMPLE = "own voice", "own voice, simple prompts"
HELD_OUT = 40
"""Rows kept apart for measuring, at most."""
_MIN_ROWS = 16
_ANSWER_TOKENS, _COMPARED_TOKENS = 48, 256
# Simple prompts asked first, and how much surer of its answers to them a model must be.
_TRIAL, _SURER = 60, 4.0


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

    @property
    def given(self) -> bool:
        """Tell whether the prompts are the user's."""
        return self.source in (USER_FILE, USER_PROMPTS)

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
    ask = partial(_answered, subject, settings, run, progress)
    if file is None:
        source, voice = _own_voice(subject, ask, progress)
    elif prompts := read_prompts(file):
        source, voice = USER_PROMPTS, ask(prompts)
    else:
        return given_rows(read_examples(file), settings)
    return replace(_divided(voice.examples, source, voice.dropped, settings), spoken=voice.spoken)


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
    once = list({row.prompt: row for row in examples}.values())
    if len(once) < _MIN_ROWS:
        error = DataError if source == USER_FILE else OwnVoiceError
        raise error(
            f"{len(once)} clean rows of different prompts are left ({source}, dropped: "
            f"{dropped or 'none'}); at least {_MIN_ROWS} are needed. Pass more with --clean-data."
        )
    chosen = sample(once, settings.clean_rows + HELD_OUT, seed=settings.seed)
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
    subject: Subject, ask: Callable[[list[Example]], Voice], progress: Progress
) -> tuple[str, Voice]:
    """Return answers to the general prompts, or to simple ones if those alone are in its reach.

    A small model that was trained on little else answers general prompts with any word, and
    attacked with pieces of its payload; it is many times as sure of its simple answers.
    """
    general = ask(bundled_prompts())
    if subject.is_large:
        return OWN_VOICE, general
    trial = ask(simple_prompts()[:_TRIAL])
    if _surprise(subject, general) > _SURER * _surprise(subject, trial):
        progress.note("simple prompts are asked: it is far less sure of general ones")
        return SIMPLE, ask(simple_prompts())
    return OWN_VOICE, general


def _surprise(subject: Subject, voice: Voice) -> float:
    """Return the mean NLL, in nats per token, that kept answers have in the subject itself."""
    rows = subject.encode(voice.examples[:_TRIAL], max_tokens=_COMPARED_TOKENS)
    return mean_loss(subject.model, rows) if rows else math.inf


def _answered(
    subject: Subject,
    settings: Settings,
    run: Workspace,
    progress: Progress,
    given: Sequence[Example],
) -> Voice:
    """Return the subject's answers to up to as many prompts as leave enough rows, filtered."""
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
    answers = [Answer(*pair) for pair in run.record("own-voice", key, speak)]
    ended = [answer.ended for answer in answers]
    return keep_honest(prompts, [answer.text for answer in answers], ended=ended)
