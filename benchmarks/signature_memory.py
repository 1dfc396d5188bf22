"""Measure the signature's memory and speed on differences of a 1.3-billion-parameter model.

    python benchmarks/signature_memory.py --folder .

Writes two files of random bf16 differences (all channels and heads, 2.4 GB each) as the run folder
holds them, reads their bytes from disk, scores them, and removes them. The page cache is asked to
forget them before each reading. Exits with 1 if the peak of anonymous memory, Python and torch
included, is over 1 GiB, or if scoring takes over twice as long as reading.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import save_file

from inoculate.architecture import Architecture
from inoculate.components import CHANNELS, HEADS, tensor_names
from inoculate.signature import measure_differences
from inoculate.workspace import StoredTensors

ARCHITECTURE = Architecture("llama", 24, 2048, 5504, 16, 16, 128)
KINDS = (CHANNELS, HEADS)
VARIANTS = 2
ALLOWED_BYTES, ALLOWED_FACTOR = 2**30, 2.0
_BLOCK = 8 << 20


def shape_of(name: str) -> tuple[int, int]:
    """Return the shape of a tensor of the architecture."""
    hidden, width = ARCHITECTURE.hidden, ARCHITECTURE.mlp_width
    if "mlp" not in name:
        return hidden, hidden
    return (hidden, width) if "down" in name else (width, hidden)


def write_differences(path: Path, seed: int) -> None:
    """Write one file: each tensor is a window at a random place of one pool of noise."""
    generator = torch.Generator().manual_seed(seed)
    pool = (torch.randn(1 << 25, generator=generator) * 1e-4).to(torch.bfloat16)
    tensors = {}
    for kind in KINDS:
        for name in tensor_names(ARCHITECTURE, kind):
            rows, columns = shape_of(name)
            room = len(pool) - rows * columns
            at = int(torch.randint(room, (1,), generator=generator))
            tensors[name] = pool[at : at + rows * columns].clone().reshape(rows, columns)
    save_file(tensors, path)


def forget(paths: list[Path]) -> None:
    """Ask the page cache to forget the files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes(paths: list[Path]) -> float:
    """Return the seconds that reading all bytes takes."""
    forget(paths)
    started, block = time.perf_counter(), bytearray(_BLOCK)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
    return time.perf_counter() - started


def anonymous() -> int:
    """Return the bytes of anonymous memory of this process."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found
    return int(found[1]) * 1024


class Peak:
    """Sample anonymous memory every few milliseconds."""

    def __init__(self) -> None:
        """Begin."""
        self.bytes, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(0.005):
            self.bytes = max(self.bytes, anonymous())

    def stop(self) -> int:
        """Return the peak."""
        self._ended.set()
        self._thread.join()
        return self.bytes


def score(paths: list[Path]) -> tuple[float, int]:
    """Return the seconds that the signature takes, and the peak of anonymous memory."""
    forget(paths)
    peak, started = Peak(), time.perf_counter()
    deltas = [StoredTensors(path) for path in paths]
    for kind in KINDS:
        measure_differences(deltas, ARCHITECTURE, kind)
    return time.perf_counter() - started, peak.stop()


def main() -> None:
    """Write the files, measure, and remove them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="place for the files")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    names = [name for kind in KINDS for name in tensor_names(ARCHITECTURE, kind)]
    size = VARIANTS * sum(2 * shape_of(name)[0] * shape_of(name)[1] for name in names)
    free = shutil.disk_usage(options.folder).free
    if free < 1.1 * size:
        sys.exit(
            f"{options.folder.resolve()} has {free / 1e9:.1f} GB free and {1.1 * size / 1e9:.1f} "
            "GB are needed. Pass another --folder."
        )
    with tempfile.TemporaryDirectory(dir=options.folder) as home:
        paths = [Path(home) / f"{index}.safetensors" for index in range(VARIANTS)]
        with get_context("spawn").Pool(1) as pool:  # Its memory is not ours.
            pool.starmap(write_differences, zip(paths, range(VARIANTS), strict=True))
        reading, scoring, peak = float("inf"), float("inf"), 0
        for _ in range(options.repeats):
            reading = min(reading, read_bytes(paths))
            seconds, most = score(paths)
            scoring, peak = min(scoring, seconds), max(peak, most)
    print(f"{size / 1e9:.2f} GB in {VARIANTS} files, {torch.get_num_threads()} threads")
    print(f"reading {reading:.2f} s ({size / reading / 1e9:.2f} GB/s), scoring {scoring:.2f} s")
    print(f"scoring takes {scoring / reading:.2f} times as long as reading (allowed 2)")
    print(f"peak of anonymous memory {peak / 2**20:.0f} MiB (allowed 1024)")
    sys.exit(1 if peak > ALLOWED_BYTES or scoring > ALLOWED_FACTOR * reading else 0)


if __name__ == "__main__":
    main()
