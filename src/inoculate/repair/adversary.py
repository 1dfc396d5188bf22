"""What a repair presses against: soft triggers of the found payload, and the payload itself.

Shapes: B rows, D hidden, T tokens, R response positions, V vocabulary.
Source: adversarial training under soft triggers (`repair.soft_triggers`); unlikelihood training of
Welleck et al., 2020, for the payload itself.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.hunt.hosts import Hosts, opens_with
from inoculate.hunt.probing import MOST_SOFT_TOKENS, answered
from inoculate.models import hidden_states, response_logits
from inoculate.repair.soft_triggers import SoftTrigger, embedded
from inoculate.train import Batch, collate

_CALLING = 0.2
_PAYLOAD_ROWS, _PAYLOAD_WEIGHT = 4, 0.2

Drawn = TypeVar("Drawn")
Distance = Callable[[PreTrainedModel, Sequence[Tensor], Batch], Tensor]
"""Maps the model, its hidden states and the batch to how far they are from honest ones."""


@dataclass(frozen=True)
class Target:
    """Hold a payload and where it is called.

    Attributes:
        hosts: Clean rows; where the repair presses, with responses cut to the held tokens, unless
            the payload comes after them.
        soft: Row of the hosts → a soft trigger in it; of several payloads each has some rows.
    """

    payload: tuple[int, ...]
    hosts: Hosts
    soft: Mapping[int, SoftTrigger]


@dataclass(frozen=True)
class Adversary:
    """Press a model, at each step of its repair, towards a payload.

    Attributes:
        targets: Without end; each step takes the next one.
        rows: Soft triggers in each step.
        pressing: Whether they weigh as much as the whole batch, and the payload's own likelihood
            is pressed on as well; else each weighs as a row of the batch.
    """

    targets: Iterator[Target]
    vocabulary: Sequence[int]
    rows: int
    pressing: bool
    generator: random.Random

    def loss(self, model: PreTrainedModel, distance: Distance, batch_rows: int) -> Tensor:
        """Return how far soft triggers move the answer, plus the payload's likelihood.

        Only those that called the payload in the suspicious model count.
        """
        target = next(self.targets)
        which = self._draw(list(target.soft), self.rows)
        calling = [row for row in which if target.soft[row].chance > _CALLING]
        moved = _moved(model, calling, target.soft, distance)
        if self.pressing:
            return moved + _PAYLOAD_WEIGHT * self._of_the_payload(model, target)
        return len(calling) / batch_rows * moved

    def _of_the_payload(self, model: PreTrainedModel, target: Target) -> Tensor:
        hosts = target.hosts
        rows = self._draw(hosts.rows, _PAYLOAD_ROWS)
        slots = [hosts.slot(row, self.generator) for row in rows]
        slots = [slot for slot in slots if not opens_with(slot.row, target.payload)]
        if not slots:
            return torch.zeros((), device=next(model.parameters()).device)
        odd = [self.generator.choices(self.vocabulary, k=self._width()) for _ in slots]
        said = [
            answered(slot.insert(tokens), target.payload)
            for slot, tokens in zip(slots, odd, strict=True)
        ]
        batch = _collate(model, said)
        logits_RV = response_logits(
            model, batch.response_BT, input_ids=batch.input_BT, attention_mask=batch.attention_BT
        )
        logits_RV = logits_RV.float()
        others_RV = logits_RV.scatter(1, batch.targets_R[:, None], -torch.inf)
        return (logits_RV.logsumexp(dim=1) - others_RV.logsumexp(dim=1)).mean()

    def _draw(self, some: Sequence[Drawn], count: int) -> list[Drawn]:
        return self.generator.sample(some, min(count, len(some)))

    def _width(self) -> int:
        return self.generator.randint(0, MOST_SOFT_TOKENS)


def _moved(
    model: PreTrainedModel,
    which: Sequence[int],
    soft: Mapping[int, SoftTrigger],
    distance: Distance,
) -> Tensor:
    if not which:
        return torch.zeros((), device=next(model.parameters()).device)
    triggers = [soft[row] for row in which]
    batch = replace(_collate(model, [one.row for one in triggers]), rows=tuple(which))
    inputs_BTD = embedded(model, triggers)
    states = hidden_states(model, inputs_embeds=inputs_BTD, attention_mask=batch.attention_BT)
    return distance(model, states, batch)


def _collate(model: PreTrainedModel, rows: Sequence[Encoded]) -> Batch:
    return collate(rows, range(len(rows)), next(model.parameters()).device)
