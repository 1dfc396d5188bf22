"""The run folder: every finished stage is kept, and a second call goes on from it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inoculate.destination import LOCK
from inoculate.errors import InputError

Keep = Callable[[Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]]
"""Stores the tensors that a stage makes, or returns those that an earlier call made."""
Remember = Callable[[object, Callable[[], Any]], Any]
"""Stores the JSON value of a part of a stage under its key, or returns an earlier call's."""


class StoredTensors(Mapping[str, Tensor]):
    """Read the tensors of one file when they are asked for, and keep none of them."""

    def __init__(self, path: Path) -> None:
        opened: Any = safe_open(path, framework="pt")
        self._file = opened
        self._names = dict.fromkeys(opened.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Workspace:
    """Keep stage results below one folder, each under a key of what it was made from."""

    folder: Path

    def tensors(
        self, name: str, key: object, make: Callable[[], Mapping[str, Tensor]]
    ) -> StoredTensors:
        """Return the stage's tensors, made now or by an earlier call, read from disk either way.

        Args:
            name: Stage name, a relative path without ending.
            key: JSON-like value of all that the result depends on.
            make: Computes the tensors.

        Raises:
            InputError: The result cannot be written; finished stages stay.
        """
        path = self._path(name, key, "safetensors")
        with suppress(OSError, SafetensorError):
            return StoredTensors(path)
        made = {label: value.detach().cpu().contiguous() for label, value in make().items()}
        facts = {"made_from": _digest(key)}
        _replace(path, lambda part: save_file(made, part, metadata=facts))
        return StoredTensors(path)

    def record(self, name: str, key: object, make: Callable[[], Any]) -> Any:
        """Return the stage's JSON value, made now or by an earlier call.

        Raises:
            InputError: The result cannot be written; finished stages stay.
        """
        path = self._path(name, key, "json")
        with suppress(OSError, ValueError):
            return json.loads(path.read_text(encoding="utf-8"))
        return write_json(path, make())

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""
        for part in self.folder.rglob("*.part"):
            owner = part.name.split(".")[-2]
            if owner.isdecimal() and not _alive(int(owner)):
                part.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Return all that is kept, the lock left out."""
        found = sorted(self.folder.rglob("*"))
        return [path for path in found if path.is_file() and path.name != LOCK]

    def _path(self, name: str, key: object, ending: str) -> Path:
        return self.folder / f"{name}-{fingerprint(key)}.{ending}"


def fingerprint(value: object) -> str:
    """Return a short hash of a JSON-like value."""
    return _digest(value)[:12]


def write_json(path: Path, value: object) -> Any:
    """Write a JSON value whole or not at all; return it as it reads back.

    Raises:
        InputError: It cannot be written.
    """
    text = json.dumps(value, ensure_ascii=False, indent=1)
    _replace(path, lambda part: part.write_text(text, encoding="utf-8"))
    return json.loads(text)


def hash_files(paths: list[Path]) -> str:
    """Return one SHA-256 over the files' contents, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the path, let the disk take it up, and only then give it its name."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be written ({str(error).splitlines()[0]}). Free some space or let the "
            "folder be written to; the same command then goes on from the last finished stage."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
