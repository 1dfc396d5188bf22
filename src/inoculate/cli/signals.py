"""How a command ends on SIGINT or SIGTERM: at once, with a line that tells how to go on."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from types import FrameType

STOPPED = (
    "inoculate: stopped. purify, demo, compare and reproduce go on from the last finished stage "
    "with the same command."
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 2.5


@dataclass
class Stop:
    """Hold the signal that came, or 0."""

    signal: int = 0

    def receive(self, number: int, _: FrameType | None) -> None:
        """Interrupt what is going on; a second signal ends the process as if nobody listened.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.signal = number
        for name in _SIGNALS:
            signal.signal(name, signal.SIG_DFL)
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn both signals into a KeyboardInterrupt, and end the process where that takes too long.

    Python hears a signal between two of its own steps; a long one of a library would make it
    deaf. What is half done then is no finished stage, so nothing is lost by ending it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    stop, done = Stop(), threading.Event()
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = [signal.signal(name, stop.receive) for name in _SIGNALS]
    wakeup = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ear, done), daemon=True).start()
    try:
        yield stop
    finally:
        done.set()
        signal.set_wakeup_fd(wakeup)
        for name, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(name, handler)
        os.close(mouth)


def hush() -> None:
    """Ignore both signals from now on: a command that has ended only cleans up."""
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_IGN)


def _watch(ear: int, done: threading.Event) -> None:
    """Wait for a signal; if the command has not ended a while after it, end it."""
    while heard := os.read(ear, 1):
        if heard[0] in _SIGNALS:
            break
    os.close(ear)
    if not heard or done.wait(_GRACE_SECONDS):
        return
    for child in active_children():
        child.kill()
    print(STOPPED, file=sys.stderr, flush=True)
    os._exit(128 + heard[0])
