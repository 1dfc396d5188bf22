"""Temporary folders that go with their owner, however it ends."""

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PREFIX, _UNBORN = "inoculate-", "new-"
_OWNER = "owner"


@dataclass(frozen=True)
class Scratch:
    """Hold a temporary folder, and the locked file in it that says that its owner lives."""

    folder: Path
    lock: int

    def remove(self) -> None:
        """Remove the folder, and let go of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)


def make_scratch() -> Scratch:
    """Return a new folder, after removing those whose owners were killed."""
    _sweep(Path(tempfile.gettempdir()))
    unborn = Path(tempfile.mkdtemp(prefix=_UNBORN + _PREFIX))
    lock = os.open(unborn / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    _lock(lock)
    # It gets the name under which others look for folders only now that it is locked.
    folder = unborn.rename(unborn.with_name(unborn.name.removeprefix(_UNBORN)))
    return Scratch(folder, lock)


def _sweep(home: Path) -> None:
    for folder in home.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder / _OWNER, os.O_RDWR)
            try:
                if _lock(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _lock(lock: int) -> bool:
    """Lock a file for as long as this process lives; false where that cannot be."""
    if os.name != "posix":
        return False
    import fcntl

    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
