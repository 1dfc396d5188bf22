"""Plant dummy backdoors, then un-teach them; a baseline in the manner of MB-Defense.

Source: the same synthetic backdoors and clean rows as the default recipe, no mask.
"""

from collections.abc import Sequence

from inoculate.attacks.poison import poison_pairs
from inoculate.config import Settings
from inoculate.data import Example, sample
from inoculate.hunt import Hunt
from inoculate.progress import Progress
from inoculate.repair import prepare_lesson, repair
from inoculate.subject import Subject
from inoculate.train import Schedule, train
from inoculate.variants import draw_backdoors
from inoculate.workspace import Workspace


def plant_and_unlearn(
    subject: Subject,
    clean: Sequence[Example],
    settings: Settings,
    share: float,
    run: Workspace,
    progress: Progress,
) -> float:
    """Train all synthetic backdoors in at once, then repair with their triggers, in place."""
    del share
    rows = sample(clean, settings.clean_rows, seed=settings.seed)
    backdoors = draw_backdoors(settings)
    planted: list[Example] = []
    part = max(1, len(rows) // len(backdoors))
    for index, backdoor in enumerate(backdoors):
        own = rows[index * part : (index + 1) * part]
        planted += poison_pairs(
            own, backdoor.trigger, backdoor.behavior, poisoned=len(own), seed=settings.seed
        )[0]
    triggers = [backdoor.trigger for backdoor in backdoors]
    lesson = prepare_lesson(subject, rows, triggers, Hunt(), settings, run, progress)
    subject.allow("blocks")
    schedule = Schedule(
        epochs=settings.variants.epochs,
        learning_rate=subject.learning_rate(settings.variants.learning_rate),
        batch_size=settings.variants.batch_size,
        seed=settings.seed,
    )
    train(subject.model, subject.encode(planted, max_tokens=settings.max_tokens), schedule)
    repair(subject, lesson, settings, progress)
    return 0.0
