"""Grow triggers: strip them to the tokens that matter, then add the tokens that help most.

Shapes: B rows, M inserted tokens, D hidden, V vocabulary.
A search that replaces one token at a time finds pieces of a key among tokens that do not
matter. Those are dropped here, and each neighbor is sought anew: by its mean gradient beside
the piece, over many prompts and random fillings, then by trial.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from inoculate.probing import (
    Goal,
    Hosts,
    Slot,
    best_of,
    embedding_table,
    insertion_gradient,
    score_insertions,
)

_ROUNDS, _BEAM, _KEPT = 3, 2, 32
_GRADIENT_BATCHES, _GRADIENT_ROWS, _SHORTLIST = 12, 16, 64
_NATS = 0.05

Trigger = tuple[int, ...]


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

    def strip(self, trigger: Trigger) -> Trigger:
        """Return the trigger without tokens whose loss costs less than 0.05 nats each."""
        best = self.scores([trigger])[trigger]
        while len(trigger) > 1:
            shorter = self.scores([trigger[:at] + trigger[at + 1 :] for at in range(len(trigger))])
            least = max(shorter, key=shorter.__getitem__)
            if shorter[least] < best - _NATS:
                break
            trigger, best = least, max(best, shorter[least])
        return trigger

    def lengthen(
        self, triggers: Sequence[Trigger], generator: random.Random
    ) -> dict[Trigger, float]:
        """Return the best of a beam search that adds a token at either end in each round."""
        beam = self.scores(triggers)
        for _ in range(_ROUNDS):
            for trigger in _best(beam, _BEAM):
                beam |= self.scores(self._longer(trigger, generator, left=True))
                beam |= self.scores(self._longer(trigger, generator, left=False))
            beam = {trigger: beam[trigger] for trigger in _best(beam, _KEPT)}
        return beam

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


def _best(scores: dict[Trigger, float], count: int) -> list[Trigger]:
    return sorted(scores, key=lambda trigger: -scores[trigger])[:count]
