"""From a name to a folder: hub ids are fetched at one revision, and that revision is known."""

import re
from pathlib import Path

from inoculate.errors import InputError

_PATTERNS = ("*.safetensors", "*.json", "*.jinja")
_BELOW = ("*/*",)
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(model: str | Path) -> Path:
    """Return the checkpoint folder; a hub id, or `id@revision`, is downloaded at one commit.

    Only safetensors, JSON and Jinja files are downloaded, and nothing of folders below.

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
    from huggingface_hub import snapshot_download

    try:
        fetched = snapshot_download(
            name,
            revision=wanted or None,
            allow_patterns=list(_PATTERNS),
            ignore_patterns=list(_BELOW),
        )
    except Exception as error:  # The library's own, its HTTP client's or the system's.
        raise InputError(
            f"{str(model)!r} is no folder here, and the hub did not give it. Check the name, the "
            "network and your access, or pass a checkpoint folder."
        ) from error
    return Path(fetched)


def revision(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache, or None for any other folder."""
    resolved = folder.resolve()
    kept, cache = resolved.parent.name, resolved.parent.parent.name
    known = kept == "snapshots" and cache.startswith("models--")
    return resolved.name if known and _COMMIT.fullmatch(resolved.name) else None
