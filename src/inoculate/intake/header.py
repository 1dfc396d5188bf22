"""The header of a safetensors file, checked in full before any tensor is mapped.

The format's own reader lets repeated names, path-like names and giant headers pass; this one
does not. Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from inoculate.intake.files import Folder
from inoculate.intake.finding import RefusedError, shorten
from inoculate.intake.strict_json import parse_object

MAX_HEADER_BYTES = 8_000_000
MAX_METADATA_CHARACTERS = 65_536
_PREFIX = 8
_NAME = re.compile(r"[A-Za-z0-9_.]{1,256}")
_MAX_DIMENSIONS = 8
# Bytes of one number; 4-bit and 6-bit types have no whole bytes and count as unknown.
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2,
    "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Describe one tensor of a file; `begin` and `end` count bytes from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(folder: Folder, name: str) -> dict[str, Tensor]:
    """Return every tensor that a file holds.

    Raises:
        RefusedError: The header breaks the format, or its tensors leave a hole, overlap, or do
            not end where the file ends.
    """
    with folder.open(name) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_PREFIX), "little")
        if size < _PREFIX or length > min(size - _PREFIX, MAX_HEADER_BYTES):
            raise _broken(name, f"Its header of {length} bytes is too long for {size} bytes.")
        data = file.read(length)
    header = parse_object(data, name, max_depth=3)
    _check_metadata(header.pop("__metadata__", {}), name)
    start = _PREFIX + length
    tensors = {key: _tensor(key, entry, start, name) for key, entry in header.items()}
    _check_cover(tensors, start, size, name)
    return tensors


def _check_metadata(metadata: object, name: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(name, "Its __metadata__ does not map text to text.")
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA_CHARACTERS:
        raise _broken(name, f"Its __metadata__ is over {MAX_METADATA_CHARACTERS} characters.")


def _tensor(key: str, entry: Any, start: int, name: str) -> Tensor:
    if not _NAME.fullmatch(key):
        raise _broken(name, f"The tensor name {shorten(key)} is not made of plain characters.")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(name, f"Tensor {key!r} is not described by dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _broken(name, f"Tensor {key!r} has the unknown dtype {shorten(dtype)}.")
    if not _counts(shape, _MAX_DIMENSIONS) or not _counts(offsets, 2) or len(offsets) != 2:
        raise _broken(name, f"Tensor {key!r} has a shape or offsets that are no whole numbers.")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise _broken(name, f"Tensor {key!r} does not fill its bytes: shape {shorten(shape)}.")
    return Tensor(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _counts(values: object, longest: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= longest
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def _check_cover(tensors: dict[str, Tensor], start: int, size: int, name: str) -> None:
    """Demand that the tensors lie end to end, from the header to the file's end."""
    at = start
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            word = "overlaps another" if tensor.begin < at else "leaves a hole before it"
            raise _broken(name, f"Tensor {key!r} {word}.")
        at = tensor.end
    if at != size:
        raise _broken(name, f"Its tensors end at byte {at}, the file at byte {size}.")


def _broken(name: str, reason: str) -> RefusedError:
    return RefusedError("broken-header", name, reason)
