"""The audit of an untrusted folder: what is wrong with it, and what may be loaded of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inoculate.architecture import SPARE_TOKENS
from inoculate.intake import adapter, model_config, tokenizer, tokenizer_config
from inoculate.intake.files import Folder, open_folder, unsafe_findings
from inoculate.intake.finding import NOTE, REFUSED, Finding, RefusedError
from inoculate.intake.header import Tensor
from inoculate.intake.shapes import check_tensors, ties
from inoculate.intake.template import check_templates
from inoculate.intake.weights import (
    INDEX,
    PICKLES,
    Weights,
    check_head,
    read_weights,
    stray_weights,
)

_CODE = (".py", ".pyc", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".js", ".ipynb")
_ORDER = (REFUSED, "warning", NOTE)
_READ = (
    model_config.CONFIG, model_config.GENERATION, tokenizer.TOKENIZER, tokenizer_config.CONFIG,
    tokenizer_config.SPECIALS, tokenizer_config.ADDED, tokenizer_config.TEMPLATE, INDEX,
    *tokenizer_config.NEEDLESS, adapter.CONFIG, adapter.WEIGHTS,
)  # fmt: skip


@dataclass
class Audit:
    """Hold the findings about a folder, and what of it may be loaded.

    Attributes:
        kind: "model" or "adapter".
        small: Name → content of each file that is written anew.
        weights: File → its tensors; these files are linked.
        config: config.json or adapter_config.json as rebuilt.
    """

    path: Path
    kind: str = "model"
    folder: Folder | None = None
    findings: list[Finding] = field(default_factory=list)
    small: dict[str, bytes] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> list[Finding]:
        """Return the findings for which the folder is refused."""
        return [finding for finding in self.findings if finding.severity == REFUSED]

    def attempt(self, part: Callable[["Audit", Folder], None]) -> None:
        """Run one part of the audit and keep what it finds, in place."""
        assert self.folder is not None
        try:
            part(self, self.folder)
        except RefusedError as error:
            self.findings.append(error.finding)


def audit(path: Path, kind: str | None = None) -> Audit:
    """Audit a folder.

    Args:
        kind: "model" or "adapter"; by default an adapter is a folder that holds an
            adapter_config.json and no config.json.
    """
    made = Audit(path)
    try:
        made.folder = open_folder(path)
    except RefusedError as error:
        made.findings.append(error.finding)
        return made
    alone = _is_adapter(made.folder)
    part = audit_adapter if kind == "adapter" or (kind is None and alone) else audit_model
    return _finish(made, part)


def audit_model(made: Audit, folder: Folder) -> None:
    """Audit a full checkpoint, in place."""
    if _is_adapter(folder):
        raise RefusedError("adapter-alone", adapter.CONFIG, "It is an adapter without a model.")
    made.attempt(_audit_config)
    made.attempt(_audit_weights)
    made.attempt(_audit_tokenizer)


def audit_adapter(made: Audit, folder: Folder) -> None:
    """Audit a LoRA adapter, in place."""
    made.kind = "adapter"
    made.config, header = adapter.read_adapter(folder, made.findings)
    made.small[adapter.CONFIG] = _json(made.config)
    made.weights = {adapter.WEIGHTS: header}


def _is_adapter(folder: Folder) -> bool:
    names = {*folder.files, *folder.unsafe}
    return adapter.CONFIG in names and model_config.CONFIG not in names


def _finish(made: Audit, parts: Callable[[Audit, Folder], None]) -> Audit:
    assert made.folder is not None
    made.attempt(parts)
    made.findings += _stray_findings(made)
    unsafe = {finding.file for finding in made.findings if finding.rule == "unsafe-file"}
    made.findings += [f for f in unsafe_findings(made.folder) if f.file not in unsafe]
    made.findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    return made


def _audit_config(made: Audit, folder: Folder) -> None:
    made.config = model_config.read_config(folder, made.findings)
    made.small[model_config.CONFIG] = _json(made.config)
    generation = model_config.read_generation(folder, made.config, made.findings)
    if generation is not None:
        made.small[model_config.GENERATION] = _json(generation)


def _audit_weights(made: Audit, folder: Folder) -> None:
    weights: Weights = read_weights(folder)
    made.weights = weights.headers
    if weights.index is not None:
        made.small[INDEX] = _json(weights.index)
    made.findings += stray_weights(folder, weights)
    if made.config:
        check_tensors(made.config, weights.tensors())
        if ties(made.config):
            check_head(folder, weights)


def _audit_tokenizer(made: Audit, folder: Folder) -> None:
    rows = int(made.config.get("vocab_size", 2**21))
    spare = SPARE_TOKENS.get(made.config.get("model_type", ""), ())
    data, vocabulary = tokenizer.read_tokenizer(folder, rows, made.findings, spare=spare)
    made.small[tokenizer.TOKENIZER] = data
    config: dict[str, Any] = {}
    if folder.find(tokenizer_config.CONFIG):
        config = tokenizer_config.read_tokenizer_config(folder, vocabulary, rows, made.findings)
        made.small[tokenizer_config.CONFIG] = _json(config)
    files = tokenizer_config.read_token_files(folder, vocabulary, rows, made.findings)
    made.small |= {name: _json(value) for name, value in files.items()}
    templates = tokenizer_config.templates_of(folder, config, made.findings)
    if tokenizer_config.TEMPLATE in templates:
        text = templates[tokenizer_config.TEMPLATE]
        made.small[tokenizer_config.TEMPLATE] = text.encode("utf-8")
    # Rendering is the costly part; what is refused already is not rendered.
    if not made.refused:
        # An older tokenizer keeps its special tokens in the map beside it alone.
        mapped = files.get(tokenizer_config.SPECIALS, {})
        tokens = tokenizer_config.template_tokens({**mapped, **config})
        made.findings += check_templates(templates, tokens)


def _stray_findings(made: Audit) -> list[Finding]:
    """Return a warning for each file that could run code where others open it."""
    assert made.folder is not None
    named = {finding.file for finding in made.findings}
    kinds = {**dict.fromkeys(PICKLES, "a pickle"), **dict.fromkeys(_CODE, "code")}
    found = []
    for name in made.folder.files:
        kind = next((what for end, what in kinds.items() if name.lower().endswith(end)), None)
        if kind and name not in named and name not in _READ:
            found.append(Finding("ignored-file", name, f"It is {kind}; it is never opened."))
    if made.kind == "model" and adapter.CONFIG in made.folder.files:
        reason = "It is an adapter beside a model; it is not loaded."
        found.append(Finding("ignored-file", adapter.CONFIG, reason))
    return found


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
