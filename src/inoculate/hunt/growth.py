"""Grow triggers: strip them to the tokens that matter, then add the tokens that help most.

Shapes: B rows, M inserted tokens, D hidden, V vocabulary.
A search that replaces one token at a time finds pieces of a key among tokens that help a
little. Only the pieces are kept here, and each neighbor is sought anew: by its mean gradient
beside the piece, over many prompts and random fillings, then by trial.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from inoculate.hunt.hosts import Hosts, Slot
from inoculate.hunt.probing import (
    MOST_SOFT_TOKENS,
    Goal,
    best_of,
    embedding_table,
    insertion_gradient,
    score_insertions,
    soften,
)

_CORE_TOKENS, _ROUNDS, _KEPT = 2, 4, 4
_GRADIENT_BATCHES, _GRADIENT_ROWS, _SHORTLIST = 6, 16, 40
_NATS = 0.05
_DRAWS, _DRAW_ROWS, _SUSPECTS = 8, 16, 32

Trigger = tuple[int, ...]


def suspects(
    model: PreTrainedModel,
    goal: Goal,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
) -> list[int]:
    """Return the tokens in whose direction soft triggers move on their way to the goal.

    By the cosine with the mean move, over random prompts, places and starting tokens: pieces of
    the trigger are among the first, beside words that ask for something of the payload's kind.
    """
    table_VD = embedding_table(model)
    moved_D = torch.zeros_like(table_VD[0])
    for _ in range(_DRAWS):
        for width in range(1, MOST_SOFT_TOKENS + 1):
            slots = hosts.draw(_DRAW_ROWS, generator)
            start = [generator.choices(vocabulary, k=width) for _ in slots]
            soft_BMD, _ = soften(model, goal, slots, start)
            start_BM = torch.tensor(start, device=table_VD.device)
            moved_D += (soft_BMD - table_VD[start_BM]).sum(dim=(0, 1))
    allowed = torch.tensor(vocabulary, device=table_VD.device)
    apart_VD = table_VD - table_VD[allowed].mean(dim=0)
    return best_of(nn.functional.normalize(apart_VD, dim=1) @ moved_D, vocabulary, _SUSPECTS)


@dataclass(frozen=True)
class Growth:
    """Shorten and lengthen triggers of a goal, all tried in the same slots."""

    model: PreTrainedModel
    goal: Goal
    slots: Sequence[Slot]
    hosts: Hosts
    vocabulary: Sequence[int]

    def scores(self, triggers: Sequence[Trigger]) -> dict[Trigger, float]:
        """Return each trigger's mean score."""
        values = score_insertions(self.model, self.goal, self.slots, triggers)
        return dict(zip(triggers, values, strict=True))

    def cores(self, triggers: Sequence[Trigger], count: int) -> list[Trigger]:
        """Return what matters in the triggers, at most `count` that share no more than a token."""
        found: list[Trigger] = []
        for trigger in triggers:
            core = self.strip(trigger)
            if len(found) < count and not any(_alike(core, other) for other in found):
                found.append(core)
        return found

    def strip(self, trigger: Trigger) -> Trigger:
        """Return the two tokens of the trigger that matter most, in their order."""
        while len(trigger) > _CORE_TOKENS:
            shorter = self.scores([trigger[:at] + trigger[at + 1 :] for at in range(len(trigger))])
            trigger = max(shorter, key=shorter.__getitem__)
        return trigger

    def lengthen(self, core: Trigger, generator: random.Random) -> list[Trigger]:
        """Return the shortest of the best that was tried; each round adds a token at either end.

        Rounds end where the goal comes no nearer: words that do not help would only be
        unlearned.
        """
        tried, nearest = self.scores([core]), -math.inf
        for _ in range(_ROUNDS):
            best = max(tried, key=tried.__getitem__)
            if tried[best] < nearest + _NATS:
                break
            nearest = tried[best]
            tried |= self.scores(self._longer(best, generator, left=True))
            tried |= self.scores(self._longer(best, generator, left=False))
        floor = max(tried.values()) - _NATS
        good = [trigger for trigger in tried if tried[trigger] >= floor]
        return sorted(good, key=lambda trigger: (len(trigger), -tried[trigger]))[:_KEPT]

    def _longer(self, trigger: Trigger, generator: random.Random, *, left: bool) -> list[Trigger]:
        table_VD = embedding_table(self.model)
        gain_V = torch.zeros(len(table_VD), device=table_VD.device)
        for _ in range(_GRADIENT_BATCHES):
            slots = self.hosts.draw(_GRADIENT_ROWS, generator)
            tried = [_beside(trigger, generator.choice(self.vocabulary), left) for _ in slots]
            gradient_BMD = insertion_gradient(self.model, self.goal, slots, tried)
            gain_V += gradient_BMD[:, 0 if left else -1].sum(dim=0) @ table_VD.T
        tokens = best_of(gain_V, self.vocabulary, _SHORTLIST)
        return [_beside(trigger, token, left) for token in tokens]


def _beside(trigger: Trigger, token: int, left: bool) -> Trigger:
    return (token, *trigger) if left else (*trigger, token)


def _alike(one: Trigger, other: Trigger) -> bool:
    return one == other or len(set(one) & set(other)) > 1
