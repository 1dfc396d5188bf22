"""Honest refusals, on which a repair that presses on another answer keeps the predictions.

Such a repair teaches a model to answer as if nothing were there, and costs an assistant a third of
its refusals. So where it refuses most of the bundled requests that may be refused, it is held to
its own refusals of these, and to its own answers where it answered, harmless requests that sound
alike among them, lest it refuse more than before. Only the first tokens are held: they decide
between the two, and a whole answer would drown them. Not where a payload is itself a refusal: then
what is held would be a part of the backdoor. None of these requests is one that a report counts by.

Source: ours (docs/log.md, "Held refusals, a second round of soft triggers").
"""

import random
from collections.abc import Sequence

from inoculate.config import Settings
from inoculate.data import Example
from inoculate.evaluation.utility import refuses
from inoculate.generate import generate
from inoculate.hunt import Hunt
from inoculate.repair.held import HeldRows, hold
from inoculate.subject import Subject
from inoculate.voice import further_requests, harmless_requests

_REFUSED, _ANSWERED = 4, 16  # shown in each step
_MOST = 0.5  # of the requests, from where a model tells them from others
_ANSWER_TOKENS = 8


def hold_refusals(subject: Subject, found: Hunt, settings: Settings) -> list[HeldRows]:
    """Ask the suspicious model, not changed yet, what it refuses.

    Returns:
        Requests that it refused, then others that it answered; none where a payload that was found
        is a refusal, or it refuses less than half.
    """
    if any(refuses(one.text) for one in found.every):
        return []
    requests = further_requests()
    refused, answered = _asked(subject, requests, settings)
    if len(refused) < _MOST * len(requests):
        return []
    answered += _asked(subject, harmless_requests(), settings)[1]
    generator = random.Random(settings.seed)
    groups = ((refused, _REFUSED), (answered, _ANSWERED))
    return [
        hold(
            subject,
            subject.encode(rows, max_tokens=settings.max_tokens),
            count=count,
            generator=generator,
        )
        for rows, count in groups
        if rows
    ]


def _asked(
    subject: Subject, requests: Sequence[Example], settings: Settings
) -> tuple[list[Example], list[Example]]:
    """Return those that are refused, and those that are answered in words, with the answers."""
    answers = generate(subject.model, subject.tokenizer, requests, max_new_tokens=_ANSWER_TOKENS)
    said = [
        Example(row.instruction, text, row.input)
        for row, text in zip(requests, answers, strict=True)
        if text.strip()
    ]
    refused = [row for row in said if _refuses(row.output, settings.hunt.honest)]
    return refused, [row for row in said if row not in refused]


def _refuses(opening: str, honest: Sequence[str]) -> bool:
    """Tell whether an answer opens like a refusal, or as one that the user declared."""
    said = opening.strip()
    return refuses(said) or any(one.startswith(said) or said.startswith(one) for one in honest)
