"""What a defense is given, and what it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inoculate.config import Settings
from inoculate.data import Example, sample
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.workspace import Workspace


@dataclass(frozen=True)
class Given:
    """Hold what every defense is given.

    Attributes:
        subject: Treated in place.
        clean: All clean rows at hand.
        share: Share of components that masks of the controls take, 0–1; the one that the
            default recipe chose.
        run: Where stages are kept that defenses share.
    """

    subject: Subject
    clean: Sequence[Example]
    settings: Settings
    share: float
    run: Workspace
    progress: Progress

    @property
    def rows(self) -> list[Example]:
        """Return the clean rows that the default recipe takes."""
        return sample(self.clean, self.settings.clean_rows, seed=self.settings.seed)


Defense = Callable[[Given], float]
"""Treats the subject and returns the share of components neutralized."""
