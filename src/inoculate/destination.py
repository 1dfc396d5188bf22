"""Where a result goes: a new folder with room for it, and one run at a time."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from safetensors import SafetensorError

from inoculate.errors import InputError

LOCK = ".inoculate-lock"
"""Names who works in a folder; it stays in one whose stages stay, and says that it is ours."""


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


def refuse_foreign(folder: Path) -> None:
    """Demand that a folder whose content may be removed is new, empty, or left by an earlier run.

    Raises:
        InputError: Otherwise.
    """
    if folder.is_dir() and not (folder / LOCK).exists() and _others(folder):
        raise InputError(
            f"{folder} holds files that no run of inoculate left there. Choose another output."
        )


def check_destination(path: Path, inputs: Sequence[Path], *, like: Path) -> None:
    """Demand that an output lies outside the inputs, on a disk with room for it.

    Args:
        like: The input whose weights the output's are like.

    Raises:
        InputError: Otherwise.
    """
    for folder in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} lies inside {folder}. Choose a folder outside the input.")
    weights = (file for file in like.glob("*.safetensors") if file.is_file())
    needed = sum(file.stat().st_size for file in weights)
    free = shutil.disk_usage(path.resolve().parent).free
    if free < needed:
        raise InputError(
            f"{path} needs about {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free. "
            "Free some space or choose another folder."
        )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside an output, which takes its name when all of it is written.

    Raises:
        InputError: It cannot be written; nothing of it stays.
    """
    part = out.with_name(f"{out.name}.inoculate-part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        _readable(part)
        part.rename(out)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{out} cannot be written ({str(error).splitlines()[0]}). Free some space or choose "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _readable(folder: Path) -> None:
    """Give files that a library made for their owner alone what the folder gives to others."""
    shared = folder.stat().st_mode & 0o666
    for path in folder.iterdir():
        path.chmod(path.stat().st_mode | shared)


@contextmanager
def one_run(folder: Path, *, keep: bool) -> Iterator[None]:
    """Hold a run folder for one run at a time, for as long as the context lasts.

    The system lets go of the lock when its owner dies, however it dies.

    Args:
        keep: Leave the finished stages there when all went well, too.

    Raises:
        InputError: Another run holds it, or it cannot be made.
    """
    while (lock := _claim(folder)) is None:
        continue  # A run that ended took the lock file away in between.
    try:
        yield
        if not keep:
            _clear(folder)
    finally:
        with suppress(OSError):
            if not _others(folder):
                (folder / LOCK).unlink()
                folder.rmdir()
        os.close(lock)


def _clear(folder: Path) -> None:
    """Remove all but the lock, so that nobody else takes the folder meanwhile."""
    for path in _others(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _others(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != LOCK]


def _claim(folder: Path) -> int | None:
    """Return the locked file, which says who holds it, or None where it is not there any more."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}). Choose another output folder."
        ) from error
    try:
        _lock(lock, folder)
        if not os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
            raise FileNotFoundError
    except (InputError, FileNotFoundError) as error:
        os.close(lock)
        if isinstance(error, InputError):
            raise
        return None
    with suppress(OSError):  # On a full disk the lock holds all the same.
        os.truncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {gethostname()}".encode(), 0)
    return lock


def _lock(lock: int, folder: Path) -> None:
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 200, 0).decode(errors="replace") or "a process that just began"
        raise InputError(
            f"{folder} belongs to a run that is still going: {owner}. Wait for it, or choose "
            "another output."
        ) from None
