"""Stream weights once: NaN, Inf, and a SHA-256 of every file, without torch."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from inoculate.intake.finding import Finding
from inoculate.intake.header import DTYPE_BYTES, Tensor

_BLOCK_BYTES = 1 << 24
# All bits of the exponent set mean NaN or infinity.
_EXPONENT: dict[str, tuple[str, int]] = {
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


def stream_weights(
    files: Mapping[str, Path],
    headers: Mapping[str, Mapping[str, Tensor]],
    step: Callable[[int, int], None],
) -> tuple[dict[str, str], list[Finding]]:
    """Read every weight file once.

    Args:
        files: File name → path.
        headers: File name → its tensors, already checked.
        step: Told the bytes done and the bytes in all.

    Returns:
        File name → SHA-256, and a finding for each file with a value that is no number.
    """
    total = sum(files[name].stat().st_size for name in headers)
    done, hashes, findings = 0, {}, []
    for name, header in headers.items():
        hashes[name] = _hash(files[name], lambda more, start=done: step(start + more, total))  # type: ignore[misc]
        done += files[name].stat().st_size
        bad = [key for key, tensor in header.items() if _holds_no_number(files[name], tensor)]
        if bad:
            reason = f"{len(bad)} tensors hold NaN or Inf, the first is {bad[0]!r}."
            findings.append(Finding("not-finite", name, reason))
    return hashes, findings


def _hash(path: Path, step: Callable[[int], None]) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            step(done)
    return digest.hexdigest()


def _holds_no_number(path: Path, tensor: Tensor) -> bool:
    kind, exponent = _EXPONENT[tensor.dtype]
    count = (tensor.end - tensor.begin) // DTYPE_BYTES[tensor.dtype]
    if not count:
        return False
    values = np.memmap(path, dtype=np.dtype(kind), mode="r", offset=tensor.begin, shape=(count,))
    pieces = range(0, count, _BLOCK_BYTES)
    return any(
        bool(((values[at : at + _BLOCK_BYTES] & exponent) == exponent).any()) for at in pieces
    )
