"""Which files of an untrusted folder may be read, and how they are read."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from inoculate.intake.finding import Finding, RefusedError, shorten

MAX_ENTRIES = 20_000
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class Folder:
    """Hold the readable files of a folder by name, and why others cannot be read.

    `seals` are what the file system said of each file when it was first opened.
    """

    path: Path
    files: Mapping[str, Path]
    unsafe: Mapping[str, str]
    seals: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def find(self, name: str) -> Path | None:
        """Return the regular file behind a name, or None.

        Raises:
            RefusedError: The name is a folder, a link out of the folder, a device or a pipe.
        """
        if name in self.unsafe:
            raise RefusedError("unsafe-file", name, f"It is {self.unsafe[name]}.")
        return self.files.get(name)

    def need(self, name: str) -> Path:
        """Return the regular file behind a name.

        Raises:
            RefusedError: There is none.
        """
        found = self.find(name)
        if found is None:
            raise RefusedError("missing-file", name, "The folder holds no such file.")
        return found

    def open(self, name: str) -> BinaryIO:
        """Return a file opened for reading.

        Raises:
            RefusedError: It is missing, unsafe or unreadable.
        """
        path = self.need(name)
        try:
            file = os.fdopen(os.open(path, _OPEN), "rb")
            self.seals.setdefault(name, seal_of(os.fstat(file.fileno())))
        except OSError as error:
            raise RefusedError("unsafe-file", name, f"It cannot be read: {_why(error)}.") from None
        return file

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes.

        Raises:
            RefusedError: It is missing, unsafe, unreadable or larger than `limit` bytes.
        """
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            reason = f"It is larger than {limit // 1_000_000 or limit / 1e6:g} MB."
            raise RefusedError("oversized-file", name, reason)
        return data


def open_folder(path: Path) -> Folder:
    """List a folder without following a link out of it.

    Raises:
        RefusedError: It is no folder, cannot be read, or holds absurdly many entries.
    """
    try:
        root = path.resolve(strict=True)
        names = sorted(entry.name for entry in os.scandir(root))
    except (OSError, RuntimeError, ValueError) as error:
        raise RefusedError("no-folder", ".", f"It cannot be listed: {_why(error)}.") from None
    if len(names) > MAX_ENTRIES:
        raise RefusedError("no-folder", ".", f"It holds {len(names)} entries.")
    files: dict[str, Path] = {}
    unsafe: dict[str, str] = {}
    for name in names:
        target = _target(root, name)
        if isinstance(target, Path):
            files[name] = target
        else:
            unsafe[name] = target
    return Folder(root, files, unsafe)


def seal_of(facts: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file that was changed or exchanged from the one that it was."""
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def unsafe_findings(folder: Folder) -> list[Finding]:
    """Return a warning for each link, device and pipe; inner folders are left alone."""
    return [
        Finding("ignored-file", name, f"It is {why}, so it is not opened.")
        for name, why in folder.unsafe.items()
        if why != "a folder"
    ]


def _target(root: Path, name: str) -> Path | str:
    """Return the regular file that a name stands for, or what it is instead."""
    try:
        path = (root / name).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError) as error:
        return f"a link that leads nowhere ({_why(error)})"
    if not any(path.is_relative_to(home) for home in _homes(root)):
        return "a link that leaves the folder"
    if stat.S_ISREG(mode):
        return path
    return next((kind for test, kind in _KINDS if test(mode)), "no regular file")


def _homes(root: Path) -> tuple[Path, ...]:
    """Return where files may lie: the folder, and the blobs of its hub cache."""
    if root.parent.name != "snapshots":
        return (root,)
    blobs = root.parent.parent / "blobs"
    return (root, blobs) if blobs.resolve() == blobs else (root,)


def _why(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shorten(words).strip("'\"")
