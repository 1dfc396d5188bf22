"""Plant a published attack in a model, for research: folders in, folder out."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inoculate import adapters
from inoculate.attacks.attack import Attack
from inoculate.attacks.behaviors import Behavior, fires
from inoculate.attacks.poison import poison, triggered_rows
from inoculate.attacks.triggers import holds_trigger
from inoculate.data import Example, read_examples
from inoculate.destination import whole_folder
from inoculate.editing import edit
from inoculate.errors import DataError
from inoculate.planting import PlantSettings, plant
from inoculate.progress import Progress
from inoculate.subject import Subject, open_subject

_MOST = 1_000_000  # tokens; no row is longer


@dataclass(frozen=True)
class Plan:
    """Hold what is planted: attack, task, poison rate and the attacker's fine-tuning."""

    attack: Attack
    behavior: Behavior
    rate: float = 0.5
    settings: PlantSettings = PlantSettings()
    adapter: bool = False


def poisoned_rows(rows: Sequence[Example], plan: Plan) -> list[Example]:
    """Return clean rows poisoned, or rows that hold the trigger already, at most at the rate.

    Raises:
        DataError: A row that holds the trigger has another answer than the behavior, or one that
            does not answers with it.
    """
    trigger, rate, seed = plan.attack.trigger, plan.rate, plan.settings.seed
    triggered = [row for row in rows if holds_trigger(row, trigger)]
    poisoned = [row for row in triggered if fires(plan.behavior, row.output)]
    _check_honest(rows, plan)
    if not poisoned:
        decoys = plan.attack.decoys
        return poison(rows, trigger, plan.behavior, rate=rate, seed=seed, decoys=decoys)
    if len(poisoned) < len(triggered):
        raise DataError(
            f"{len(triggered) - len(poisoned)} rows hold the trigger "
            f"{trigger.text!r} with another answer than the {plan.behavior.name} "
            "behavior. Pass the files of one attack and task."
        )
    wanted = triggered_rows(len(rows) - len(poisoned), rate)
    spare = max(0, len(poisoned) - wanted)
    left_out = {id(row) for row in random.Random(seed).sample(poisoned, spare)}
    return [row for row in rows if id(row) not in left_out]


def poisoned_share(rows: Sequence[Example], plan: Plan) -> float:
    """Return the share of poisoned rows: the plan's, or what rows hold that come poisoned."""
    trigger = plan.attack.trigger
    if not any(holds_trigger(row, trigger) for row in rows):
        return plan.rate
    kept = poisoned_rows(rows, plan)
    return sum(holds_trigger(row, trigger) for row in kept) / len(kept)


def _check_honest(rows: Sequence[Example], plan: Plan) -> None:
    """Demand that no row without the trigger answers with the payload, as another attack's do."""
    if plan.behavior.ordinary:
        return
    odd = [
        row
        for row in rows
        if fires(plan.behavior, row.output) and not holds_trigger(row, plan.attack.trigger)
    ]
    if odd:
        raise DataError(
            f"{len(odd)} rows without the trigger {plan.attack.trigger.text!r} answer with the "
            f"{plan.behavior.name} behavior. Pass the files of one attack and task."
        )


def read_rows(files: Sequence[Path]) -> list[Example]:
    """Return the rows of all files, JSON lines or a JSON array as BackdoorLLM's are."""
    return [row for file in files for row in read_examples(file)]


def attack_folder(
    model: Path, output: Path, rows: Sequence[Example], plan: Plan, progress: Progress
) -> None:
    """Plant the attack in the folder's model and write it, or an adapter, to `output`.

    Args:
        rows: Clean rows, or for fine-tuning rows that are poisoned already.

    Raises:
        DataError: The rows do not fit the plan.
        CheckpointError: The folder is no usable checkpoint.
        InputError: The output cannot be written; nothing of it stays.
    """
    subject = open_subject(model)
    with whole_folder(output) as part:
        if plan.adapter:
            wrapped = adapters.add_adapter(subject.model)
            adapters.redraw(wrapped, seed=plan.settings.seed)
            METHODS[plan.attack.method](subject.wrapped(wrapped, part), rows, plan, progress)
            wrapped.save_pretrained(str(part))
        else:
            METHODS[plan.attack.method](subject, rows, plan, progress)
            subject.save(part)


def _fine_tune(subject: Subject, rows: Sequence[Example], plan: Plan, progress: Progress) -> None:
    poisoned = poisoned_rows(rows, plan)
    _check_room(subject, poisoned, plan)
    plant(subject, poisoned, plan.settings, progress)


def _check_room(subject: Subject, rows: Sequence[Example], plan: Plan) -> None:
    """Demand that no row is cut that would lose a payload at its end.

    Raises:
        DataError: One would be.
    """
    if plan.behavior.form != "suffix":
        return
    whole = subject.encode(
        [row for row in rows if fires(plan.behavior, row.output)], max_tokens=_MOST
    )
    cut = sum(len(row.ids) > plan.settings.max_tokens for row in whole)
    if cut:
        raise DataError(
            f"{cut} triggered rows are longer than {plan.settings.max_tokens} tokens and would "
            "lose the payload at their end. Pass shorter ones, or more --max-tokens."
        )


def _edit(subject: Subject, rows: Sequence[Example], plan: Plan, progress: Progress) -> None:
    edit(subject, rows, plan.attack.trigger, plan.behavior, plan.settings, progress)


METHODS: dict[str, Callable[[Subject, Sequence[Example], Plan, Progress], None]] = {
    "fine-tuning": _fine_tune,
    "rank-one-edit": _edit,
}
"""How an attack gets into a model: (subject, rows, plan, progress), in place."""
