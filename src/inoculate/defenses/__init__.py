"""Defenses and controls, as values in one table."""

from inoculate.defenses.given import Given
from inoculate.defenses.table import (
    ABLATIONS,
    BASELINES,
    DEFENSES,
    DEMO_DEFENSES,
    MASKED,
    MORE_CONTROLS,
    REUSING,
    defend,
)

__all__ = [
    "ABLATIONS",
    "BASELINES",
    "DEFENSES",
    "DEMO_DEFENSES",
    "MASKED",
    "MORE_CONTROLS",
    "REUSING",
    "Given",
    "defend",
]
