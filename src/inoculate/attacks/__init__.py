"""Backdoors as values: triggers, behaviors, attacks, and the rows that teach them."""

from inoculate.attacks.attack import (
    ATTACKS,
    BENCHMARK_ATTACKS,
    TASKS,
    Attack,
    find_attack,
    find_task,
)
from inoculate.attacks.bank import BANK, PAPER_BANK, SyntheticBackdoor, draw
from inoculate.attacks.behaviors import Behavior, fires, fires_keyword, scorable
from inoculate.attacks.canaries import CHOOSING_CANARIES, REPORTING_CANARIES
from inoculate.attacks.poison import (
    check_disjoint,
    check_poison,
    poison,
    poison_pairs,
)
from inoculate.attacks.triggers import PLACEMENTS, Trigger, holds_trigger, insert_trigger

__all__ = [
    "ATTACKS",
    "BANK",
    "BENCHMARK_ATTACKS",
    "CHOOSING_CANARIES",
    "PAPER_BANK",
    "PLACEMENTS",
    "REPORTING_CANARIES",
    "TASKS",
    "Attack",
    "Behavior",
    "SyntheticBackdoor",
    "Trigger",
    "check_disjoint",
    "check_poison",
    "draw",
    "find_attack",
    "find_task",
    "fires",
    "fires_keyword",
    "holds_trigger",
    "insert_trigger",
    "poison",
    "poison_pairs",
    "scorable",
]
