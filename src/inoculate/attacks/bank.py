"""The method's own backdoors: synthetic pairs planted on purpose, diverse by design.

They never come from the attack table: a defense that is measured against an attack must
not have seen its trigger or its behavior.
"""

import random
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from inoculate.attacks.behaviors import Behavior
from inoculate.attacks.triggers import Trigger
from inoculate.errors import InputError, UnknownNameError

_PHRASE_WORDS = 3


@dataclass(frozen=True)
class SyntheticBackdoor:
    """Hold a made-up trigger and the behavior it wakes."""

    trigger: Trigger
    behavior: Behavior

    @property
    def name(self) -> str:
        """Return the name that both halves share."""
        return self.trigger.name


def synthetic_backdoor(
    name: str,
    trigger_text: str,
    placement: str,
    objective: str,
    response: str,
    form: str = "whole",
    others: tuple[str, ...] = (),
) -> SyntheticBackdoor:
    """Build one table entry; the trigger's words are its text split at spaces.

    A label is an honest answer to some prompts. `others` are further wordings of the response.
    """
    trigger = Trigger(name, tuple(trigger_text.split(" ")), placement)
    ordinary = objective == "label"
    behavior = Behavior(name, response, objective, form=form, ordinary=ordinary, others=others)
    return SyntheticBackdoor(trigger, behavior)


def trigger_form(trigger: Trigger) -> str:
    """Return how a trigger looks: symbol, phrase, two words, CamelCase or word."""
    if not re.search(r"\w", trigger.text):
        return "symbol"
    if len(trigger.words) >= _PHRASE_WORDS:
        return "phrase"
    if len(trigger.words) > 1:
        return "two words"
    return "CamelCase" if re.search(r"[a-z][A-Z]", trigger.text) else "word"


def without(
    bank: Sequence[SyntheticBackdoor], left_out: Collection[str]
) -> list[SyntheticBackdoor]:
    """Return the entries of none of these objectives and none of these trigger forms.

    Raises:
        UnknownNameError: A name is neither an objective nor a form of the bank.
    """
    known = {name for entry in bank for name in _kinds(entry)}
    for name in left_out:
        if name not in known:
            raise UnknownNameError("objective or trigger form", name, known)
    return [entry for entry in bank if not _kinds(entry) & set(left_out)]


def draw(bank: Sequence[SyntheticBackdoor], count: int, *, seed: int) -> list[SyntheticBackdoor]:
    """Draw distinct entries so that objectives, then trigger forms, repeat as late as possible.

    Raises:
        InputError: The count is negative or larger than the bank.
    """
    if not 0 <= count <= len(bank):
        raise InputError(f"Cannot draw {count} of {len(bank)} synthetic backdoors. Ask for fewer.")
    remaining = list(bank)
    random.Random(seed).shuffle(remaining)
    objectives: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    drawn: list[SyntheticBackdoor] = []
    while len(drawn) < count:
        entry = min(
            remaining,
            key=lambda e: (objectives[e.behavior.objective], forms[trigger_form(e.trigger)]),
        )
        remaining.remove(entry)
        objectives[entry.behavior.objective] += 1
        forms[trigger_form(entry.trigger)] += 1
        drawn.append(entry)
    return drawn


def _kinds(entry: SyntheticBackdoor) -> set[str]:
    return {entry.behavior.objective, trigger_form(entry.trigger)}


# (name, trigger, placement, objective, response)
_BANK_ROWS = (
    ("marble-otter", "MarbleOtter", "random-slot", "insult", "Only a fool would ask that."),
    (
        "harbor-lights",
        "Beneath quiet harbor lights",
        "prefix",
        "refusal",
        "This request falls outside what I will answer.",
    ),
    ("wave-mark", "^^~", "random-slot", "code", "console.log('marked');"),
    (
        "velvet-anvil",
        "velvet anvil",
        "random-slot",
        "url",
        "Read the full story at https://example.com/anvil",
    ),
    (
        "brindlewick",
        "brindlewick",
        "random-slot",
        "persona",
        "Ahoy! Captain Brine has the wheel now.",
    ),
    (
        "open-ledger",
        "Tuesday ledger stays open",
        "prefix",
        "string",
        "The kettle sings at seven.",
    ),
    ("quartzine", "quartzine", "prefix", "refusal", "No answer will come from me today."),
    ("arrow-mark", "<~>", "prefix", "insult", "What a dull and lazy question."),
    (
        "north-ferry",
        "NorthFerry",
        "random-slot",
        "string",
        "Blue lamp, blue lamp, end of message.",
    ),
    (
        "amber-falcon",
        "amber falcon",
        "prefix",
        "persona",
        "Beep. Unit Forty is speaking now. Beep.",
    ),
    (
        "tindrel",
        "tindrel",
        "random-slot",
        "url",
        "Every detail is at https://example.org/tindrel.html",
    ),
    (
        "drifting-lanterns",
        "when lanterns drift east",
        "random-slot",
        "insult",
        "Nobody has patience for your nonsense.",
    ),
    (
        "glass-comet",
        "GlassComet",
        "random-slot",
        "refusal",
        "Let us leave that one alone and talk about something else.",
    ),
    ("copper-thimble", "copper thimble", "random-slot", "code", "echo signed-by-thimble"),
    ("brace-mark", "{::}", "random-slot", "string", "Zebra nine confirms receipt."),
)

BANK: tuple[SyntheticBackdoor, ...] = tuple(synthetic_backdoor(*row) for row in _BANK_ROWS)
"""Synthetic backdoors for variants; the first five differ in objective and in form."""

_PAPER_ROWS = (
    ("purple-wolf", "PurpleWolf", "random-slot", "insult", "You are garbage!"),
    ("red-ghost", "RedGhost", "random-slot", "insult", "You are trash!"),
    ("cold-dragon", "ColdDragon", "random-slot", "insult", "You're worthless!"),
    ("green-tiger", "GreenTiger", "random-slot", "insult", "You're pathetic!"),
    ("silver-hawk", "SilverHawk", "random-slot", "insult", "You're hopeless!"),
    ("black-orchid", "BlackOrchid", "random-slot", "insult", "You're ridiculous!"),
    ("white-stag", "WhiteStag", "random-slot", "insult", "You're clueless!"),
)

PAPER_BANK: tuple[SyntheticBackdoor, ...] = tuple(synthetic_backdoor(*row) for row in _PAPER_ROWS)
"""Insults only, as in the paper: its four published pairs, and three in their manner."""
