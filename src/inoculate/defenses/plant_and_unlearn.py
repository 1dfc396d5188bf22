"""Plant dummy backdoors, then un-teach them; a baseline in the manner of MB-Defense.

Source: the same synthetic backdoors and clean rows as the default recipe, no mask. They are taken
out where they were planted and at the rate of the default repair, in more steps than it has.
"""

from collections.abc import Sequence
from dataclasses import replace

from inoculate.attacks.poison import poison_pairs
from inoculate.attacks.triggers import Trigger
from inoculate.data import Example
from inoculate.defenses.given import Given
from inoculate.hunt import Hunt
from inoculate.repair import Lesson, prepare_lesson, repair, trained_part
from inoculate.repair.lesson import rate_factor
from inoculate.train import Schedule, train
from inoculate.variants import draw_backdoors


def plant_and_unlearn(given: Given) -> float:
    """Train all synthetic backdoors in at once, then repair with their triggers, in place."""
    subject, settings, rows = given.subject, given.settings, given.rows
    backdoors = draw_backdoors(settings)
    planted: list[Example] = []
    part = max(1, len(rows) // len(backdoors))
    for index, backdoor in enumerate(backdoors):
        own = rows[index * part : (index + 1) * part]
        planted += poison_pairs(
            own, backdoor.trigger, backdoor.behavior, poisoned=len(own), seed=settings.seed
        )[0]
    triggers = [backdoor.trigger for backdoor in backdoors]
    lesson = _lesson(given, triggers)
    subject.allow("blocks")
    schedule = Schedule(
        epochs=settings.variants.epochs,
        learning_rate=subject.learning_rate(settings.variants.learning_rate),
        batch_size=settings.variants.batch_size,
        seed=settings.seed,
    )
    train(subject.model, subject.encode(planted, max_tokens=settings.max_tokens), schedule)
    repair(subject, lesson, settings, given.progress)
    return 0.0


def _lesson(given: Given, triggers: Sequence[Trigger]) -> Lesson:
    """Return clean rows and rows with these triggers, to be learned as the default repair is."""
    subject, settings = given.subject, given.settings
    lesson = prepare_lesson(
        subject, given.rows, triggers, Hunt(), settings, given.run, given.progress
    )
    likely = Hunt(pressing=subject.is_large)
    return replace(
        lesson,
        touch=trained_part(subject, likely, settings),
        rate_factor=rate_factor(subject, likely),
        averaged=lesson.averaged and not likely.pressing,
    )
