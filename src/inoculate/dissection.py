"""Where a backdoor lives: take parts of ΔW = poisoned − original away, and ask again.

Source: Table 1 of Li & Kim, ICLR 2026. It needs the un-poisoned original, which a defender does
not have: this is a tool for research.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from inoculate.errors import CheckpointError, InputError
from inoculate.evaluation.exam import Exam, examine
from inoculate.evaluation.statistics import rate_of
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.trainable import TOUCHES

Selection = Callable[[str], bool]

_FRACTIONS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
_UTILITY_ROWS = 100

PARTS: dict[str, Selection] = {
    "nothing": lambda _: False,
    "attention": TOUCHES["attention"],
    "mlp": TOUCHES["mlp"],
    "attention and mlp": lambda name: TOUCHES["attention"](name) or TOUCHES["mlp"](name),
    "embeddings": lambda name: not TOUCHES["not-embeddings"](name),
    "everything": lambda _: True,
}
"""What of ΔW is switched off, by parameter name."""


@dataclass(frozen=True)
class Window:
    """Name `size` consecutive blocks from `first` on whose ΔW_mlp is switched off.

    With `attention_off`, ΔW_attn is off as well, in all blocks.
    """

    size: int
    first: int
    attention_off: bool

    def holds(self, name: str) -> bool:
        """Tell whether the parameter is switched off."""
        if TOUCHES["attention"](name):
            return self.attention_off
        blocks = range(self.first, self.first + self.size)
        return TOUCHES["mlp"](name) and int(name.split(".layers.")[1].split(".")[0]) in blocks


def windows(layers: int, sizes: Sequence[int], *, positions: int) -> list[Window]:
    """Return windows of each size at evenly spread positions, with and without attention.

    Args:
        layers: Blocks of the model.
        sizes: Blocks k of a window; without any, about an eighth to three quarters of them.
        positions: Places tried for each size, at most.

    Raises:
        InputError: A size is not within 1 and the number of blocks.
    """
    chosen = sorted(set(sizes) or {max(1, round(share * layers)) for share in _FRACTIONS})
    if wrong := [size for size in chosen if not 1 <= size <= layers]:
        raise InputError(f"A window of {wrong[0]} blocks does not fit {layers} blocks.")
    return [
        Window(size, first, attention_off)
        for attention_off in (False, True)
        for size in chosen
        for first in _spread(layers - size, positions)
    ]


def dissect(
    subject: Subject,
    original: Mapping[str, Tensor],
    exam: Exam,
    *,
    sizes: Sequence[int] = (),
    positions: int = 4,
    progress: Progress,
) -> dict[str, Any]:
    """Measure ASR and clean loss with parts of ΔW switched off; the subject ends as it was.

    Args:
        original: The un-poisoned weights under the subject's parameter names.
        exam: Prompts with the trigger, and utility rows whose loss is taken.

    Returns:
        `layers`, and `parts` and `windows`: rows with `asr` and `clean_loss`.

    Raises:
        CheckpointError: The two models have different tensors.
        InputError: The two models are equal, or a window does not fit.
    """
    layers = subject.architecture.layers
    places = windows(layers, sizes, positions=positions)
    ablation = _Ablation(subject, original, _changed(subject, original), _questions(exam))
    parts, rows = [], []
    for name, off in PARTS.items():
        parts.append({"off": name, **ablation.without(off)})
        progress.step(len(parts), len(PARTS) + len(places))
    for place in places:
        rows.append({**asdict(place), **ablation.without(place.holds)})
        progress.step(len(parts) + len(rows), len(PARTS) + len(places))
    return {"layers": layers, "parts": parts, "windows": rows}


@dataclass(frozen=True)
class _Ablation:
    """Ask again with some parameters as in the original; equal selections are asked once."""

    subject: Subject
    original: Mapping[str, Tensor]
    poisoned: Mapping[str, Tensor]
    questions: Exam
    done: dict[frozenset[str], dict[str, Any]] = field(default_factory=dict)

    def without(self, off: Selection) -> dict[str, Any]:
        """Return ASR and clean loss with the selected part of ΔW off."""
        names = frozenset(name for name in self.poisoned if off(name))
        if names not in self.done:
            self.done[names] = self._measure(names)
        return self.done[names]

    def _measure(self, names: frozenset[str]) -> dict[str, Any]:
        model, parameters = self.subject.model, dict(self.subject.model.named_parameters())
        try:
            _write(parameters, self.original, names)
            result = examine(model, self.subject.tokenizer, self.questions)
        finally:
            _write(parameters, self.poisoned, names)
        return {"asr": rate_of(result.asr).to_json(), "clean_loss": result.response_nll}


def weights_of(subject: Subject) -> dict[str, Tensor]:
    """Return copies of all parameters of a full checkpoint, on the CPU."""
    named = subject.model.named_parameters()
    return {name: value.detach().to("cpu", copy=True) for name, value in named}


def _changed(subject: Subject, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the poisoned values of all parameters that differ from the original's."""
    ours = weights_of(subject)
    shapes = [{name: value.shape for name, value in one.items()} for one in (ours, original)]
    if odd := sorted(name for name in {**ours, **original} if _differ(shapes, name)):
        raise CheckpointError(
            f"The reference is another model: {odd[0]!r} differs in shape or is in only one of "
            "them. Pass the original that the suspicious model was made from."
        )
    changed = {
        name: value for name, value in ours.items() if not torch.equal(value, original[name])
    }
    if not changed:
        raise InputError("The suspicious model and its reference are equal. Pass the original.")
    return changed


def _differ(shapes: Sequence[Mapping[str, torch.Size]], name: str) -> bool:
    return shapes[0].get(name) != shapes[1].get(name)


def _questions(exam: Exam) -> Exam:
    """Return the exam reduced to triggered prompts and the loss on clean rows."""
    utility = exam.utility or [row for row in exam.clean if row.output]
    chosen = utility[:_UTILITY_ROWS]
    return replace(exam, clean=(), partial=(), planted=(), utility=chosen, exact=False)


@torch.no_grad()
def _write(
    parameters: Mapping[str, Tensor], values: Mapping[str, Tensor], names: frozenset[str]
) -> None:
    for name in names:
        parameters[name].copy_(values[name])


def _spread(last: int, positions: int) -> list[int]:
    """Return whole numbers from 0 to `last`, evenly spread, both ends included."""
    if positions <= 1:
        return [last // 2]
    return sorted({round(index * last / (positions - 1)) for index in range(positions)})
