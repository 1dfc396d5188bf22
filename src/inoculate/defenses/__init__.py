"""Defenses and controls, as values in one table."""

from inoculate.defenses.table import BASELINES, DEFENSES, DEMO_DEFENSES, MORE_CONTROLS, defend

__all__ = ["BASELINES", "DEFENSES", "DEMO_DEFENSES", "MORE_CONTROLS", "defend"]
