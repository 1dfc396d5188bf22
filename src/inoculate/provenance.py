"""What a run is made from, and a run folder that is held to it."""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inoculate.builtin.fixture import model_folder
from inoculate.config import Settings
from inoculate.errors import (
    AttackError,
    DataError,
    DivergenceError,
    InputError,
    UtilityError,
    VariantError,
)
from inoculate.intake import revision
from inoculate.models import weight_files
from inoculate.subject import Subject
from inoculate.workspace import Workspace, hash_files, write_json

BUILTIN = "builtin"
_LIBRARIES = ("inoculate", "torch", "transformers", "peft", "safetensors")
_SHOWN = 6
_VERSIONS = "versions.json"
_VERDICTS = (VariantError, AttackError, UtilityError, DivergenceError, DataError)


def made_from(
    subject: Subject,
    clean_data_file: Path | None,
    settings: Settings,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the inputs with their SHA-256, the options, the settings and the versions.

    Args:
        options: What the user chose beside settings.
    """
    base = subject.base.staged
    adapter = subject.staged.folder if subject.staged else None
    file = clean_data_file if clean_data_file and clean_data_file.is_file() else None
    return {
        "inputs": {
            "model": model_name(base.source),
            "model_revision": revision(base.source),
            "model_sha256": hash_files(weight_files(base.folder)),
            "adapter": subject.adapter.resolve().name if subject.adapter else None,
            "adapter_sha256": hash_files(weight_files(adapter)) if adapter else None,
            "clean_data": file.name if file else None,
            "clean_data_sha256": hash_files([file]) if file else None,
        },
        "options": dict(options),
        "settings": settings.model_dump(),
        "versions": versions(),
    }


def model_facts(subject: Subject) -> dict[str, Any]:
    """Return what the report says of the model."""
    source = subject.source
    return {
        "source": model_name(source.source),
        "revision": revision(source.source),
        "model_type": subject.architecture.model_type,
        "parameters": subject.parameters(),
        "sha256": hash_files(weight_files(source.folder)),
        "adapter": subject.adapter.resolve().name if subject.adapter else None,
    }


def versions() -> dict[str, str]:
    """Return what decides a result: Python, the libraries, and a hash of inoculate's own code."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **libraries, "code": _code()}


@cache
def _code() -> str:
    package = Path(__file__).parent
    return hash_files(sorted(package.rglob("*.py")))[:12]


def model_name(folder: Path) -> str:
    """Return how the model is named to others: `builtin`, a hub id, or the folder's last part."""
    if folder == model_folder():
        return BUILTIN
    if revision(folder):
        return folder.resolve().parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.resolve().name


@contextmanager
def bound(run: Workspace, name: str, facts: Mapping[str, Any]) -> Iterator[None]:
    """Hold an unfinished run to what it was begun with, for as long as it is unfinished.

    A run that ends, well or with a verdict on its settings, frees its name; one that is killed,
    stopped or out of disk does not. The folder's stages stay those of one version either way.

    Args:
        name: Name of the run, that of its output.
        facts: See `made_from`.

    Raises:
        InputError: The name is that of a run which was begun with something else, or the folder
            holds stages of another version.
    """
    path, made = run.folder / f"run-{name}.json", run.folder / _VERSIONS
    begun = _read(path)
    if begun is not None and (found := differences(begun, facts)):
        raise InputError(
            f"{run.folder} holds an unfinished run with other arguments: {_listed(found)}. Go on "
            "with those, choose another output, or delete that folder."
        )
    kept = _read(made)
    if kept is not None and (found := differences(kept, facts["versions"])):
        raise InputError(
            f"{run.folder} holds stages of another version: {_listed(found)}. Choose another "
            "output, or delete that folder."
        )
    write_json(made, facts["versions"])
    write_json(path, facts)
    try:
        yield
    except BaseException as error:
        if isinstance(error, _VERDICTS) or run.files() == [path, made]:
            _forget(path)
        if run.files() == [made]:
            _forget(made)
        raise
    path.unlink(missing_ok=True)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a sentence part for each entry that differs, such as `seed was 0 and is 1`."""
    one, other = _flat(old), _flat(new)
    return [
        f"{name} was {one.get(name)!r} and is {other.get(name)!r}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _listed(found: list[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        inner = isinstance(entry, Mapping)
        flat |= _flat(entry, f"{prefix}{name}.") if inner else {f"{prefix}{name}": entry}
    return flat


def _forget(path: Path) -> None:
    with suppress(OSError):  # What went wrong before is the news, not a disk that became read-only.
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts
