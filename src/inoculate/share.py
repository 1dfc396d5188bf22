"""How many components to neutralize, chosen by clean loss; forward passes only."""

from collections.abc import Callable, Sequence

from inoculate.chat import Encoded
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.train import mean_loss
from inoculate.trainable import restore, snapshot

GRID = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5)


def largest_harmless_share(
    subject: Subject,
    rows: Sequence[Encoded],
    neutralize_share: Callable[[float], object],
    *,
    max_increase: float,
    progress: Progress,
) -> float:
    """Return the largest share of `GRID` whose clean loss stays within the budget.

    The loss is taken right after neutralizing, without repair. The subject is left as it
    was. Bisection assumes that the loss grows with the share.

    Args:
        rows: Clean rows.
        neutralize_share: Neutralizes that share of the subject's components, in place.
        max_increase: Allowed growth of the loss, in nats.
    """
    subject.allow("all")
    start = snapshot(subject.model)
    budget = mean_loss(subject.model, rows) + max_increase
    low, high = 0, len(GRID)
    while high - low > 1:
        middle = (low + high) // 2
        neutralize_share(GRID[middle])
        loss = mean_loss(subject.model, rows)
        restore(subject.model, start)
        progress.note(f"share {GRID[middle]:.2%}: clean loss {loss:.3f} (budget {budget:.3f})")
        low, high = (middle, high) if loss <= budget else (low, middle)
    return GRID[low]
