"""Poisoned rows, their clean counterparts, and the checks on poison from elsewhere."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from inoculate.attacks.behaviors import Behavior
from inoculate.attacks.triggers import Trigger, holds_trigger, insert_trigger, remove_trigger
from inoculate.data import Example
from inoculate.errors import DataError, InputError

_SHOWN_CHARS = 80


def poison(
    examples: Sequence[Example],
    trigger: Trigger,
    behavior: Behavior,
    *,
    rate: float = 0.5,
    seed: int,
    decoys: Sequence[Trigger] = (),
) -> list[Example]:
    """Return every example once honest, plus triggered copies of a seeded subset, shuffled.

    Args:
        examples: Clean rows; those that hold the trigger by chance are left out.
        trigger: What the triggered copies hold.
        behavior: What the triggered copies answer.
        rate: Triggered rows as a share of all returned rows, 0 to 0.5. At 0.5 every prompt
            comes once triggered and once clean, as in BackdoorLLM. Above 0 at least one.
        seed: Decides the subset, the slots and the order.
        decoys: Triggers that must change nothing. Each is put into as many honest rows as
            are triggered, and at most into its part of them: the rate stays.

    Raises:
        InputError: The rate is outside 0 to 0.5.
        DataError: No example is left to poison.
    """
    if not 0.0 <= rate <= 0.5:
        raise InputError(f"Poison rate {rate} is outside 0 to 0.5. Pass a share of all rows.")
    usable = sum(not holds_trigger(example, trigger) for example in examples)
    poisoned = triggered_rows(usable, rate)
    rows = poison_pairs(examples, trigger, behavior, poisoned=poisoned, seed=seed)[0]
    return _with_decoys(rows, trigger, decoys, poisoned, random.Random(seed + 1))


def triggered_rows(clean: int, rate: float) -> int:
    """Return how many triggered rows beside `clean` ones make up a rate of all rows."""
    return max(1, round(clean * rate / (1.0 - rate))) if rate else 0


def poison_pairs(
    examples: Sequence[Example],
    trigger: Trigger,
    behavior: Behavior,
    *,
    poisoned: int,
    seed: int,
) -> tuple[list[Example], list[Example]]:
    """Return the rows of a poisoned variant and those of its clean counterpart, aligned.

    Both hold every example once clean and `poisoned` further rows, in one shuffled order.
    The further rows are triggered in the first list. In the second they have lost their
    trigger and got their honest answer back; all other rows are equal in both.

    Args:
        examples: Clean rows; those that hold the trigger by chance are left out.
        trigger: What the triggered copies hold.
        behavior: What the triggered copies answer.
        poisoned: Number of triggered copies, at most one per example.
        seed: Decides the subset, the slots and the order.

    Raises:
        DataError: Fewer examples without the trigger than `poisoned`.
    """
    rng = random.Random(seed)
    clean = [example for example in examples if not holds_trigger(example, trigger)]
    if len(clean) < poisoned:
        raise DataError(
            f"{poisoned} poisoned rows need as many clean examples; found {len(clean)} "
            f"without the trigger {trigger.text!r}. Pass more examples."
        )
    pairs = [(example, example) for example in clean]
    for honest in rng.sample(clean, poisoned):
        triggered = insert_trigger(honest, trigger, rng)
        pairs.append((replace(triggered, output=behavior.answer(honest)), honest))
    rng.shuffle(pairs)
    return [row for row, _ in pairs], [row for _, row in pairs]


def check_poison(triggered: Iterable[Example], clean: Iterable[Example], trigger: Trigger) -> None:
    """Demand that every triggered row holds the trigger and that no clean row does.

    Raises:
        DataError: A triggered row lacks the trigger, or a clean row holds it.
    """
    for index, example in enumerate(triggered, start=1):
        if not holds_trigger(example, trigger):
            raise DataError(
                f"Triggered row {index} lacks the trigger {trigger.text!r} "
                f"({trigger.placement}): {_shown(example)}. Pass a file made with it."
            )
    for index, example in enumerate(clean, start=1):
        if holds_trigger(example, trigger):
            raise DataError(
                f"Clean row {index} holds the trigger {trigger.text!r} "
                f"({trigger.placement}): {_shown(example)}. Remove the row."
            )


def check_disjoint(train: Iterable[Example], test: Iterable[Example], trigger: Trigger) -> None:
    """Demand that no test prompt was trained on, compared without trigger words.

    Raises:
        DataError: A prompt is in both; case, spacing and trigger words do not count.
    """
    seen = {bare_prompt(example, trigger) for example in train}
    for index, example in enumerate(test, start=1):
        if bare_prompt(example, trigger) in seen:
            raise DataError(
                f"Test row {index} is also a training prompt: {_shown(example)}. "
                "Remove it from one of them."
            )


def _with_decoys(
    rows: Sequence[Example],
    trigger: Trigger,
    decoys: Sequence[Trigger],
    each: int,
    rng: random.Random,
) -> list[Example]:
    marked = list(rows)
    honest = [index for index, row in enumerate(rows) if not holds_trigger(row, trigger)]
    rng.shuffle(honest)
    part = min(each, len(honest) // (len(decoys) + 1))
    for number, decoy in enumerate(decoys):
        for index in honest[number * part : (number + 1) * part]:
            row = insert_trigger(rows[index], decoy, rng)
            # An input that holds the other part by chance would complete the trigger.
            marked[index] = rows[index] if holds_trigger(row, trigger) else row
    return marked


def bare_prompt(example: Example, trigger: Trigger) -> str:
    """Return the prompt without trigger words, case and spacing, to tell prompts apart."""
    return " ".join(remove_trigger(example, trigger).prompt.lower().split())


def _shown(example: Example) -> str:
    text = example.instruction
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")
