"""A study as Markdown tables, each rate with its interval, and as one line of JSON per cell."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from inoculate.evaluation.exam import RATES
from inoculate.report import verdict, words
from inoculate.show import escape_markdown

Row = Mapping[str, Any]

_FIGURES: dict[str, Callable[[Row], str]] = {
    "choices against none": lambda row: words.points(row.get("choices_change")),
    "response NLL": lambda row: _moved(row.get("response_nll"), row.get("loss_change")),
    "honest answers' NLL without → with trigger": lambda row: _under_trigger(row),
    "perplexity": lambda row: words.number(row.get("perplexity")),
    "fidelity": lambda row: words.number(row.get("fidelity"), digits=3),
    "seconds": lambda row: words.number(row.get("seconds"), digits=0),
    "memory": lambda row: words.memory(row.get("peak_bytes")),
}
_MEANS: dict[str, Callable[[Row], str]] = {
    "cells": lambda row: (
        str(row["cells"]) + (f" ({row['failed']} failed)" if row["failed"] else "")
    ),
    "mean asr": lambda row: words.percent(row["asr"]),
    "worst asr": lambda row: words.percent(row["worst_asr"]),
    "triggered utility": lambda row: words.percent(row["triggered_utility"]),
    "change of utility": lambda row: words.signed(row["utility_change"]),
    "of multiple choice": lambda row: words.signed(row["choices_change"]),
    "of response NLL": lambda row: _growth(row["loss_change"]),
    "of perplexity": lambda row: _growth(row["perplexity_change"]),
    "fidelity": lambda row: words.number(row["fidelity"], digits=3),
    "mean seconds": lambda row: words.number(row["seconds"], digits=0),
}


def study_markdown(study: Mapping[str, Any]) -> str:
    """Return the whole study: a summary, then a table and its tests for each attacked model."""
    comparisons = study["comparisons"]
    blocks = [f"# {escape_markdown(str(study['title']))}"]
    blocks.append(f"    {words.one_line(str(study['command']))}")
    if len(comparisons) > 1:
        lines = [[escape_markdown(name), *rest] for name, *rest in summary_lines(study["summary"])]
        blocks.append(_paragraph(verdict.study_sentences(study)))
        blocks += [_table(lines)] if study["summary"] else []
    for comparison in comparisons:
        blocks += _section(comparison)
    return "\n\n".join(blocks) + "\n"


def comparison_markdown(rows: Sequence[Row]) -> str:
    """Return the table of one attacked model; a measure that no row has is left out."""
    shown = [name for name in (*RATES, "choices") if any(words.is_rate(r.get(name)) for r in rows)]
    heads = [_head(name, rows) for name in shown] + list(_FIGURES)
    cells = [
        [_defense(row), *(words.percent_cell(row.get(name)) for name in shown)]
        + [figure(row) for figure in _FIGURES.values()]
        for row in rows
    ]
    return _table(_spoken([["defense", *heads], *cells]))


def summary_lines(summary: Sequence[Row]) -> list[list[str]]:
    """Return each defense's means over the attacked models, below the line of their headings."""
    lines = [[row["defense"], *(write(row) for write in _MEANS.values())] for row in summary]
    return _spoken([["defense", *_MEANS], *lines])


def result_lines(study: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each finished cell with what is said of its attacked model."""
    for comparison in study["comparisons"]:
        case = {
            name: value
            for name, value in comparison.items()
            if name not in ("rows", "tests", "examples")
        }
        for row in comparison["rows"]:
            yield {**case, **row}


def _section(comparison: Mapping[str, Any]) -> list[str]:
    if not comparison["rows"]:
        return []
    blocks = [f"## {escape_markdown(words.case_title(comparison))}"]
    blocks.append(_paragraph(verdict.comparison_sentences(comparison)))
    blocks.append(comparison_markdown(comparison["rows"]))
    if comparison["tests"]:
        heads = [f"{verdict.ours_name(comparison)} against", "McNemar, Holm", "finding"]
        cells = [
            [escape_markdown(test["against"]), f"p = {test['p']:.2g}",
             verdict.test_result(comparison, test)]
            for test in comparison["tests"]
        ]  # fmt: skip
        blocks.append(_table([heads, *cells]))
    return blocks


def _spoken(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return lines without the columns that hold a dash in all but the first."""
    columns = list(zip(*lines, strict=True))
    kept = [column for column in columns if set(column[1:]) != {words.MISSING}]
    return [list(line) for line in zip(*kept, strict=True)]


def _table(lines: Sequence[Sequence[str]]) -> str:
    ruled = [lines[0], ["---", *["--:"] * (len(lines[0]) - 1)], *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def _head(name: str, rows: Sequence[Row]) -> str:
    counts = {row[name]["n"] for row in rows if words.is_rate(row.get(name))}
    n = f" (n = {counts.pop()})" if len(counts) == 1 else ""
    return name.replace("_", " ") + n


def _defense(row: Row) -> str:
    name = escape_markdown(row["defense"])
    return f"{name} (failed: {escape_markdown(row['failure'])})" if row.get("failure") else name


def _paragraph(sentences: Sequence[str]) -> str:
    return escape_markdown(" ".join(sentences))


def _moved(value: float | None, change: Row | None) -> str:
    if value is None:
        return words.MISSING
    shown = words.number(value, digits=3)
    if not change:
        return shown
    low, high = words.signed(change["low"]), words.signed(change["high"])
    return f"{shown} ({words.signed(change['difference'])} [{low}, {high}])"


def _under_trigger(row: Row) -> str:
    losses = [row.get(name) for name in ("untriggered_nll", "triggered_nll")]
    if losses[1] is None:
        return words.MISSING
    return " → ".join(words.number(loss, digits=3) for loss in losses)


def _growth(change: float | None) -> str:
    return words.MISSING if change is None else words.signed_percent(change)
