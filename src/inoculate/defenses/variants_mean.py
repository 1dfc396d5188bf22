"""Repair from the mean of the poisoned variants; an ablation of where the repair starts.

The variants have overwritten part of a hidden backdoor. Everything else is repair-only: the hunt
and what is taught come from the suspicious model.
"""

from inoculate.defenses.given import Given
from inoculate.purification import hunt_once
from inoculate.repair import prepare_lesson, repair
from inoculate.trainable import restore
from inoculate.variants import draw_backdoors, mean_of_variants


def repair_from_variants(given: Given) -> float:
    """Repair from the mean of the poisoned variants in place of the suspicious weights."""
    subject, settings, rows = given.subject, given.settings, given.rows
    run, progress = given.run, given.progress
    triggers = [backdoor.trigger for backdoor in draw_backdoors(settings)]
    found = hunt_once(subject, rows, settings, run, progress)
    lesson = prepare_lesson(subject, rows, triggers, found, settings, run, progress)
    restore(subject.model, mean_of_variants(subject, rows, settings, progress))
    repair(subject, lesson, settings, progress)
    return 0.0
