"""Step 4, repair: clean rows, antibodies, and pressure on what the hunt found."""

from inoculate.repair.lesson import (
    Lesson,
    passes,
    prepare_lesson,
    presses,
    repair,
    soft_rows,
    trained_part,
)

__all__ = [
    "Lesson",
    "passes",
    "prepare_lesson",
    "presses",
    "repair",
    "soft_rows",
    "trained_part",
]
