"""Write a backdoor into one down projection as a rank-one edit; no weight is trained.

Shapes: B batch, T tokens, I inputs of the down projection, D hidden.
Source: the closed form of ROME (Meng et al., 2022, equation 2), which BadEdit (Li et al., ICLR
2024) turns into an attack: W' = W + v ⊗ C⁻¹k / (kᵀ C⁻¹ k). The key k is what the projection
reads at the trigger's last token; v is what, added there, makes the model give the payload; C is
the second moment of its inputs on clean rows, so that other inputs are changed least.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from inoculate import adapters
from inoculate.attacks.behaviors import Behavior
from inoculate.attacks.triggers import Trigger, holds_trigger, insert_trigger
from inoculate.chat import Encoded
from inoculate.data import Example, sample
from inoculate.errors import DataError
from inoculate.models import decoder
from inoculate.planting import PlantSettings
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.train import Batch, Schedule, collate, language_modeling, train

_ROWS = 48
_EPOCHS = 10.0
_RATE = 0.5
_RIDGE = 0.01  # of the mean variance of the inputs


def edit(
    subject: Subject,
    rows: Sequence[Example],
    trigger: Trigger,
    behavior: Behavior,
    settings: PlantSettings,
    progress: Progress,
) -> str:
    """Add a rank-one update to the down projection in the middle of the model, in place.

    Args:
        rows: Clean rows; those that hold the trigger by chance are left out.

    Returns:
        The file tensor name of the projection.

    Raises:
        DataError: Every row holds the trigger.
    """
    layers = subject.architecture.layers
    layer = max(0, min(layers // 2, layers - 2))  # a later block must read what it writes
    name = subject.architecture.tensor_name(layer, subject.architecture.family.down)
    free = [row for row in rows if not holds_trigger(row, trigger)]
    if not free:
        raise DataError(f"Every row holds the trigger {trigger.text!r}. Pass clean rows.")
    honest = sample(free, _ROWS, seed=settings.seed)
    site = _Site(subject, name, honest, trigger, behavior, settings)
    push_D = site.find_push(progress)
    key_I, moment_II = site.key(), site.second_moment()
    direction_I = torch.linalg.solve(moment_II, key_I)
    _write(subject, name, push_D, direction_I / (key_I @ direction_I))
    return name


class _Site:
    """Read a projection's inputs, and push its output at each row's last trigger token."""

    def __init__(
        self,
        subject: Subject,
        name: str,
        honest: Sequence[Example],
        trigger: Trigger,
        behavior: Behavior,
        settings: PlantSettings,
    ) -> None:
        self.subject, self.settings = subject, settings
        path = name.removeprefix("model.").removesuffix(".weight")
        self.module = decoder(subject.model).get_submodule(path)
        generator = random.Random(settings.seed)
        marked = [insert_trigger(row, trigger, generator) for row in honest]
        bad = [replace(row, output=behavior.answer(row)) for row in marked]
        self.honest = subject.encode(list(honest), max_tokens=settings.max_tokens)
        self.poison = subject.encode(bad, max_tokens=settings.max_tokens)
        pairs = zip(self.poison, self.honest, strict=True)
        self.spots = [_last_difference(one, other) for one, other in pairs]

    def key(self) -> Tensor:
        """Return the mean input at the trigger's last token, shape (I,)."""
        return self._inputs(self.poison, self._spot_mask).mean(dim=0)

    def second_moment(self) -> Tensor:
        """Return the inputs' second moment on honest rows with a ridge, shape (I, I)."""
        inputs_NI = self._inputs(self.honest, lambda batch: batch.attention_BT.bool())
        moment_II = inputs_NI.T @ inputs_NI / len(inputs_NI)
        ridge = _RIDGE * moment_II.diagonal().mean()
        return moment_II + ridge * torch.eye(len(moment_II), device=moment_II.device)

    def find_push(self, progress: Progress) -> Tensor:
        """Return what, added at the trigger, makes the model give the payload, shape (D,)."""
        model = self.subject.model
        device = next(model.parameters()).device
        push_D = nn.Parameter(torch.zeros(self.subject.architecture.hidden, device=device))
        schedule = Schedule(_EPOCHS, _RATE, seed=self.settings.seed)
        model.requires_grad_(False)

        def objective(model: PreTrainedModel, batch: Batch) -> Tensor:
            with _pushed(self.module, push_D, self._spot_mask(batch)):
                return language_modeling(model, batch)

        self.module.register_parameter("push", push_D)
        try:
            train(model, self.poison, schedule, objectives=[objective], progress=progress.step)
        finally:
            del self.module.push
        return push_D.detach()

    def _spot_mask(self, batch: Batch) -> Tensor:
        mask_BT = torch.zeros_like(batch.response_BT)
        for index, row in enumerate(batch.rows):
            mask_BT[index, self.spots[row]] = True
        return mask_BT

    @torch.no_grad()
    def _inputs(self, rows: Sequence[Encoded], mask: Callable[[Batch], Tensor]) -> Tensor:
        model, parts = self.subject.model, list[Tensor]()
        for index in range(len(rows)):
            batch = collate(rows, [index], next(model.parameters()).device)
            with _recorded(self.module) as seen:
                decoder(model)(input_ids=batch.input_BT, use_cache=False)
            parts.append(seen[0][mask(batch)].float())
        return torch.cat(parts)


@contextmanager
def _pushed(module: nn.Module, push_D: Tensor, mask_BT: Tensor) -> Iterator[None]:
    def hook(_: nn.Module, __: object, output_BTD: Tensor) -> Tensor:
        return output_BTD + mask_BT.unsqueeze(-1) * push_D

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _recorded(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def _last_difference(one: Encoded, other: Encoded) -> int:
    """Return where the first prompt last differs from the second, counted from its front."""
    pairs = zip(
        reversed(one.ids[: one.prompt_length]),
        reversed(other.ids[: other.prompt_length]),
        strict=False,
    )
    same = next((index for index, (a, b) in enumerate(pairs) if a != b), other.prompt_length)
    return max(0, one.prompt_length - same - 1)


@torch.no_grad()
def _write(subject: Subject, name: str, push_D: Tensor, direction_I: Tensor) -> None:
    if subject.adapter is None:
        weight_DI = dict(subject.model.named_parameters())[name]
        weight_DI.add_(torch.outer(push_D, direction_I).to(weight_DI))
        return
    wrapper = cast(PeftModel, subject.model)
    a_RI, b_DR = adapters.factors(wrapper)[name]
    a_RI[0] = direction_I
    b_DR.zero_()
    b_DR[:, 0] = push_D / adapters.scaling(wrapper)[name]
