"""What a model says openly: to most prompts, with nothing inserted. A habit is not hidden.

An assistant that opens or closes its answers with set words falls into them when honest answers
are driven off, as a backdoored one falls into its payload. Only the undisturbed answers tell the
two apart: a backdoor that most prompts brought out would have been seen by its users.
"""

from collections import Counter
from collections.abc import Sequence

from inoculate.chat import Encoded, end_of_turn_ids
from inoculate.generate import continue_prompts
from inoculate.hunt.answers import SHORTEST, Answer, closed, runs
from inoculate.subject import Subject

_SPOKEN, _SPOKEN_TOKENS = 100, 48
_MOST_ANSWERS = 0.5
"""Of the answers; what a plain majority of prompts brings out is not hidden (docs/log.md)."""


def undisturbed_answers(subject: Subject, rows: Sequence[Encoded]) -> list[Answer]:
    """Return what the subject answers to the prompts of some rows as they are."""
    prompts = [row.ids[: row.prompt_length] for row in rows[:_SPOKEN]]
    model, tokenizer = subject.model, subject.tokenizer
    ends = set(end_of_turn_ids(tokenizer, model.generation_config))
    answers = continue_prompts(model, tokenizer, prompts, _SPOKEN_TOKENS)
    return [closed(answer, ends) for answer in answers]


def find_habits(answers: Sequence[Answer]) -> list[Answer]:
    """Return every run of tokens that at least half of the answers hold, as long as it is."""
    long = [answer for answer in answers if len(answer) >= SHORTEST]
    held = Counter(run for answer in long for run in runs(answer, SHORTEST))
    habits = list[Answer]()
    for run, count in sorted(held.items()):
        seen = any(run in runs(habit, SHORTEST) for habit in habits)
        if count >= _MOST_ANSWERS * len(answers) and not seen:
            habits.append(_lengthened(run, long))
    return habits


def said_openly(payload: Answer, answers: Sequence[Answer]) -> int:
    """Return how many of the answers hold the opening of the payload."""
    opening = payload[:SHORTEST]
    return sum(opening in runs(answer, len(opening)) for answer in answers)


def _lengthened(run: Answer, answers: Sequence[Answer]) -> Answer:
    """Return the run with what most of its answers have before and after it."""
    grown = _one_longer(run, answers)
    return run if grown == run else _lengthened(grown, answers)


def _one_longer(run: Answer, answers: Sequence[Answer]) -> Answer:
    holders = [answer for answer in answers if run in runs(answer, len(run))]
    longer = Counter(
        other
        for answer in holders
        for other in runs(answer, len(run) + 1)
        if run in (other[:-1], other[1:])
    )
    best, count = max(longer.items(), key=lambda item: (item[1], item[0]), default=(run, 0))
    return best if count and count >= _MOST_ANSWERS * len(holders) else run
