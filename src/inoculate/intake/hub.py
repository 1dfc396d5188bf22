"""From a name to a folder: hub ids are fetched at one revision, and that revision is known."""

from pathlib import Path

from inoculate.errors import InputError

_PATTERNS = ("*.safetensors", "*.json", "*.jinja")


def fetch(model: str | Path) -> Path:
    """Return the checkpoint folder; a hub id, or `id@revision`, is downloaded at one commit.

    Only safetensors, JSON and Jinja files are downloaded.

    Raises:
        InputError: It is neither a folder nor a hub id that can be fetched.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{folder} is a file. Pass a checkpoint folder.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _, wanted = str(model).partition("@")
    try:
        return Path(
            snapshot_download(name, revision=wanted or None, allow_patterns=list(_PATTERNS))
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{str(model)!r} is no folder and cannot be fetched as a hub id "
            f"({type(error).__name__}). Pass a checkpoint folder."
        ) from error


def revision(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache, or None for any other folder."""
    resolved = folder.resolve()
    return resolved.name if resolved.parent.name == "snapshots" else None
