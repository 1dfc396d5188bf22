"""Purify on a small disk of its own, which fills up at one stage after another.

    unshare --user --map-root-user --mount python tests/small_disk.py MODEL CLEAN_DATA DISK

`unshare` gives the process name spaces in which it may mount a disk in memory without any right
outside; nobody else sees that disk, and it goes with the process. Between two stages the disk is
read-only as well. Prints one line per stage.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from conftest import hunting_briefly
from inoculate.api import purify
from inoculate.config import HuntSettings, RepairSettings, Settings, SignatureSettings
from inoculate.config import VariantSettings as Variants
from inoculate.errors import InputError
from inoculate.workspace import hash_files

SETTINGS = Settings(
    clean_rows=16,
    max_tokens=64,
    variants=Variants(count=2, rows=8, poisoned=8),
    signature=SignatureSettings(max_clean_loss_increase=0.5),
    hunt=HuntSettings(particles=2, steps=2, candidates=2, hosts=2),
    repair=RepairSettings(epochs=1),
)
WEIGHTS = "*.safetensors"


@dataclass
class Disk:
    """Hold a disk in memory, and ways to spoil and mend it."""

    root: Path
    filler: Path = field(init=False)

    def __post_init__(self) -> None:
        """Mount it."""
        self.filler = self.root / "filler"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "disk", self.root], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), self.filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    def lock(self) -> None:
        """Turn it read-only."""
        subprocess.run(["mount", "-o", "remount,ro", self.root], check=True)

    def mend(self) -> None:
        """Make it writable and give the room back."""
        subprocess.run(["mount", "-o", "remount,rw", self.root], check=True)
        self.filler.unlink(missing_ok=True)


@dataclass
class At:
    """Do something when a stage begins."""

    name: str
    act: Callable[[], None]

    def stage(self, name: str) -> None:
        """Act at the stage that was asked for."""
        if name == self.name:
            self.act()

    def step(self, done: int, total: int) -> None:
        """Ignore the step."""

    def note(self, text: str) -> None:
        """Ignore the line."""


def contents(folder: Path) -> dict[str, bytes]:
    """Return what every file of a folder holds."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoil_each(model: Path, clean: Path, disk: Disk) -> None:
    """Spoil the disk at every stage in turn, and demand that what was finished stays as it was."""
    before, finished = contents(model), dict[str, bytes]()
    for stage in ("load", "variants", "signature", "hunt", "repair", "write"):
        for name, act in (("full", At(stage, disk.fill)), ("read-only", None)):
            if act is None:  # No open file keeps the disk from turning read-only now.
                disk.lock()
            said = refusal(model, clean, disk, act)
            now = contents(disk.root / "out.run")
            assert not (disk.root / "out").exists(), stage
            assert contents(model) == before, stage
            assert finished.items() <= now.items(), (stage, finished.keys() - now.keys())
            assert not [path for path in now if ".part" in path], stage
            disk.mend()
            finished = {path: data for path, data in now.items() if is_stage(path)}
            print(f"{stage}, {name}: {len(finished)} finished files whole; {said}")


def refusal(model: Path, clean: Path, disk: Disk, act: At | None) -> str:
    """Return the sentence with which a purification ends."""
    try:
        purify(model, disk.root / "out", clean_data_file=clean, settings=SETTINGS, device="cpu",
               progress=act)  # fmt: skip
    except InputError as error:
        return str(error)
    raise AssertionError("The run went through.")


def is_stage(name: str) -> bool:
    """Tell a finished stage from the lock, the run's name and what is half written."""
    file = Path(name).name
    return file != ".inoculate-lock" and ".part" not in file and not file.startswith("run-")


def main() -> None:
    """Spoil, go on to the end, and compare with a run that was never spoiled."""
    model, clean, root = map(Path, sys.argv[1:])
    disk = Disk(root)
    with hunting_briefly():
        spoil_each(model, clean, disk)
        for name in ("out", "unbroken"):
            purify(model, root / name, clean_data_file=clean, settings=SETTINGS, device="cpu")
    made = [sorted((root / name).glob(WEIGHTS)) for name in ("out", "unbroken")]
    assert hash_files(made[0]) == hash_files(made[1]), "The weights differ."
    assert sorted(os.listdir(root)) == ["out", "unbroken"]
    print("the run went on to the end, in the same bits as an unbroken one")


if __name__ == "__main__":
    main()
