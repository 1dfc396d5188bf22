"""A stopped command ends soon, and says how to go on."""

import os
import signal
import subprocess
import sys
import time

import pytest

WORK = {
    "attentive": "while True:\n        time.sleep(0.01)",
    # A KeyboardInterrupt that a library swallows, as if it had never heard.
    "deaf": "while True:\n        try:\n            time.sleep(60)\n"
    "        except KeyboardInterrupt:\n            pass",
}
CODE = """
import time
from inoculate.cli import app, signals
signals._GRACE_SECONDS = 0.5
def work():
    print("begun", flush=True)
    {work}
app._guard(work)
"""
ENDING = """
import atexit, time
from inoculate.cli import app
atexit.register(lambda: (print("ending", flush=True), time.sleep(0.5)))
app._guard = lambda call: None
app.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="Signals are sent as on POSIX.")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", WORK)
def test_a_signal_ends_the_command_with_the_line(number: signal.Signals, work: str) -> None:
    """Both signals end even a process that swallows them, with 128 plus the signal's number."""
    code = CODE.format(work=WORK[work])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        started = time.perf_counter()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert time.perf_counter() - started < 5
    assert process.returncode == 128 + number
    assert said.strip().endswith("go on from the last finished stage with the same command.")


@pytest.mark.skipif(os.name != "posix", reason="Signals are sent as on POSIX.")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_has_ended_is_not_stopped(number: signal.Signals) -> None:
    """While Python cleans up after a command, a signal changes neither its exit code nor words."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ending\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
