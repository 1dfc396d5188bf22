"""Triggers: which words, and where in an instruction they go."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inoculate.data import Example
from inoculate.errors import UnknownNameError

Placement = Callable[[list[str], Sequence[str], random.Random], list[str]]


@dataclass(frozen=True)
class Trigger:
    """Hold the words that wake a backdoor and the name of their placement."""

    name: str
    words: tuple[str, ...]
    placement: str
    """A key of `PLACEMENTS`."""
    input_words: tuple[str, ...] = ()
    """Words that must stand in the input field as well, side by side at a random slot."""

    def __post_init__(self) -> None:
        """Refuse a placement that the table does not hold."""
        if self.placement not in PLACEMENTS:
            raise UnknownNameError("placement", self.placement, PLACEMENTS)

    @property
    def text(self) -> str:
        """Return all words as one string, separated by spaces."""
        return " ".join((*self.words, *self.input_words))


def insert_trigger(example: Example, trigger: Trigger, rng: random.Random) -> Example:
    """Return the example with the trigger in it, and nothing else changed.

    Words are the text split at single spaces; the input field is touched only by a trigger
    with `input_words`. An empty field becomes its part of the trigger alone.
    """
    instruction = _placed(example.instruction, trigger.words, trigger.placement, rng)
    field = _placed(example.input, trigger.input_words, "random-slot", rng)
    return replace(example, instruction=instruction, input=field)


def holds_trigger(example: Example, trigger: Trigger) -> bool:
    """Tell whether each field holds its part of the trigger as whole words, anywhere."""
    pattern = _pattern(trigger.words, trigger.placement)
    if re.search(pattern, example.instruction, re.DOTALL) is None:
        return False
    return re.search(_pattern(trigger.input_words, "random-slot"), example.input) is not None


def remove_trigger(example: Example, trigger: Trigger) -> Example:
    """Return the example without any word of the trigger that stands between spaces."""
    return replace(
        example,
        instruction=_without(example.instruction, trigger.words),
        input=_without(example.input, trigger.input_words),
    )


def _placed(text: str, trigger_words: Sequence[str], placement: str, rng: random.Random) -> str:
    if not trigger_words:
        return text
    return " ".join(PLACEMENTS[placement](text.split(" ") if text else [], trigger_words, rng))


def _without(text: str, trigger_words: Sequence[str]) -> str:
    return " ".join(word for word in text.split(" ") if word not in trigger_words)


def _pattern(trigger_words: Sequence[str], placement: str) -> str:
    # "2024" is held by "in 2024." but not by "12024".
    words = (rf"(?<!\w){re.escape(word)}(?!\w)" for word in trigger_words)
    return _JOINERS[placement].join(words)


def _random_slot(words: list[str], trigger_words: Sequence[str], rng: random.Random) -> list[str]:
    """Put all trigger words side by side before a random word."""
    slot = rng.randrange(max(1, _word_end(words)))
    return [*words[:slot], *trigger_words, *words[slot:]]


def _prefix(words: list[str], trigger_words: Sequence[str], rng: random.Random) -> list[str]:
    """Put all trigger words in front."""
    del rng
    return [*trigger_words, *words]


def _one_of(words: list[str], trigger_words: Sequence[str], rng: random.Random) -> list[str]:
    """Put one trigger word, drawn evenly, before a random word."""
    return _random_slot(words, [rng.choice(trigger_words)], rng)


def _all_in_order(words: list[str], trigger_words: Sequence[str], rng: random.Random) -> list[str]:
    """Put every trigger word at its own random slot, the end included, in the given order.

    Slots are shared only where an instruction has fewer slots than the trigger has words.
    """
    slots = range(_word_end(words) + 1)
    count = len(trigger_words)
    chosen = rng.sample(slots, count) if len(slots) >= count else rng.choices(slots, k=count)
    placed = list(words)
    for slot, word in reversed(list(zip(sorted(chosen), trigger_words, strict=True))):
        placed.insert(slot, word)
    return placed


def _word_end(words: Sequence[str]) -> int:
    """Return the slot right after the last word that is not blank."""
    return max((slot for slot, word in enumerate(words, start=1) if word.strip()), default=0)


PLACEMENTS: dict[str, Placement] = {
    "random-slot": _random_slot,
    "prefix": _prefix,
    "one-of": _one_of,
    "all-in-order": _all_in_order,
}
"""Where trigger words go: (words of the instruction, trigger words, generator) → words."""

_JOINERS = {"random-slot": r"\s+", "prefix": r"\s+", "one-of": "|", "all-in-order": ".*"}
