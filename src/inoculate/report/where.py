"""Where a backdoor lives, in one sentence and one picture."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from inoculate.report import words
from inoculate.report.verdict import attack_failed

_PERSISTS = 0.5  # of the rate with all of ΔW in place
_INNER, _MARGIN, _HEIGHT = 576.0, 34.0, 26.0
_PARTS = {"attention": "attention", "mlp": "the MLPs", "embeddings": "the embeddings"}


def where_sentence(dissection: Mapping[str, Any]) -> str:
    """Return what the ablations say of the place, and nothing where they cannot say it."""
    asr = {row["off"]: row["asr"] for row in dissection["parts"]}
    whole = asr["nothing"]
    if attack_failed(whole):
        return (
            f"Where this backdoor lives cannot be told: it fires on {_share(whole)} only, and "
            "half of them are needed."
        )
    if not _removed(asr["everything"], whole):
        return (
            "Where this backdoor lives cannot be told: the reference gives the payload as well, "
            f"on {_share(asr['everything'])}."
        )
    rest = "" if _removed(asr["attention"], whole) else f", {_redundancy(dissection, True)}"
    return (
        f"This backdoor lives {_place(asr)}: it fires on {_share(whole)}, on "
        f"{_percent(asr['attention'])} without ΔW_attn, on {_percent(asr['mlp'])} without ΔW_mlp "
        f"and on {_percent(asr['embeddings'])} without that of the embeddings; "
        f"{_redundancy(dissection, False)}{rest}."
    )


def sufficient_size(dissection: Mapping[str, Any], *, attention_off: bool) -> int | None:
    """Return the smallest window that removes the backdoor at every position tried, if any."""
    whole = dissection["parts"][0]["asr"]
    for size, rows in _by_size(dissection, attention_off):
        if all(_removed(row["asr"], whole) for row in rows):
            return size
    return None


def draw_windows(dissection: Mapping[str, Any], *, attention_off: bool) -> Mapping[str, Any] | None:
    """Return the rectangles of ASR over window size k (down) and position (across)."""
    sizes = _by_size(dissection, attention_off)
    if not sizes:
        return None
    cells = [
        {**_cell(row, column, len(rows)), "y": line * _HEIGHT}
        for line, (_, rows) in enumerate(sizes)
        for column, row in enumerate(rows)
    ]
    labels = [{"size": size, "y": (line + 0.65) * _HEIGHT} for line, (size, _) in enumerate(sizes)]
    return {
        "cells": cells,
        "labels": labels,
        "margin": _MARGIN,
        "width": _MARGIN + _INNER,
        "height": len(sizes) * _HEIGHT,
        "cell_height": _HEIGHT - 1,
    }


def _cell(row: Mapping[str, Any], column: int, columns: int) -> dict[str, Any]:
    width, last = _INNER / columns, row["first"] + row["size"] - 1
    rate = row["asr"]["rate"] or 0.0
    blocks = str(last) if row["size"] == 1 else f"{row['first']}–{last}"
    return {
        "x": round(_MARGIN + column * width, 2),
        "middle": round(_MARGIN + (column + 0.5) * width, 2),
        "width": round(width - 1, 2),
        "opacity": round(0.06 + 0.94 * rate, 3),
        "dark": rate > 0.5,
        "text": f"{blocks}: {words.percent(row['asr']['rate'])}",
    }


def _by_size(
    dissection: Mapping[str, Any], attention_off: bool
) -> list[tuple[int, list[Mapping[str, Any]]]]:
    rows: Sequence[Mapping[str, Any]] = dissection["windows"]
    kept = [row for row in rows if row["attention_off"] is attention_off]
    ordered = sorted(kept, key=lambda row: (row["size"], row["first"]))
    return [(size, list(group)) for size, group in groupby(ordered, lambda row: row["size"])]


def _place(asr: Mapping[str, Mapping[str, Any]]) -> str:
    whole = asr["nothing"]
    needed = [text for part, text in _PARTS.items() if _removed(asr[part], whole)]
    if needed:
        joined = " and ".join([", ".join(needed[:-1]), needed[-1]] if needed[1:] else needed)
        return f"in {joined}" + (" together, and needs each" if needed[1:] else "")
    if _removed(asr["attention and mlp"], whole):
        return "in the MLPs and in attention, each of which suffices"
    return "in no single part that was tried"


def _redundancy(dissection: Mapping[str, Any], attention_off: bool) -> str:
    tried = [size for size, _ in _by_size(dissection, attention_off)]
    size = sufficient_size(dissection, attention_off=attention_off)
    off = "with ΔW_attn off too" if attention_off else "with ΔW_mlp off in consecutive blocks"
    if not tried:
        return f"{off}, no window was tried"
    if size is None:
        return f"{off}, even {tried[-1]} of {dissection['layers']} do not remove it everywhere"
    return f"{off}, {size} of {dissection['layers']} remove it wherever they were tried"


def _removed(rate: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return bool(rate["rate"] < _PERSISTS * whole["rate"])


def _percent(rate: Mapping[str, Any]) -> str:
    return words.percent(rate["rate"])


def _share(rate: Mapping[str, Any]) -> str:
    return f"{_percent(rate)} of {rate['n']} triggered prompts"
