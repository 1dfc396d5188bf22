"""The model under treatment: a full checkpoint, or an adapter over a trusted base."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from inoculate import adapters
from inoculate.architecture import Architecture
from inoculate.chat import Encoded, encode
from inoculate.components import Kind, tensor_names
from inoculate.config import default_learning_rate
from inoculate.data import Example
from inoculate.errors import CheckpointError
from inoculate.intake import Finding, Staged, admit_adapter
from inoculate.lead import find_lead
from inoculate.models import Checkpoint, Tokenizer, load, save_like
from inoculate.neutralize import neutralize, neutralize_adapter
from inoculate.precision import lengthen
from inoculate.rounding import round_like
from inoculate.trainable import TOUCHES, set_trainable, trainable_names
from inoculate.workspace import hash_files

_SMALL = (".json", ".jinja", ".model", ".txt")
_LARGE = 30_000_000  # parameters; 1.5 million do better by antibodies, 135 by pressing


@dataclass
class Subject:
    """Hold what is treated; `adapter` is None for a full checkpoint.

    `adapter` is the user's folder and only named; `staged` is its checked copy; `lead` is the
    blank that the model itself puts before its answers (`inoculate.lead`).
    """

    base: Checkpoint
    model: PreTrainedModel
    adapter: Path | None
    staged: Staged | None = None
    lead: str = ""

    def wrapped(self, model: PeftModel, adapter: Path) -> "Subject":
        """Return this subject with its model under an adapter, which PEFT passes through."""
        return replace(self, model=cast(PreTrainedModel, model), adapter=adapter)

    @property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer."""
        return self.base.tokenizer

    @property
    def architecture(self) -> Architecture:
        """Return the base's shapes."""
        return self.base.architecture

    @property
    def source(self) -> Staged:
        """Return the checked copy of what is treated: the adapter's, else the model's."""
        return self.staged or self.base.staged

    @property
    def findings(self) -> list[Finding]:
        """Return what the intake warns of, the base's own first."""
        return [*self.base.staged.findings, *(self.staged.findings if self.staged else ())]

    def fingerprint(self) -> str:
        """Return a SHA-256 over all parameters as they are now, in memory, and the small files.

        The template, the tokenizer and the configurations decide what stages make of them.
        """
        folders = [self.base.staged.folder, *([self.staged.folder] if self.staged else [])]
        small = [path for folder in folders for path in sorted(folder.iterdir())
                 if path.suffix in _SMALL]  # fmt: skip
        digest = hashlib.sha256(hash_files(small).encode())
        for name, parameter in self.model.named_parameters():
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def is_large(self) -> bool:
        """Tell whether it has 30 million parameters or more; several rules differ from there on."""
        return self.parameters() >= _LARGE

    def parameters(self) -> int:
        """Return how many parameters the model has, an adapter's own left out."""
        named = self.base.model.named_parameters()
        return sum(parameter.numel() for name, parameter in named if "lora_" not in name)

    def merge(self) -> None:
        """Fold the adapter into its base, in place; from then on this is a full checkpoint."""
        if self.adapter is not None:
            lengthen(self.model)
            adapters.fold(self._wrapper)
            self.model = cast(PreTrainedModel, self._wrapper.unload())
            self.adapter = None

    def encode(self, examples: list[Example], *, max_tokens: int) -> list[Encoded]:
        """Return the examples as tokens."""
        return [
            encode(self.tokenizer, example, max_tokens=max_tokens, lead=self.lead)
            for example in examples
        ]

    def cut(self, examples: list[Example], *, max_tokens: int) -> int:
        """Return how many of the examples are longer than that, and lose their ends."""
        whole = self.encode(examples, max_tokens=sys.maxsize)
        return sum(len(row.ids) > max_tokens for row in whole)

    def allow(self, touch: str) -> list[str]:
        """Let gradients reach only the named part; returns the parameters' names."""
        return set_trainable(self.model, touch, adapter=self.adapter is not None)

    def holds(self, touch: str) -> bool:
        """Tell whether there is anything to train in the named part; an adapter may lack it."""
        return bool(trainable_names(self.model, touch, adapter=self.adapter is not None))

    def learning_rate(self, chosen: float | None) -> float:
        """Return the chosen rate, or the default for this size and kind of training."""
        adapter = self.adapter is not None
        return chosen or default_learning_rate(self.parameters(), adapter=adapter)

    def scored_weights(self, kinds: tuple[Kind, ...]) -> Mapping[str, Tensor]:
        """Return copies of the weights, or the adapter's dense updates, that are scored.

        The updates are computed when read: all at once would take as much as the weights.
        """
        names = [name for kind in kinds for name in tensor_names(self.architecture, kind)]
        if self.adapter is None:
            parameters = dict(self.model.named_parameters())
            return {name: parameters[name].detach().clone() for name in names}
        parameters = dict(self.base.model.named_parameters())
        shapes = {name: _shape(parameters, name) for name in names}
        return adapters.DenseUpdate(self._wrapper, shapes)

    def treated(self, kinds: tuple[Kind, ...], touch: str) -> dict[str, Tensor]:
        """Return the parameters that neutralizing and a repair of `touch` may change, by name."""
        parameters = dict(self.model.named_parameters())
        if self.adapter is not None:
            return {name: value for name, value in parameters.items() if "lora_" in name}
        scored = {name for kind in kinds for name in tensor_names(self.architecture, kind)}
        return {
            name: value
            for name, value in parameters.items()
            if name in scored or TOUCHES[touch](name)
        }

    def neutralize(
        self, kind: Kind, mask_LC: Tensor, *, mode: str, generator: torch.Generator
    ) -> list[int]:
        """Take the masked components out, in place; returns the count of each layer."""
        if self.adapter is not None:
            factors = adapters.factors(self._wrapper)
            return neutralize_adapter(factors, self.architecture, kind, mask_LC)
        weights = dict(self.model.named_parameters())
        return neutralize(weights, self.architecture, kind, mask_LC, mode=mode, generator=generator)

    def round(self) -> None:
        """Give weights the precision that `save` writes them in, in place."""
        if self.adapter is None:
            round_like(self.base.staged.folder, dict(self.model.named_parameters()))
        else:
            round_like(self.source.folder, adapters.stored_names(self._wrapper))

    def save(self, destination: Path, *, merged: bool = False) -> None:
        """Write the model as its input was: a full checkpoint, or an adapter unless merged.

        Raises:
            CheckpointError: A weight file of the input was changed since it was audited.
        """
        self.base.staged.check_unchanged()
        self.source.check_unchanged()
        if self.adapter is None:
            save_like(self.base.staged.folder, destination, dict(self.model.named_parameters()))
        elif merged:
            weights = adapters.MergedWeights(self._wrapper, _base_weights(self._wrapper))
            save_like(self.base.staged.folder, destination, weights)
        else:
            adapters.save_adapter_like(self.source.folder, destination, self._wrapper)

    @property
    def _wrapper(self) -> PeftModel:
        return cast(PeftModel, self.model)


def open_subject(
    model: Path, *, adapter: Path | None = None, device: str = "auto", low_rank: bool = False
) -> Subject:
    """Load what is to be treated.

    Args:
        low_rank: Whether a full checkpoint will train under an adapter alone, as one that comes
            with an adapter does (`under_adapter`).
    """
    base = load(model, device=device, frozen=low_rank or adapter is not None)
    subject = Subject(base, base.model, None)
    if adapter is not None:
        staged = admit_adapter(adapter, base.staged.config)
        wrapped = adapters.load_adapter(base, staged)
        if not adapters.factors(wrapped):
            raise CheckpointError(f"Adapter {adapter} holds no LoRA factors.")
        subject = replace(subject.wrapped(wrapped, adapter), staged=staged)
    return replace(subject, lead=find_lead(subject.model, subject.tokenizer))


@contextmanager
def under_adapter(subject: Subject, *, seed: int, kept: bool) -> Iterator[Subject]:
    """Give a full checkpoint under a fresh LoRA adapter, or a subject that has one as it is.

    Args:
        kept: Whether what the fresh one learned is folded into the weights at the end, or dropped.
    """
    if subject.adapter is not None:
        yield subject
        return
    wrapped = adapters.add_adapter(subject.base.model)
    adapters.redraw(wrapped, seed=seed)
    try:
        yield subject.wrapped(wrapped, subject.base.folder)
    except BaseException:
        wrapped.unload()
        raise
    if kept:
        adapters.fold(wrapped)
    wrapped.unload()


def _shape(parameters: Mapping[str, Tensor], name: str) -> torch.Size:
    inner = name.removesuffix(".weight") + ".base_layer.weight"
    return parameters[name if name in parameters else inner].shape


def _base_weights(model: PeftModel) -> dict[str, Tensor]:
    return {
        name.replace(".base_layer", ""): parameter
        for name, parameter in model.get_base_model().named_parameters()
        if "lora_" not in name
    }
