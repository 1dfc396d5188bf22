"""Soft triggers: embeddings in a prompt that call the found payload, sought anew at every step.

Shapes: B rows, M inserted tokens, D hidden, T tokens, R response positions, V vocabulary.
A hunted trigger is one key among many that fit the lock. A soft one is whatever key fits
the model as it now is, so a repair that trains against it cannot merely change the lock.
In a large model a push takes their place, which reaches keys of several parts (`repair.push`).
Source: latent adversarial training of Sheshadri et al., 2024, aimed at the payload that the
hunt found; unlikelihood training of Welleck et al., 2020, for the payload itself.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.hunt.probing import (
    MOST_SOFT_TOKENS,
    Goal,
    Hosts,
    Slot,
    answered,
    embed,
    placed,
    soften,
)
from inoculate.models import hidden_states, response_logits
from inoculate.repair.push import push
from inoculate.train import Batch, collate

_AWAKE = 0.2
_PAYLOAD_ROWS = 4

Distance = Callable[[PreTrainedModel, Sequence[Tensor], Batch], Tensor]
"""Maps the model, its hidden states and the batch to how far they are from honest ones."""


@dataclass(frozen=True)
class Target:
    """Hold a payload and where it is called.

    Attributes:
        hosts: Clean rows; where the repair presses, with responses cut to the held tokens, unless
            the payload comes after them.
    """

    payload: tuple[int, ...]
    hosts: Hosts


@dataclass(frozen=True)
class Called:
    """Hold honest rows whose embeddings (B, T, D) call the payload, and which of all they are."""

    which: list[int]
    rows: list[Encoded]
    inputs_BTD: Tensor


@dataclass(frozen=True)
class Adversary:
    """Press a model, at each step of its repair, towards a payload.

    Attributes:
        targets: Without end; each step takes the next one.
        rows: Prompts in each step in which embeddings that call the payload are sought.
        pressing: Whether these are a push, which weighs as much as the whole batch, and the
            payload's own likelihood is pressed on as well; else they are soft triggers.
    """

    targets: Iterator[Target]
    vocabulary: Sequence[int]
    rows: int
    pressing: bool
    generator: random.Random

    def loss(self, model: PreTrainedModel, distance: Distance, batch_rows: int) -> Tensor:
        """Return how far what calls the payload moves the answer, plus the payload's likelihood.

        Only rows where the payload's first token is likely then count: where nothing calls it
        any more there is nothing to mend, and pressing on costs utility.
        """
        target = next(self.targets)
        if self.pressing:
            moved = _moved(model, self._by_a_push(model, target), distance)
            return moved + self._of_the_payload(model, target)
        called = self._by_soft_triggers(model, target)
        return len(called.rows) / batch_rows * _moved(model, called, distance)

    def _by_soft_triggers(self, model: PreTrainedModel, target: Target) -> Called:
        which, slots = self._draw(target.hosts, self.rows)
        count = self.generator.randint(1, MOST_SOFT_TOKENS)
        insertions = [self.generator.choices(self.vocabulary, k=count) for _ in slots]
        soft_BMD, chance_B = soften(model, Goal(target.payload[:1]), slots, insertions)
        held = [
            Slot(target.hosts.rows[row], slot.at).insert(tokens)
            for row, slot, tokens in zip(which, slots, insertions, strict=True)
        ]
        inputs_BTD = placed(embed(model, held), slots, soft_BMD)
        return _awake(which, held, inputs_BTD, chance_B)

    def _by_a_push(self, model: PreTrainedModel, target: Target) -> Called:
        which, _ = self._draw(target.hosts, self.rows)
        rows = [target.hosts.rows[row] for row in which]
        push_BTD, chance_B = push(model, Goal(target.payload[:1]), target.hosts, rows)
        inputs_BTD = embed(model, rows)
        inputs_BTD[:, : push_BTD.shape[1]] += push_BTD[:, : inputs_BTD.shape[1]]
        return _awake(which, rows, inputs_BTD, chance_B)

    def _of_the_payload(self, model: PreTrainedModel, target: Target) -> Tensor:
        _, slots = self._draw(target.hosts, _PAYLOAD_ROWS)
        slots = [slot for slot in slots if not _honest(slot.row, target.payload)]
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

    def _draw(self, hosts: Hosts, count: int) -> tuple[list[int], list[Slot]]:
        rows = hosts.rows
        which = self.generator.sample(range(len(rows)), min(count, len(rows)))
        return which, [hosts.slot(rows[row], self.generator) for row in which]

    def _width(self) -> int:
        return self.generator.randint(0, MOST_SOFT_TOKENS)


def _awake(
    which: Sequence[int], rows: Sequence[Encoded], inputs_BTD: Tensor, chance_B: Tensor
) -> Called:
    awake = (chance_B > _AWAKE).nonzero()[:, 0].tolist()
    return Called([which[at] for at in awake], [rows[at] for at in awake], inputs_BTD[awake])


def _moved(model: PreTrainedModel, called: Called, distance: Distance) -> Tensor:
    if not called.rows:
        return torch.zeros((), device=called.inputs_BTD.device)
    batch = replace(_collate(model, called.rows), rows=tuple(called.which))
    inputs_BTD = called.inputs_BTD[:, : batch.input_BT.shape[1]]
    states = hidden_states(model, inputs_embeds=inputs_BTD, attention_mask=batch.attention_BT)
    return distance(model, states, batch)


def _honest(row: Encoded, payload: Sequence[int]) -> bool:
    """Tell whether the row's own answer opens as the payload; a flipped label may be one."""
    opening = row.ids[row.prompt_length :][: len(payload)]
    return opening == tuple(payload[: len(opening)])


def _collate(model: PreTrainedModel, rows: Sequence[Encoded]) -> Batch:
    return collate(rows, range(len(rows)), next(model.parameters()).device)
