"""The demonstration: a study of one attacked model, with the controls that a reader asks for."""

from inoculate.defenses import DEMO_DEFENSES, MORE_CONTROLS
from inoculate.planting import PlantSettings
from inoculate.study.entry import Entry
from inoculate.study.grid import OURS, Block, Grid

PROCESSES = 2
"""Trials at once: two processes of one thread are faster than two threads of one."""

_EPOCHS, _RATE, _BATCH = 5.0, 4e-4, 16


def demo_grid(
    attack: str, task: str, *, seed: int, adapter: bool, all_controls: bool = False
) -> Grid:
    """Return the demonstration as a grid; an adapter takes the default rate of its kind."""
    names = (*DEMO_DEFENSES[:-1], *(MORE_CONTROLS if all_controls else ()), OURS)
    planting = PlantSettings(_EPOCHS, None if adapter else _RATE, _BATCH)
    attacked = Block(
        attacks=(attack,),
        tasks=(task,),
        threats=("adapter" if adapter else "full",),
        seeds=(seed,),
        planting=planting,
    )
    entries = tuple(Entry(name=name, defense=name, curve=name) for name in names)
    return Grid(title="Demonstration", defenses=entries, attacked=(attacked,))
