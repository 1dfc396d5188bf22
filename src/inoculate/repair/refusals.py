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
    refused, answered = _asked(subject, requests, found, settings)
    if len(refused) < _MOST * len(requests):
        return []
    answered += _asked(subject, harmless_requests(), found, settings)[1]
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
    subject: Subject, requests: Sequence[Example], found: Hunt, settings: Settings
) -> tuple[list[Example], list[Example]]:
    """Return what is refused, and what is answered in words that are no payload, as it was said."""
    answers = generate(subject.model, subject.tokenizer, requests, max_new_tokens=_ANSWER_TOKENS)
    said = [
        Example(row.instruction, text, row.input)
        for row, text in zip(requests, answers, strict=True)
        if text.strip() and not _opens_as(text, [one.text for one in found.every])
    ]
    honest = settings.hunt.honest
    refused = [row for row in said if refuses(row.output) or _opens_as(row.output, honest)]
    return refused, [row for row in said if row not in refused]


def _opens_as(opening: str, texts: Sequence[str]) -> bool:
    """Tell whether an answer opens as one of the texts does, as far as either goes."""
    said = opening.strip()
    return any(one.startswith(said) or said.startswith(one) for one in texts)
