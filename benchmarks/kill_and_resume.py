"""Kill `inoculate purify` at random moments, start it again, and compare the weights.

    python benchmarks/kill_and_resume.py --kills 25

One run goes through unbroken and tells how long each stage takes. Then runs with the same
arguments are killed with SIGKILL, each at a random moment of a random stage, and started again;
whenever one comes to its end, its weights are compared with the unbroken run's. Every tenth kill
is a SIGTERM, which must end within five seconds with the line that tells how to go on. Works on the
built-in model with settings so small that nothing is learned. Exits with 1 on any difference.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from inoculate.cli.signals import STOPPED

WEIGHTS = "model.safetensors"
STOP_SECONDS = 5.0
SETTINGS = """
clean_rows = 24
max_tokens = 64
variants = {rows = 16, poisoned = 16, epochs = 2.0, min_asr = 0.0, max_rounds = 1, probes = 4}
hunt = {particles = 2, steps = 4, candidates = 4, hosts = 2}
repair = {epochs = 3}
"""


@dataclass
class Attempt:
    """Watch one process; `stages` holds when each stage began, in seconds."""

    command: list[str]
    stages: list[tuple[str, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the process, one thread for its arithmetic, so that bits can be compared."""
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            number, dot, rest = line.strip().partition(". ")
            if number.isdecimal() and dot:
                self.stages.append((rest.split("  [")[0], time.perf_counter()))

    def wait_for(self, stage: str) -> bool:
        """Wait until the stage begins; false if the process ended without it."""
        while self.process.poll() is None:
            if any(name == stage for name, _ in self.stages):
                return True
            time.sleep(0.005)
        return False

    def finish(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait()
        self.reader.join()
        return code


def time_stages(command: list[str]) -> dict[str, float]:
    """Run to the end and return the seconds of each stage."""
    attempt = Attempt(command)
    if attempt.finish():
        sys.exit("\n".join(["The unbroken run failed.", *attempt.said]))
    starts = [*attempt.stages, ("", time.perf_counter())]
    return {name: later - at for (name, at), (_, later) in itertools.pairwise(starts) if name}


def kill_once(
    command: list[str], stage: str, delay: float, number: signal.Signals
) -> tuple[bool, list[str]]:
    """Start, stop in the stage after the delay; return whether it was hit, and complaints."""
    attempt = Attempt(command)
    hit = attempt.wait_for(stage)
    time.sleep(delay if hit else 0)
    hit = hit and attempt.process.poll() is None
    asked = time.perf_counter()
    if hit:
        attempt.process.send_signal(number)
    code = attempt.finish()
    wrong = []
    if hit and number == signal.SIGTERM:
        seconds = time.perf_counter() - asked
        print(f"     SIGTERM in {stage}: ended after {seconds:.1f} s with exit code {code}")
        if code and (seconds > STOP_SECONDS or code != 143 or STOPPED not in attempt.said):
            wrong.append(f"SIGTERM in {stage}: {seconds:.1f} s, exit code {code}")
    elif not hit and code:
        wrong.append("\n".join([f"exit code {code}", *attempt.said]))
    return hit and code != 0, wrong


def digest(folder: Path) -> str:
    """Return the SHA-256 of the purified weights."""
    return sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def purify_command(home: Path, name: str) -> list[str]:
    """Return the command that every run of this benchmark is."""
    return [
        sys.executable, "-m", "inoculate", "purify", "builtin", "-o", str(home / name),
        "--config", str(home / "small.toml"), "--device", "cpu",
    ]  # fmt: skip


def trial(home: Path, kills: int, chance: random.Random) -> list[str]:
    """Kill as often as asked and return what went wrong."""
    started = time.perf_counter()
    seconds = time_stages(purify_command(home, "unbroken"))
    expected, out = digest(home / "unbroken"), home / "broken"
    listed = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    print(f"unbroken: {time.perf_counter() - started:.1f} s ({listed})", flush=True)
    done, ends, hits, wrong = 0, 0, Counter[str](), list[str]()
    while done < kills or out.with_name("broken.run").exists():
        left = list(seconds) if done < kills else ["no stage: this one goes to its end"]
        stage = chance.choice(left)
        number = signal.SIGTERM if done % 10 == 9 else signal.SIGKILL
        delay = chance.uniform(0, seconds.get(stage, 0))
        hit, complaints = kill_once(purify_command(home, "broken"), stage, delay, number)
        wrong += complaints
        if hit:
            done += 1
            hits[stage] += 1
            print(f"{done:>3}. {number.name} in {stage}", flush=True)
        if out.exists():
            ends += 1
            if digest(out) != expected:
                wrong.append(f"after {done} kills the weights differ")
            shutil.rmtree(out)
            shutil.rmtree(out.with_name("broken.run"), ignore_errors=True)
        if len(wrong) > 3:
            break
    print(f"{done} kills ({dict(hits)}), {ends} runs came to their end")
    return wrong


def main() -> None:
    """Parse, try and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="moments of the kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "small.toml").write_text(SETTINGS, encoding="utf-8")
        wrong = trial(Path(home), options.kills, random.Random(options.seed))
    print("\n".join(wrong) if wrong else "every run ended in the same bits")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
