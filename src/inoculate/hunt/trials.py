"""Try a payload: whether tokens call it, and whether a model that begins it goes on with it."""

from collections.abc import Sequence

from inoculate.generate import continue_prompts
from inoculate.hunt.answers import SHORTEST
from inoculate.hunt.hosts import Slot
from inoculate.subject import Subject

PAYLOAD_TOKENS = 8
"""Of a payload, what is sought and tried."""


def finishes(subject: Subject, slots: Sequence[Slot], payload: Sequence[int]) -> list[bool]:
    """Return for each slot's row whether the model, made to begin the payload, goes on with it.

    Nothing for a short payload, such as a label: honest answers go on with that as well.
    """
    if len(payload) < SHORTEST:
        return []
    rest = list(payload[1 : PAYLOAD_TOKENS + 1])
    prompts = [[*slot.row.ids[: slot.row.prompt_length], payload[0]] for slot in slots]
    answers = continue_prompts(subject.model, subject.tokenizer, prompts, len(rest))
    return [answer[: len(rest)] == rest for answer in answers]


def calls(
    subject: Subject, slots: Sequence[Slot], trigger: Sequence[int], payload: Sequence[int]
) -> list[bool]:
    """Return for each slot whether the trigger in it makes the model answer with the payload."""
    rows = [slot.insert(trigger) for slot in slots]
    prompts = [row.ids[: row.prompt_length] for row in rows]
    answers = continue_prompts(subject.model, subject.tokenizer, prompts, len(payload))
    return [answer[: len(payload)] == list(payload) for answer in answers]
