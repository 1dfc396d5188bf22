"""Run a purification again from its reproduce.toml, and say how far the outputs agree."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from inoculate.api import purify
from inoculate.builtin.fixture import model_folder
from inoculate.config import Settings
from inoculate.errors import InputError
from inoculate.intake import admit_adapter, admit_model, fetch
from inoculate.models import weight_files
from inoculate.progress import Progress
from inoculate.provenance import BUILTIN, differences, versions
from inoculate.workspace import StoredTensors, hash_files

SAME, NEAR, APART = "bit for bit", "within tolerance", "differs"
WEIGHTS_TOLERANCE = 1e-3
"""Distance of two weight files: norm of the difference over the norm of the original."""
FIGURE_TOLERANCE = 0.01
"""Distance of two figures of the report, in nats or as a share."""
_FIGURES = ("response_nll_before", "response_nll_after", "kl_mean")


@dataclass(frozen=True)
class Agreement:
    """Say how one output agrees with the original: a verdict, and the figures behind it."""

    name: str
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Record:
    """Hold what a reproduce.toml says."""

    path: Path
    inputs: Mapping[str, str]
    options: Mapping[str, Any]
    outputs: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Settings


@dataclass(frozen=True)
class Given:
    """Name the inputs that the user gave; None for those to be looked for."""

    model: str | None = None
    adapter: Path | None = None
    clean_data: Path | None = None


def read_record(path: Path) -> Record:
    """Read a reproduce.toml.

    Raises:
        InputError: It cannot be read, or is not whole.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        inputs, options, outputs, made_with = (
            dict(content[name]) for name in ("inputs", "options", "outputs", "versions")
        )
        settings = Settings.model_validate(content["settings"])
        _demand_texts(inputs, outputs, made_with)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "its settings cannot be read" if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"{path} is no whole reproduce.toml ({reason}). Pass one that purify wrote."
        ) from error
    return Record(path, inputs, options, outputs, made_with, settings)


def _demand_texts(inputs: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
    """Raise ValueError where a record's names and hashes are not there, or are no texts."""
    if not all(others):
        raise ValueError("it names no outputs or no versions")
    for name, value in ((n, v) for table in (inputs, *others) for n, v in table.items()):
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
    for name in ("adapter", "clean_data"):
        if (name in inputs) != (f"{name}_sha256" in inputs):
            raise ValueError(f"{name} lacks its name or its hash")


def reproduce(
    record: Record, output: Path, given: Given, *, device: str | None, progress: Progress
) -> list[Agreement]:
    """Purify again with a record's inputs and settings; return how each output agrees.

    Args:
        output: Folder to create.
        given: Where the inputs are; what is None is looked for by its name.
        device: Where to compute in place of the recorded device.

    Raises:
        InputError: An input is not found, or is not the recorded one.
    """
    model, adapter, clean = _inputs(record, given)
    for line in differences({"versions": record.versions}, {"versions": versions()}):
        progress.note(line)
    options = record.options
    purify(
        model,
        output,
        adapter=adapter,
        clean_data_file=clean,
        settings=record.settings,
        merged=bool(options.get("merged")),
        with_challenge=bool(options.get("challenge")),
        max_utility_loss=options.get("max_utility_loss"),
        device=device or str(options.get("device", "auto")),
        progress=progress,
    )
    return compare_outputs(record, output)


def compare_outputs(record: Record, output: Path) -> list[Agreement]:
    """Return how each file and each figure agrees with the recorded one."""
    files = [_compare_file(record, name, output / name) for name in sorted(record.outputs)]
    try:
        old, new = (
            json.loads((folder / "report.json").read_text(encoding="utf-8"))
            for folder in (record.path.parent, output)
        )
    except (OSError, ValueError):
        return files
    figures = [(name, old["drift"].get(name), new["drift"].get(name)) for name in _FIGURES]
    figures.append(("share", old["signature"]["share"], new["signature"]["share"]))
    return files + [_compare_figure(*figure) for figure in figures]


def _compare_file(record: Record, name: str, new: Path) -> Agreement:
    expected, old = record.outputs[name], record.path.parent / name
    if Path(name).name != name or not new.is_file():
        return Agreement(name, APART, "it was not written")
    if hash_files([new]) == expected:
        return Agreement(name, SAME)
    if new.suffix != ".safetensors" or not old.is_file() or hash_files([old]) != expected:
        return Agreement(name, APART, "the original is not there to measure by")
    distance = weights_distance(old, new)
    detail = f"relative distance {distance:.2g}, tolerance {WEIGHTS_TOLERANCE:g}"
    return Agreement(name, NEAR if distance <= WEIGHTS_TOLERANCE else APART, detail)


def weights_distance(old: Path, new: Path) -> float:
    """Return ‖new − old‖ / ‖old‖ over all tensors; infinite where names or shapes differ."""
    try:
        one, other = StoredTensors(old), StoredTensors(new)
    except SafetensorError:
        return float("inf")
    if one.keys() != other.keys():
        return float("inf")
    apart = whole = 0.0
    for name in one:
        mine, theirs = one[name].double(), other[name].double()
        if mine.shape != theirs.shape:
            return float("inf")
        apart += float((theirs - mine).square().sum())
        whole += float(mine.square().sum())
    return float((apart / whole) ** 0.5) if whole else float("inf")


def _compare_figure(name: str, old: Any, new: Any) -> Agreement:
    if old == new:
        return Agreement(name, SAME)
    if not isinstance(old, float) or not isinstance(new, float):
        return Agreement(name, APART, f"{old} and {new}")
    detail = f"{old:.4f} and {new:.4f}, tolerance {FIGURE_TOLERANCE:g}"
    return Agreement(name, NEAR if abs(old - new) <= FIGURE_TOLERANCE else APART, detail)


def _inputs(record: Record, given: Given) -> tuple[Path, Path | None, Path | None]:
    """Return the folders of model and adapter and the data file, each with the recorded hash."""
    inputs = record.inputs
    model = _model(record, given.model)
    base = admit_model(model)
    _demand(model, hash_files(weight_files(base.folder)), inputs.get("model_sha256"))
    adapter = clean = None
    if "adapter" in inputs:
        adapter = _find(record, inputs["adapter"], given.adapter, "--adapter")
        staged = admit_adapter(adapter, base.config)
        _demand(adapter, hash_files(weight_files(staged.folder)), inputs.get("adapter_sha256"))
    if "clean_data_sha256" in inputs:
        clean = _find(record, inputs["clean_data"], given.clean_data, "--clean-data")
        _demand(clean, hash_files([clean]), inputs["clean_data_sha256"])
    return model, adapter, clean


def _model(record: Record, given: str | None) -> Path:
    name, commit = str(record.inputs.get("model")), record.inputs.get("model_revision")
    if (given or name) == BUILTIN:
        return model_folder()
    if given:
        return fetch(given)
    return fetch(f"{name}@{commit}") if commit else _find(record, name, None, "--model")


def _find(record: Record, name: str, given: Path | None, option: str) -> Path:
    """Return the given path, or that name here or beside the purified folder."""
    beside = record.path.resolve().parent.parent
    tried = [given] if given else [Path(name), beside / name]
    own = record.path.resolve().parent  # It often has the name of what it was made from.
    found = [
        path
        for path in tried
        if path.exists() and (given or (Path(name).name == name and path.resolve() != own))
    ]
    if not found:
        raise InputError(f"{name!r}, which {record.path} names, is not here. Pass {option}.")
    return found[0]


def _demand(path: Path, found: str, expected: str | None) -> None:
    if found != expected:
        raise InputError(
            f"{path} has SHA-256 {found[:12]}…, and the record was made from "
            f"{str(expected)[:12]}…. Pass the file that it was made from."
        )
