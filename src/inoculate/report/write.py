"""Write reports into an output folder."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from inoculate.report.card import render_card
from inoculate.report.layout import DEFAULT_LIMITS, DISSECTION_LIMITS
from inoculate.report.page import render_dissection, render_report, render_study
from inoculate.report.study import STUDY_LIMITS
from inoculate.report.tables import result_lines, study_markdown

_REPRODUCE = "# What this purification was made from. Settings left out kept their default rule.\n"


def write_report(folder: Path, report: Mapping[str, Any]) -> list[Path]:
    """Write report.json, report.html, README.md and reproduce.toml; return their paths.

    Args:
        folder: Made if it is missing; files of the same names are replaced.
        report: See `inoculate.report.layout.Report`. The default limits are always added.
    """
    whole = _with_limits(report, DEFAULT_LIMITS)
    texts = {
        "report.json": _json(whole),
        "report.html": render_report(whole),
        "README.md": render_card(whole),
        "reproduce.toml": _REPRODUCE + tomli_w.dumps(_reproduction(whole)),
    }
    return _write(folder, texts)


def write_study(folder: Path, study: Mapping[str, Any]) -> list[Path]:
    """Write results.jsonl, table.md, report.json and report.html of a study; return their paths.

    Args:
        folder: Made if it is missing; files of the same names are replaced.
        study: See `inoculate.report.study.Study`. Its limits are always added.
    """
    whole = _with_limits(study, STUDY_LIMITS)
    texts = {
        "results.jsonl": "".join(_json(line, indent=None) for line in result_lines(whole)),
        "table.md": study_markdown(whole),
        "report.json": _json(whole),
        "report.html": render_study(whole),
    }
    return _write(folder, texts)


def write_dissection(folder: Path, dissection: Mapping[str, Any]) -> list[Path]:
    """Write report.json and report.html of where a backdoor lives; return their paths.

    Args:
        folder: Made if it is missing; files of the same names are replaced.
        dissection: See `inoculate.report.layout.Dissection`. Its limits are always added.
    """
    whole = _with_limits(dissection, DISSECTION_LIMITS)
    return _write(folder, {"report.json": _json(whole), "report.html": render_dissection(whole)})


def _with_limits(report: Mapping[str, Any], always: Sequence[str]) -> dict[str, Any]:
    limits = [*always, *(report.get("limits") or [])]
    whole: dict[str, Any] = _plain({**report, "limits": list(dict.fromkeys(limits))})
    return whole


def _plain(value: Any) -> Any:
    """Return the value as JSON can hold it; a figure that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _json(value: Mapping[str, Any], *, indent: int | None = 1) -> str:
    # Pure ASCII: a viewer meets no control character and no lone surrogate.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, indent=indent) + "\n"


def _reproduction(report: Mapping[str, Any]) -> dict[str, Any]:
    model, data = report.get("model") or {}, report.get("clean_data") or {}
    parts = {
        "command": report.get("command"),
        "seed": report.get("seed"),
        "inputs": {
            "model": model.get("source"),
            "model_sha256": model.get("sha256"),
            "model_revision": model.get("revision"),
            "adapter": model.get("adapter"),
            "clean_data": data.get("source"),
            **(report.get("inputs") or {}),
        },
        "options": report.get("options"),
        "outputs": report.get("outputs"),
        "versions": report.get("versions"),
        "settings": report.get("settings"),
    }
    whole: dict[str, Any] = _without_none(parts)
    return whole


def _without_none(value: Any) -> Any:
    """Return what TOML can hold: no nulls, and no lone surrogates."""
    if isinstance(value, dict):
        return {
            _encodable(name): _without_none(entry)
            for name, entry in value.items()
            if entry is not None
        }
    if isinstance(value, list):
        return [_without_none(entry) for entry in value if entry is not None]
    return _encodable(value) if isinstance(value, str) else value


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8", newline="\n")
        paths.append(path)
    return paths
