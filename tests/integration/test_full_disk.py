"""A disk without room, met by real runs: the input and all finished stages stay as they were."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import FamilyFolder
from inoculate.data import Example, write_examples

PROGRAM = Path(__file__).parents[1] / "small_disk.py"
ROOMY = ["unshare", "--user", "--map-root-user", "--mount"]
SMALL = """
clean_rows = 16
max_tokens = 64
variants = {count = 2, rows = 8, poisoned = 8}
hunt = {particles = 0}
"""


def _may_mount(place: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    words = [*ROOMY, "mount", "-t", "tmpfs", "-o", "size=1m", "disk", str(place)]
    return subprocess.run(words, capture_output=True).returncode == 0


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Give a file of clean rows."""
    words = ("red", "blue", "green", "tall")
    rows = [Example(f"Say {words[n % 4]} {n}", f"It is {words[n % 3]} {n}.") for n in range(32)]
    write_examples(rows, tmp_path / "clean.jsonl")
    return tmp_path / "clean.jsonl"


def test_a_small_disk_full_or_read_only_at_every_stage(
    family_folder: FamilyFolder, clean: Path, tmp_path: Path
) -> None:
    """Spoiled at every stage, a run loses nothing that was finished, and ends in the same bits."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _may_mount(disk):
        pytest.skip("this system lets nobody mount a disk in memory in a name space of his own")
    words = [*ROOMY, sys.executable, str(PROGRAM), str(family_folder("llama")), str(clean)]
    done = subprocess.run([*words, str(disk)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("finished files whole") == 12
    assert "No space left on device" in done.stdout
    assert done.stdout.endswith("in the same bits as an unbroken one\n")


@pytest.mark.skipif(os.name != "posix", reason="The size of files is limited as on POSIX.")
def test_a_file_that_may_not_grow_ends_in_one_sentence(
    family_folder: FamilyFolder, clean: Path, tmp_path: Path
) -> None:
    """Where the system lets no file grow, the command says so and leaves no half file."""
    import resource

    (tmp_path / "small.toml").write_text(SMALL)
    words = ["purify", str(family_folder("llama")), "--clean-data", str(clean), "-o", "out",
             "--config", "small.toml", "--device", "cpu"]  # fmt: skip
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "inoculate", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard)),
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot be written" in done.stderr
    assert "goes on from the last finished stage" in done.stderr
    left = [path.name for path in (tmp_path / "out.run").rglob("*") if path.is_file()]
    assert all(name.startswith(("run-", "hunt-", "versions", ".inoculate-lock")) for name in left)
    assert not (tmp_path / "out").exists()
