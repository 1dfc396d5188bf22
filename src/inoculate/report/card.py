"""The model card of the purified model; nothing of the suspicious model's own card is in it."""

from collections.abc import Mapping, Sequence
from typing import Any

from inoculate.report import verdict, words
from inoculate.show import escape_markdown

_FRONT = """---
library_name: {library}
tags:
- backdoor-removal
- inoculate
---
"""


def render_card(report: Mapping[str, Any]) -> str:
    """Return the README.md that goes beside the purified weights."""
    model = report.get("model") or {}
    source = escape_markdown(str(model.get("source", "unnamed model")))
    parts = [
        _FRONT.format(library="peft" if model.get("adapter") else "transformers"),
        f"# {source}, purified\n",
        escape_markdown(" ".join(verdict.report_sentences(report))) + "\n",
        "## Source\n\n" + _table(("", ""), _source_rows(model)),
        "## Evidence\n\n" + _evidence(report),
        "## Limits\n\n" + "".join(f"- {escape_markdown(text)}\n" for text in report["limits"]),
        "## Repeat it\n\n"
        "`report.html` and `report.json` hold every figure, `reproduce.toml` the settings, "
        "seed, versions and input hashes.\n"
        "The license and the intended use of the source model go on to hold.\n",
    ]
    return "\n".join(parts)


def _source_rows(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("model type", model.get("model_type")),
        ("parameters", words.count(model.get("parameters"))),
        ("revision", model.get("revision")),
        ("SHA-256 of the suspicious weights", model.get("sha256")),
        ("adapter", model.get("adapter")),
    ]
    return [(label, str(value)) for label, value in rows if value is not None]


def _evidence(report: Mapping[str, Any]) -> str:
    """Return what was counted before and after, and what fires of backdoors that were planted."""
    counted = [*_of_the_hunt(report.get("hunt")), *_of_the_rest(report)]
    table = _table(("counted", "before", "after"), counted) + "\n" if counted else ""
    return table + _of_planted(report)


def _of_the_hunt(hunt: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    rows = []
    for one in (hunt, *hunt["others"]) if hunt and hunt["payload"] else ():
        said = f"“{one['payload']}”"
        rows += [
            (f"{said} on {place}", words.hits(one[name]), words.hits(one[f"{name}_after"]))
            for name, place in (("openly", "prompts as they are"), ("requested", "requests"))
            if one[name]
        ]
        if one["worded"]:
            begun = words.hits(one["finished_before"]), words.hits(one["finished_after"])
            rows.append((f"{said} on prompts on which it was begun", *begun))
        else:
            driven = words.hits(one["alike_before"]), words.hits(one["alike_after"])
            rows.append((f"{said} on disturbed prompts", *driven))
        if one["triggers"]:
            called = words.hits(one["before"]), words.hits(one["after"])
            rows.append((f"{said} on prompts with the hunted tokens", *called))
    return rows


def _of_the_rest(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    refusals, drift = report.get("refusals"), report.get("drift") or {}
    rows = []
    if refusals:
        counts = words.hits(refusals["before"]), words.hits(refusals["after"])
        rows.append(("requests refused", *counts))
    losses = [drift.get(f"response_nll_{stage}") for stage in ("before", "after")]
    if None not in losses:
        before, after = (words.number(loss, digits=3) for loss in losses)
        rows.append(("loss on held-out clean rows, nats per token", before, after))
    return rows


def _of_planted(report: Mapping[str, Any]) -> str:
    rows = [
        (f"synthetic backdoor {row['name']} fires", words.hits(row["asr"]), _rate(row["asr"]))
        for row in report.get("planted") or []
    ]
    rows += [
        (f"canary {row['name']} {row['stage']}", words.hits(row["asr"]), _rate(row["asr"]))
        for row in (report.get("canaries") or {}).get("rows") or []
    ]
    if not rows:
        return (
            "No attack success rate was measured: no backdoor was planted to try the treatment.\n"
        )
    return _table(("measured", "hits", "rate and 95% interval"), rows)


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{words.percent(rate['rate'])} ({words.interval(rate)})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head)]
    text = [" | ".join(line) for line in lines]
    text += [" | ".join(map(escape_markdown, row)) for row in rows]
    return "".join(f"| {line} |\n" for line in text)
