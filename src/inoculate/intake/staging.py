"""The staging copy: small files rebuilt, weights linked; the only thing that is ever loaded."""

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inoculate.errors import ArchitectureError, CheckpointError
from inoculate.intake.adapter import check_base
from inoculate.intake.audit import Audit, audit
from inoculate.intake.files import seal_of
from inoculate.intake.finding import NOTE, Finding, RefusedError
from inoculate.intake.scratch import make_scratch

_CLASSES: dict[str, type[CheckpointError] | type[ArchitectureError]] = {
    "model-type": ArchitectureError
}


@dataclass(frozen=True, eq=False)
class Staged:
    """Hold a staging copy; its folder goes when this value does.

    Attributes:
        source: The folder as the user named it.
        folder: The copy, which bears the source's name.
        seals: Weight file → what its file system says of it, taken at the audit.
    """

    source: Path
    folder: Path
    config: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()
    seals: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)

    def check_unchanged(self) -> None:
        """Demand that the weight files are those which were audited.

        Raises:
            CheckpointError: One was changed or exchanged since.
        """
        for path, seal in self.seals.items():
            if seal_of(path.stat()) != seal:
                raise CheckpointError(
                    f"{self.source / path.name}: The file changed while it was read. "
                    "Let nothing write to the folder and call again."
                )


def admit_model(path: Path) -> Staged:
    """Audit a model folder and return its staging copy.

    Raises:
        CheckpointError, ArchitectureError: The folder is refused; the message names the file.
    """
    return _admit(path, "model")


def admit_adapter(path: Path, base: Mapping[str, Any]) -> Staged:
    """Audit an adapter folder against its base and return its staging copy.

    Args:
        base: The base's config.json, rebuilt.

    Raises:
        CheckpointError: The folder is refused; the message names the file.
    """
    return _admit(path, "adapter", base)


def _admit(path: Path, kind: str, base: Mapping[str, Any] | None = None) -> Staged:
    made = audit(path, kind)
    if made.refused:
        raise refusal(path, made.refused[0])
    if base is not None:
        try:
            for header in made.weights.values():
                check_base(header, base)
        except RefusedError as error:
            raise refusal(path, error.finding) from None
    return _stage(made)


def refusal(path: Path, finding: Finding) -> CheckpointError | ArchitectureError:
    """Return the error that a finding amounts to, with the file's whole name."""
    where = path if finding.file == "." else path / finding.file
    made = _CLASSES.get(finding.rule, CheckpointError)
    return made(f"{where}: {finding.reason} {finding.advice}")


def _stage(made: Audit) -> Staged:
    assert made.folder is not None
    scratch = make_scratch()
    try:
        folder = scratch.folder / "copy" / (made.path.resolve().name or "model")
        folder.mkdir(parents=True)
        for name, content in made.small.items():
            (folder / name).write_bytes(content)
        seals = {folder / name: _sealed(made, name, folder / name) for name in made.weights}
    except BaseException:
        scratch.remove()
        raise
    told = tuple(finding for finding in made.findings if finding.severity != NOTE)
    staged = Staged(made.path, folder, made.config, told, seals)
    weakref.finalize(staged, scratch.remove)
    staged.check_unchanged()
    return staged


def _sealed(made: Audit, name: str, target: Path) -> tuple[int, ...]:
    """Link a weight file, and return what its file system said of it when it was audited."""
    assert made.folder is not None
    _link(made.folder.files[name], target)
    return made.folder.seals[name]


def _link(source: Path, target: Path) -> None:
    """Give a weight file a second name; across file systems, a symbolic link by its real path."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        target.symlink_to(source)
