"""`inoculate inspect`: the audit alone, drawn and written down, without torch."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from inoculate.errors import InputError
from inoculate.intake import Audit, audit, revision
from inoculate.intake.deep import stream_weights
from inoculate.intake.sarif import to_sarif
from inoculate.show import visible

_STYLES = {"refused": "bold red", "warning": "yellow", "note": "dim"}


def inspect_folder(folder: Path, *, deep: bool, console: Console) -> tuple[Audit, dict[str, Any]]:
    """Audit a folder, and with `deep` stream its weights.

    Args:
        console: Shows a bar while weights are streamed, if it is a terminal.

    Returns:
        The audit, and what `--json` writes.
    """
    made = audit(folder)
    hashes: dict[str, str] = {}
    if deep and not made.refused:
        hashes = _stream(made, console)
    return made, _report(made, hashes)


def show_findings(console: Console, report: Mapping[str, Any]) -> None:
    """Print every finding on two lines, and the count of each severity."""
    for finding in report["findings"]:
        head = f"{finding['severity']:>8}  {finding['file']}: {finding['reason']}"
        _print(console, head, _STYLES[finding["severity"]])
        _print(console, f"          {finding['advice']}", "")
    counted = ", ".join(f"{number} {name}" for name, number in report["counts"].items())
    _print(console, f"{report['verdict']}: {report['source']} ({counted})", "bold")


def write_inspection(report: Mapping[str, Any], made: Audit, json_file: Path | None,
                     sarif_file: Path | None) -> None:  # fmt: skip
    """Write the findings as JSON, as SARIF, or both.

    Raises:
        InputError: A file cannot be written.
    """
    _write(json_file, lambda: report)
    _write(sarif_file, lambda: to_sarif(made.findings, version("inoculate")))


def _report(made: Audit, hashes: Mapping[str, str]) -> dict[str, Any]:
    severities = [finding.severity for finding in made.findings]
    tensors = [tensor for header in made.weights.values() for tensor in header.values()]
    return {
        "source": str(made.path),
        "revision": revision(made.path),
        "kind": made.kind,
        "verdict": "refused" if made.refused else "accepted",
        "model_type": made.config.get("model_type"),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "counts": {name: severities.count(name) for name in _STYLES},
        "findings": [finding.to_json() for finding in made.findings],
        "sha256": dict(hashes),
    }


def _stream(made: Audit, console: Console) -> dict[str, str]:
    assert made.folder is not None
    files = {name: made.folder.files[name] for name in made.weights}
    with _bar(console) as bar:
        hashes, found = stream_weights(files, made.weights, _stepper(bar))
    made.findings[:0] = found
    return hashes


def _bar(console: Console) -> AbstractContextManager[Progress | None]:
    if not console.is_terminal:
        return nullcontext(None)
    columns = (TextColumn("weights"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _stepper(bar: Progress | None) -> Callable[[int, int], None]:
    if bar is None:
        return lambda done, total: None
    task = bar.add_task("weights")
    return lambda done, total: bar.update(task, completed=done, total=total)


def _print(console: Console, text: str, style: str) -> None:
    console.print(
        visible(text, keep=""), style=style, markup=False, highlight=False, soft_wrap=True
    )


def _write(path: Path | None, make: Callable[[], object]) -> None:
    if path is None:
        return
    try:
        path.write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}). Choose another file."
        ) from None
