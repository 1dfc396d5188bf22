"""From a name to a folder: hub ids are fetched at one revision, and that revision is known."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from inoculate.errors import InputError
from inoculate.intake.adapter import WEIGHTS as ADAPTER
from inoculate.intake.files import open_folder
from inoculate.intake.finding import RefusedError
from inoculate.intake.strict_json import parse_object
from inoculate.intake.weights import INDEX, MAX_INDEX_BYTES, SINGLE

_SMALL = ("*.json", "*.jinja")
_BELOW = ("*/*",)
_WEIGHTS = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(model: str | Path) -> Path:
    """Return the checkpoint folder; a hub id, or `id@revision`, is downloaded at one commit.

    Only JSON and Jinja files are downloaded, then the weights that would be loaded, and nothing of
    folders below.

    Raises:
        InputError: It is neither a folder nor a hub id that can be fetched.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder} is a file. Pass a checkpoint folder.")
    name, _, wanted = str(model).partition("@")
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"{folder} does not exist. Pass a checkpoint folder, or a hub id org/name."
        )
    try:
        small = _download(name, wanted, _SMALL)
        return _download(name, revision(small) or wanted, (*_SMALL, *_weight_names(small)))
    except Exception as error:  # The library's own, its HTTP client's or the system's.
        raise InputError(
            f"{str(model)!r} is no folder here, and the hub did not give it. Check the name, the "
            "network and your access, or pass a checkpoint folder."
        ) from error


def _download(name: str, wanted: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name,
            revision=wanted or None,
            allow_patterns=list(patterns),
            ignore_patterns=list(_BELOW),
        )
    )


def _weight_names(folder: Path) -> list[str]:
    """Return the weight files that loading would read: those that an index names, or single ones.

    Others would fill the disk and are not loaded.
    """
    names = {SINGLE, ADAPTER}
    with suppress(RefusedError):
        index = parse_object(open_folder(folder).read(INDEX, MAX_INDEX_BYTES), INDEX, max_depth=4)
        places = index.get("weight_map")
        names |= set(map(str, places.values())) if isinstance(places, dict) else set()
    return sorted(name for name in names if _WEIGHTS.fullmatch(name))


def revision(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache, or None for any other folder."""
    resolved = folder.resolve()
    kept, cache = resolved.parent.name, resolved.parent.parent.name
    known = kept == "snapshots" and cache.startswith("models--")
    return resolved.name if known and _COMMIT.fullmatch(resolved.name) else None
