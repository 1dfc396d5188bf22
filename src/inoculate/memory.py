"""How much memory a piece of work takes at its peak, and giving back what it freed."""

import ctypes
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

_SECONDS = 0.02
_STATUS = Path("/proc/self/status")
_WORTH_TRIMMING = 1_000_000_000  # bytes
_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


class Peak:
    """Watch memory for as long as the context lasts; `bytes` is the most there was.

    It is that of the GPU where there is one, and otherwise the anonymous memory of this process,
    Python and torch included, sampled fifty times a second; 0 where the system does not tell.
    """

    def __enter__(self) -> "Peak":
        """Begin to watch."""
        self.bytes, self._ended = 0, threading.Event()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the watch."""
        self._ended.set()
        self._thread.join()
        self.bytes = max(self.bytes, _now())

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS):
            self.bytes = max(self.bytes, _now())


def give_back() -> None:
    """Return freed memory to the system, where the C library is one that keeps it.

    Steps of training free tensors of ever other sizes, and glibc keeps what lies between those
    that live on: a process would grow with each step (docs/log.md, "What a repair keeps"). It
    takes some milliseconds, so that a small process is let be.
    """
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim and _anonymous() > _WORTH_TRIMMING:
        trim(0)


def _now() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _anonymous()


def _anonymous() -> int:
    with suppress(OSError):
        found = re.search(r"RssAnon:\s+(\d+) kB", _STATUS.read_text("ascii"))
        return int(found[1]) * 1024 if found else 0
    return 0
