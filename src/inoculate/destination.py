"""Where a result goes: a new folder with room for it, and one run at a time."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from inoculate.errors import InputError


def refuse_existing(path: Path) -> None:
    """Demand that an output does not exist and that it can be made.

    Raises:
        InputError: Otherwise.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already. Choose a new output folder.")
    parent = path.resolve().parent
    if not parent.is_dir():
        raise InputError(f"{path.parent} is no folder. Create it first.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{parent} cannot be written to. Choose another output folder.")


def check_destination(path: Path, inputs: Sequence[Path]) -> None:
    """Demand that an output lies outside the inputs, on a disk with room for a copy of them.

    Raises:
        InputError: Otherwise.
    """
    needed = 0
    for folder in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} lies inside {folder}. Choose a folder outside the input.")
        weights = (file for file in folder.glob("*.safetensors") if file.is_file())
        needed += sum(file.stat().st_size for file in weights)
    free = shutil.disk_usage(path.resolve().parent).free
    if free < needed:
        raise InputError(
            f"{path} needs about {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free. "
            "Free some space or choose another folder."
        )


@contextmanager
def one_run(folder: Path, *, keep: bool) -> Iterator[None]:
    """Hold a run folder for one run at a time, for as long as the context lasts.

    Args:
        keep: Leave the finished stages there when all went well, too.

    Raises:
        InputError: Another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _claim(lock, folder)
        try:
            yield
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            _leave(folder)
    finally:
        os.close(lock)


def _leave(folder: Path) -> None:
    """Take the lock away, and the folder if nothing else is in it."""
    (folder / "lock").unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _claim(lock: int, folder: Path) -> None:
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{folder} belongs to a run that is still going. Wait for it, or choose another output."
        ) from None
