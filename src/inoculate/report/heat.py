"""Attack success of every defense on every attacked model, as a heat map in inline SVG."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from inoculate.report import words

_NAMES, _HEADS, _ROW = 150.0, 120.0, 20.0
_INNER, _NARROW, _WIDE = 620.0, 30.0, 90.0


def draw_heat(study: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return cells and labels, defenses down and attacked models across; seeds are averaged.

    Where the attack failed nothing can be judged, and nothing is drawn. Nothing for a study of one
    attacked model.
    """
    comparisons: Sequence[Mapping[str, Any]] = study.get("comparisons") or []
    columns = dict.fromkeys(_column(one, comparisons) for one in comparisons)
    names = dict.fromkeys(row["defense"] for one in comparisons for row in one["rows"])
    if len(columns) < 2 or not names:
        return None
    width = min(_WIDE, max(_NARROW, _INNER / len(columns)))
    cells = [
        _cell(_rates(column, name, comparisons), _NAMES + across * width, _HEADS + down * _ROW)
        for down, name in enumerate(names)
        for across, column in enumerate(columns)
    ]
    return {
        "cells": [cell for cell in cells if cell],
        "cell_width": width - 1,
        "cell_height": _ROW - 1,
        "width": _NAMES + len(columns) * width + _HEADS * 0.6,
        "height": _HEADS + len(names) * _ROW,
        "rows": [
            {"x": _NAMES - 6, "y": _HEADS + (down + 0.65) * _ROW, "text": name}
            for down, name in enumerate(names)
        ],
        "columns": [
            {"x": round(_NAMES + (across + 0.5) * width, 1), "y": _HEADS - 6, "text": column}
            for across, column in enumerate(columns)
        ],
    }


def _column(one: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Name an attacked model by attack, task and threat, and by what else differs in the study."""
    parts = [str(one["attack"]), str(one["task"]), str(one["mode"])]
    if len({other.get("rate") for other in comparisons}) > 1:
        parts.append(words.percent(one["rate"]))
    if len({other.get("model") for other in comparisons}) > 1:
        parts.append(str(one["model"]))
    return " ".join(parts)


def _rates(column: str, name: str, comparisons: Sequence[Mapping[str, Any]]) -> list[float]:
    return [
        row["asr"]["rate"]
        for one in comparisons
        if _column(one, comparisons) == column and not one.get("attack_failed")
        for row in one["rows"]
        if row["defense"] == name and words.is_rate(row.get("asr"))
    ]


def _cell(rates: Sequence[float], x: float, y: float) -> dict[str, Any] | None:
    if not rates:
        return None
    mean = fmean(rates)
    return {
        "x": round(x, 1),
        "y": y,
        "opacity": round(0.04 + 0.96 * mean, 3),
        "dark": mean > 0.5,
        "text": f"{100 * mean:.0f}",
    }
