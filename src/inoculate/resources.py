"""What a run will take of memory and disk, known before it begins.

Sizes come from the headers of the weight files, so nothing is loaded. Left out are activations,
which depend on the rows: the figures are what weights, gradients and optimizer alone take.
"""

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from inoculate.architecture import parse_architecture
from inoculate.components import SCOPES, tensor_names
from inoculate.config import Settings
from inoculate.errors import InputError
from inoculate.intake.files import open_folder
from inoculate.intake.finding import RefusedError
from inoculate.intake.model_config import read_config
from inoculate.intake.shapes import EMBEDDINGS
from inoculate.intake.weights import read_weights
from inoculate.models import resolve_device
from inoculate.precision import in_bf16
from inoculate.trainable import TOUCHES
from inoculate.workspace import Workspace

_LIBRARIES = 500_000_000
_LIGHTER = ', pass --variants-as lora and a --config file with form = "lora" under [repair]'
_FP32, _BF16 = 4, 2
_SHORT_FILE = 1.01  # A tensor or two may be longer.
# Weights, gradients, two moments of AdamW.
_TRAINED = 4 * _FP32
# Where a control group's limit and usage are, in its second and its first version.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Sizes:
    """Hold what a checkpoint's headers tell: parameters in all, scored, repaired; bytes of files.

    Attributes:
        changed: Parameters that neutralizing or the repair may change.
        embedded: Parameters of embeddings, which no computation casts.
        largest_file: Bytes of the weight file that takes most, as each is written whole.
    """

    parameters: int
    scored: int
    repaired: int
    changed: int
    embedded: int
    file_bytes: int
    largest_file: int


@dataclass(frozen=True)
class Need:
    """Hold bytes that a run takes at its peak: memory, the run folder, the output.

    Attributes:
        advice: What would take less memory.
    """

    memory: int
    run_folder: int
    output: int
    advice: str = ""


def check_run(
    model: Path,
    adapter: Path | None,
    output: Path,
    run: Workspace,
    settings: Settings,
    options: Mapping[str, Any],
) -> list[str]:
    """Demand that memory and disk suffice for a run; return a line with the figures.

    Args:
        options: Whether the output is `merged`, whether there is a `challenge`, the `device`.

    Raises:
        InputError: One does not suffice; the message holds the figures.
    """
    sizes = read_sizes(model, settings)
    if sizes is None:
        return []  # The intake says why.
    files = adapter.glob("*.safetensors") if adapter else ()
    need = estimate(
        sizes,
        settings,
        adapter_bytes=sum(file.stat().st_size for file in files) if adapter else None,
        merged=options["merged"],
        challenge=options["challenge"],
        kind=resolve_device(options["device"]).type,
    )
    kept = sum(path.stat().st_size for path in run.files())
    return [check_room(need, output, run.folder, options["device"], kept=kept)]


def read_sizes(folder: Path, settings: Settings) -> Sizes | None:
    """Return a checkpoint's sizes, or None for a folder that the intake will refuse.

    Raises:
        ArchitectureError: The model type is not supported.
    """
    try:
        opened = open_folder(folder)
        tensors = read_weights(opened).tensors()
        architecture = parse_architecture(read_config(opened, []))
    except RefusedError:
        return None
    counts = {name: prod(tensor.shape) for name, (_, tensor) in tensors.items()}
    kinds = SCOPES[settings.signature.scope]
    scored = {name for kind in kinds for name in tensor_names(architecture, kind)}
    # `auto` may come to all blocks, which only the hunt decides.
    touch = "blocks" if settings.repair.touch == "auto" else settings.repair.touch
    repaired = {name for name in counts if TOUCHES[touch](name)}
    files: Counter[str] = Counter()
    for file, tensor in tensors.values():
        files[file] += tensor.end - tensor.begin
    return Sizes(
        parameters=sum(counts.values()),
        scored=_total(counts, scored),
        repaired=_total(counts, repaired),
        changed=_total(counts, scored | repaired),
        embedded=_total(counts, {EMBEDDINGS}),
        file_bytes=files.total(),
        largest_file=max(files.values()),
    )


def estimate(
    sizes: Sizes,
    settings: Settings,
    *,
    adapter_bytes: int | None,
    merged: bool,
    challenge: bool,
    kind: str,
) -> Need:
    """Return the peaks of a run.

    Args:
        adapter_bytes: Size of the treated adapter's file; None for a full checkpoint.
        kind: Kind of device. Where it computes in bf16 each weight is cast. Differences of
            variants, and weights to return to, are never on a GPU.
    """
    pairs = settings.variants.count * (2 if challenge else 1)
    bf16, differences = in_bf16(sizes.parameters, kind), sizes.scored * _BF16
    held, kept = _frozen(sizes, bf16=bf16), differences * pairs
    lent = held + _LIBRARIES + (0 if kind == "cuda" else differences)
    if adapter_bytes is not None:
        merging = sizes.largest_file if merged else 0
        output = sizes.file_bytes if merged else adapter_bytes
        return Need(lent + merging, kept + 2 * adapter_bytes, output)
    least = lent + (0 if kind == "cuda" else held)
    trained = _trained(sizes, settings, kind=kind, challenge=challenge)
    whole = trained + sizes.parameters * _BF16 * bf16 + _LIBRARIES
    memory = least if settings.low_rank and not challenge else max(whole, least)
    advice = f"{_LIGHTER} ({_gb(least)})," if least < memory and not challenge else ""
    return Need(memory, kept + sizes.changed * _FP32, sizes.file_bytes, advice)


def _trained(sizes: Sizes, settings: Settings, *, kind: str, challenge: bool) -> int:
    """Return the bytes that a full checkpoint takes that trains in fp32.

    Of full variants: weights, gradients, two moments and the start they return to (20 bytes a
    parameter) beside the poisoned copy of what is scored. Gradients need no moments, low-rank
    variants the weights and the start. The challenge keeps one more copy.
    """
    weights, scored = sizes.parameters * _FP32, sizes.scored * _FP32
    copy = 0 if kind == "cuda" else weights
    moments = 0 if settings.repair.form == "lora" else sizes.repaired * (_TRAINED - _FP32)
    forms = {"gradient": 2 * weights + scored, "full": 4 * weights + scored, "lora": weights}
    return max(forms[settings.variants.form] + copy, weights + moments) + copy * challenge


def _frozen(sizes: Sizes, *, bf16: bool) -> int:
    """Return the bytes of weights under an adapter, in 16 bits where they are cast to as many."""
    short = bf16 and sizes.file_bytes <= _SHORT_FILE * sizes.parameters * _BF16
    whole = sizes.parameters * (_FP32 + _BF16 * bf16)
    return (sizes.parameters + sizes.embedded) * _BF16 if short else whole


def check_room(need: Need, output: Path, run_folder: Path, device: str, *, kept: int) -> str:
    """Demand that memory and disk suffice; return a line with the figures.

    Args:
        kept: Bytes of finished stages that are there already.

    Raises:
        InputError: One does not suffice; the message holds the figures.
    """
    free, place = free_memory(device)
    if free is not None and free < need.memory:
        raise InputError(
            f"The run needs about {_gb(need.memory)} of {place} and {_gb(free)} is free. "
            f"Free some{need.advice} or take a larger machine."
        )
    one, other = _existing(output), _existing(run_folder)
    left = max(0, need.run_folder - kept)
    shared = one.stat().st_dev == other.stat().st_dev
    disks = [(one, need.output + left)] if shared else [(one, need.output), (other, left)]
    for folder, needed in disks:
        room = shutil.disk_usage(folder).free
        if room < needed:
            raise InputError(
                f"The run needs about {_gb(needed)} in {folder} and its disk has {_gb(room)} free. "
                "Free some space, lower variants.count, or choose another folder."
            )
    known = _gb(free) if free is not None else "unknown"
    disk = need.output + left
    return f"needs about {_gb(need.memory)} of {place} ({known} free), {_gb(disk)} of disk"


def free_memory(device: str) -> tuple[int | None, str]:
    """Return the bytes that can still be had where the device computes, and what they are."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        _, _, index = device.partition(":")
        return torch.cuda.mem_get_info(int(index) if index else None)[0], "GPU memory"
    limits = [_available(), *(_left(Path(group), *names) for group, *names in _GROUPS)]
    known = [limit for limit in limits if limit is not None]
    return min(known, default=None), "memory"


def _available() -> int | None:
    with suppress(OSError, ValueError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
        return int(found[1]) * 1024 if found else None
    return None


def _left(group: Path, limit: str, usage: str) -> int | None:
    """Return what a control group leaves; its file cache is given up when memory is wanted."""
    with suppress(OSError, ValueError):
        most, used = (int((group / name).read_text("ascii")) for name in (limit, usage))
        found = re.findall(r"^(?:in)?active_file (\d+)", (group / "memory.stat").read_text(), re.M)
        return max(0, most - used + sum(int(size) for size in found))
    return None


def _existing(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    whole = path.resolve()
    return next(parent for parent in (whole, *whole.parents) if parent.is_dir())


def _total(counts: Mapping[str, int], names: set[str]) -> int:
    return sum(counts.get(name, 0) for name in names)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
