"""Which files hold the weights, and whether a shard index fits them."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath, PureWindowsPath

from inoculate.intake.files import Folder
from inoculate.intake.finding import Finding, RefusedError, shorten
from inoculate.intake.header import Tensor, read_header
from inoculate.intake.shapes import EMBEDDINGS, HEAD
from inoculate.intake.strict_json import parse_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 5_000_000
MAX_SHARDS = 2_000
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npz")
FLOATS = ("F32", "F16", "BF16")
_BLOCK_BYTES = 1 << 24
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True)
class Weights:
    """Hold the headers of all weight files and, for shards, the index."""

    headers: Mapping[str, Mapping[str, Tensor]]
    index: Mapping[str, object] | None = None

    def tensors(self) -> dict[str, tuple[str, Tensor]]:
        """Return tensor name → (file, tensor)."""
        return {
            key: (name, tensor)
            for name, header in self.headers.items()
            for key, tensor in header.items()
        }


def read_weights(folder: Folder) -> Weights:
    """Return the headers of the files that loading the folder would read.

    Raises:
        RefusedError: There are no safetensors, two sets of them, an index that does not fit its
            shards, a broken header, or a dtype that is not supported.
    """
    single, index = folder.find(SINGLE), folder.find(INDEX)
    weights = _sharded(folder) if index else None
    if single and weights is not None and set(weights.headers) == {SINGLE}:
        weights = Weights(weights.headers)  # Some tools write an index of the one file.
    elif single and index:
        reason = f"The folder holds {SINGLE} and {INDEX}; tools differ in which they load."
        raise RefusedError("two-weight-sets", INDEX, reason)
    if weights is None and single:
        weights = Weights({SINGLE: read_header(folder, SINGLE)})
    if weights is None:
        raise _no_weights(folder)
    for name, header in weights.headers.items():
        check_dtypes(header, name)
    return weights


def stray_weights(folder: Folder, weights: Weights) -> list[Finding]:
    """Return a warning for each safetensors file that is not loaded.

    Raises:
        RefusedError: A shard lies in the folder that the index does not name.
    """
    strays = [
        name
        for name in folder.files
        if name.endswith(".safetensors") and name not in weights.headers
    ]
    for name in strays:
        if _SHARD.fullmatch(name):
            raise RefusedError("broken-index", name, "No index names this shard.")
    return [Finding("ignored-file", name, "These weights are not loaded.") for name in strays]


def check_head(folder: Folder, weights: Weights) -> None:
    """Demand that a tied head which is stored as well holds the embeddings, bit for bit.

    Raises:
        RefusedError: It differs, so tools would differ in which of the two they use.
    """
    places = weights.tensors()
    if HEAD not in places:
        return
    parts = [_blocks(folder, *places[name]) for name in (HEAD, EMBEDDINGS)]
    if any(one != other for one, other in zip_longest(*parts)):
        reason = f"{HEAD!r} differs from the embeddings though they are tied."
        raise RefusedError("tensors", places[HEAD][0], reason)


def _blocks(folder: Folder, name: str, tensor: Tensor) -> Iterator[bytes]:
    with folder.open(name) as file:
        file.seek(tensor.begin)
        for start in range(tensor.begin, tensor.end, _BLOCK_BYTES):
            yield file.read(min(_BLOCK_BYTES, tensor.end - start))


def check_dtypes(header: Mapping[str, Tensor], name: str) -> None:
    """Demand floating-point weights of 16 or 32 bits.

    Raises:
        RefusedError: A tensor has another dtype, as quantized checkpoints do.
    """
    for key, tensor in header.items():
        if tensor.dtype not in FLOATS:
            raise RefusedError("dtype", name, f"Tensor {key!r} is stored as {tensor.dtype}.")


def _no_weights(folder: Folder) -> RefusedError:
    pickle = next((name for name in folder.files if name.endswith(PICKLES)), None)
    if pickle:
        return RefusedError("pickle-only", pickle, f"The folder holds it but no {SINGLE}.")
    gguf = next((name for name in folder.files if name.endswith(".gguf")), None)
    if gguf:
        return RefusedError("gguf-only", gguf, f"The folder holds it but no {SINGLE}.")
    reason = "The folder holds no safetensors weights under this name, nor a shard index."
    return RefusedError("missing-file", SINGLE, reason)


def _sharded(folder: Folder) -> Weights:
    index = parse_object(folder.read(INDEX, MAX_INDEX_BYTES), INDEX, max_depth=4)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise RefusedError("broken-index", INDEX, "It holds no weight_map.")
    named = defaultdict[str, list[str]](list)
    for tensor, place in places.items():
        named[_shard_name(place)].append(tensor)
    names = sorted(named)
    if len(names) > MAX_SHARDS:
        raise RefusedError("broken-index", INDEX, f"It names {len(names)} shards.")
    for name in names:
        if folder.find(name) is None:
            raise RefusedError("broken-index", INDEX, f"It names {name!r}, which is missing.")
    if len({folder.files[name] for name in names}) < len(names):
        raise RefusedError("broken-index", INDEX, "Two shards that it names are one file.")
    headers = {name: _checked_header(folder, name, named[name]) for name in names}
    return Weights(headers, {"metadata": _totals(index.get("metadata")), "weight_map": places})


def _checked_header(folder: Folder, name: str, named: Collection[str]) -> dict[str, Tensor]:
    """Return a shard's header, which has to hold the tensors named, and nothing else."""
    header = read_header(folder, name)
    if odd := sorted(header.keys() ^ set(named)):
        reason = f"It and the shards disagree about tensor {shorten(odd[0])}."
        raise RefusedError("broken-index", INDEX, reason)
    return header


def _shard_name(place: object) -> str:
    if not isinstance(place, str):
        raise RefusedError("broken-index", INDEX, f"It names {shorten(place)}, which is no text.")
    plain = PurePosixPath(place).name == PureWindowsPath(place).name == place
    if not plain or not place.endswith(".safetensors") or not place.isprintable():
        raise RefusedError(
            "broken-index", INDEX, f"It names {shorten(place)}, which is no file beside it."
        )
    return place


def _totals(metadata: object) -> dict[str, int]:
    if not isinstance(metadata, dict):
        return {}
    known = ("total_parameters", "total_size")
    return {key: metadata[key] for key in known if type(metadata.get(key)) is int}
