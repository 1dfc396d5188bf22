"""How numbers are written: percent only on the page, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inoculate.show import visible

MISSING = "–"


def percent(share: float | None) -> str:
    """Write a fraction as percent with one decimal."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{100 * share:.1f}%"


def interval(rate: Mapping[str, Any]) -> str:
    """Write the bounds of a rate."""
    return f"{100 * rate['low']:.1f}–{percent(rate['high'])}"


def hits(rate: Mapping[str, Any]) -> str:
    """Write what a rate was counted from."""
    return f"{rate['hits']} of {rate['n']}"


def number(value: float | None, *, digits: int = 2) -> str:
    """Write a figure with fixed decimals."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """Write a whole number with thousands apart."""
    return MISSING if value is None else f"{value:,}"


def size(parameters: int | None) -> str:
    """Write a number of parameters, such as `6.74 B`."""
    if parameters is None:
        return MISSING
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.2f} {name}"
    return count(parameters)


def duration(seconds: float | None) -> str:
    """Write seconds as a person would say them."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def percent_cell(rate: Any) -> str:
    """Write a rate in percent with its 95 % interval, or a dash where nothing was counted."""
    if not is_rate(rate):
        return MISSING
    return f"{percent(rate['rate'])} [{percent(rate['low'])}, {percent(rate['high'])}]"


def is_rate(value: Any) -> bool:
    """Tell whether a value is a rate of at least one trial."""
    return isinstance(value, Mapping) and bool(value.get("n"))


def memory(size: int | None) -> str:
    """Write a number of bytes, such as `1.2 GB`."""
    if not size:
        return MISSING
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.0f} MB"


def signed(change: float | None, *, digits: int = 3) -> str:
    """Write a difference with its sign."""
    return MISSING if change is None else f"{change:+.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """Write a p-value, never as zero."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"


def signed_percent(change: float) -> str:
    """Write a relative change with its sign."""
    return f"{100 * change:+.1f}%".replace("-", "−")


def points(change: Mapping[str, Any] | None) -> str:
    """Write a difference of shares in percentage points, with its interval."""
    if not change:
        return MISSING
    shown, low, high = (
        signed(100 * change[name], digits=1) for name in ("difference", "low", "high")
    )
    return f"{shown} points [{low}, {high}]"


def pooled(rates: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the hits and the trials of several rates together."""
    return sum(rate["hits"] for rate in rates), sum(rate["n"] for rate in rates)


def case_title(comparison: Mapping[str, Any]) -> str:
    """Write what an attacked model is, such as `badnets refusal, full, builtin, seed 0`."""
    rate = comparison.get("rate", 0.5)
    parts = [
        f"{comparison.get('attack')} {comparison.get('task')}",
        comparison.get("mode"),
        comparison.get("model"),
        None if rate == 0.5 else f"{percent(rate)} poisoned",
        f"seed {comparison.get('seed')}",
    ]
    return ", ".join(str(part) for part in parts if part)


def one_line(text: str) -> str:
    """Write text without anything that is hidden or begins a line."""
    return visible(text, keep="")


def settings_rows(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to dotted names and their values."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += settings_rows(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", "by default rule" if value is None else str(value)))
    return rows
