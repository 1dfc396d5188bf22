"""Attack success against what a defense costs, over its strength, as a picture in inline SVG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inoculate.report import words

_LEFT, _TOP, _WIDTH, _HEIGHT = 44.0, 8.0, 560.0, 260.0
_GOAL_ASR, _GOAL_GROWTH, _GOAL_LOSS = 0.05, 0.05, 0.01
_FARTHEST = 1.5  # times the undefended loss; what lies beyond is drawn at the edge
_TICKS = 5
_DASHES = ("6 3", "2 3", "8 3 2 3", "12 3")


@dataclass(frozen=True)
class Cost:
    """Name what a defense costs, the row's figure, and how much of it is within the goal."""

    label: str
    of: Callable[[Mapping[str, Any]], float | None]
    goal: Callable[[float], float]
    farthest: Callable[[float], float]


def _grown(value: float) -> float:
    return value * (1 + _GOAL_GROWTH)


def _lost(row: Mapping[str, Any]) -> float | None:
    rate = row.get("utility")
    return 1 - float(rate["rate"]) if words.is_rate(rate) and isinstance(rate, Mapping) else None


COSTS = (
    Cost(
        "loss on honest answers, nats per token",
        lambda row: row.get("response_nll"),
        _grown,
        lambda value: value * _FARTHEST,
    ),
    Cost(
        "perplexity",
        lambda row: row.get("perplexity"),
        _grown,
        lambda value: value * _FARTHEST,
    ),
    Cost("honest work done wrong", _lost, lambda value: value + _GOAL_LOSS, lambda _: 1.0),
)
"""The first that the undefended model has is drawn."""


def curves_of(comparison: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the measured rows of each curve, curves and rows in the order of the table."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in comparison["rows"]:
        if words.is_rate(row.get("asr")):
            curves.setdefault(str(row.get("curve") or row["defense"]), []).append(row)
    return curves


def draw_frontier(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return points, lines and axes; nothing where no curve has two points.

    The shaded corner is the goal: an ASR of at most 0.05, at a loss of at most five percent more
    than undefended, or one percent more of the work done wrong.
    """
    curves, cost = curves_of(comparison), _cost(comparison)
    if cost is None or all(len(rows) < 2 for rows in curves.values()):
        return None
    bare = _none(comparison)
    start = cost.of(bare) if bare else None
    found = (cost.of(row) for rows in curves.values() for row in rows)
    costs = [value for value in found if value is not None]
    scale = _scale(costs, cost, start)
    lines = [
        _line(number, name, rows, cost, scale)
        for number, (name, rows) in enumerate(curves.items(), start=1)
    ]
    goal = None if start is None else scale.x(cost.goal(start))
    return {
        "label": cost.label,
        "lines": lines,
        "left": _LEFT,
        "top": _TOP,
        "inner": _WIDTH,
        "bottom": _TOP + _HEIGHT,
        "width": _LEFT + _WIDTH + 12,
        "height": _TOP + _HEIGHT + 34,
        "goal": goal and {"width": round(goal - _LEFT, 1), "y": _y(_GOAL_ASR)},
        "across": scale.ticks(),
        "up": [{"y": _y(tick / 4), "text": f"{25 * tick}%"} for tick in range(5)],
    }


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def x(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(_LEFT + _WIDTH * (inside - self.low) / (self.high - self.low), 1)

    def ticks(self) -> list[dict[str, Any]]:
        step = (self.high - self.low) / (_TICKS - 1)
        values = [self.low + index * step for index in range(_TICKS)]
        return [{"x": self.x(value), "text": words.number(value)} for value in values]


def _scale(costs: Sequence[float], cost: Cost, start: float | None) -> _Scale:
    low, high = min(costs), max(costs)
    if start is not None:
        high = max(min(high, cost.farthest(start)), cost.goal(start))
    room = 0.04 * (high - low) or 0.01
    return _Scale(low - room, high + room)


def _line(
    number: int, name: str, rows: Sequence[Mapping[str, Any]], cost: Cost, scale: _Scale
) -> dict[str, Any]:
    points = [
        {
            "x": scale.x(value),
            "y": _y(row["asr"]["rate"]),
            "low": _y(row["asr"]["low"]),
            "high": _y(row["asr"]["high"]),
            "beyond": value > scale.high,
            "text": f"{row['defense']}: {words.percent(row['asr']['rate'])} at "
            f"{words.number(value, digits=3)}",
        }
        for row in rows
        if (value := cost.of(row)) is not None
    ]
    return {
        "number": number,
        "name": name,
        "points": points,
        "path": " ".join(f"{point['x']},{point['y']}" for point in points),
        "dash": "" if name.startswith("inoculate") else _DASHES[number % len(_DASHES)],
        "ours": name.startswith("inoculate"),
    }


def _cost(comparison: Mapping[str, Any]) -> Cost | None:
    bare = _none(comparison) or {}
    return next((cost for cost in COSTS if cost.of(bare) is not None), None)


def _none(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((row for row in comparison["rows"] if row["defense"] == "none"), None)


def _y(share: float) -> float:
    return round(_TOP + _HEIGHT * (1 - share), 1)
