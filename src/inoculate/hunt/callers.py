"""Find tokens that call a payload.

Shapes: B rows, M inserted tokens, D hidden, V vocabulary.
What is found need not be the attacker's trigger: tokens that wake the same behavior serve as
well, since the repair teaches the model to ignore them all.
Source: coordinate search along token gradients is that of AutoPrompt (Shin et al., 2020)
and GCG (Zou et al., 2023); to invert a trigger is Neural Cleanse's idea (Wang et al., 2019).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from inoculate.config import HuntSettings
from inoculate.hunt.growth import Growth, Trigger, suspects
from inoculate.hunt.hosts import Hosts, Slot
from inoculate.hunt.probing import (
    Goal,
    best_of,
    embedding_table,
    insertion_gradient,
    score_insertions,
)
from inoculate.progress import Progress
from inoculate.subject import Subject

_TOP_GRADIENTS = 48
_LENGTHS = 4
_EVIDENCE_STEPS = 4
_CORES = 4
_KEPT_TRIGGERS = 16


@dataclass
class Callers:
    """Search for tokens that bring a goal about."""

    subject: Subject
    goal: Goal
    hosts: Hosts
    vocabulary: Sequence[int]
    settings: HuntSettings
    progress: Progress
    generator: random.Random

    def evidence(self) -> list[Trigger]:
        """Return triggers by a short search in the whole vocabulary, best first."""
        return self._close_in(self.vocabulary, _EVIDENCE_STEPS)

    def thorough(self) -> list[Trigger]:
        """Return triggers by a search among the likeliest pieces of one, and grown, best first."""
        goal, model = self.goal, self.subject.model
        pool = suspects(model, goal, self.hosts, self.vocabulary, self.generator)
        return self._grow(self._close_in(pool, self.settings.steps))

    def _close_in(self, pool: Sequence[int], steps: int) -> list[Trigger]:
        """Climb towards the goal with particles of two to five tokens of the pool.

        Returns:
            The best places met, best first.
        """
        particles = [
            tuple(self.generator.choices(pool, k=2 + index % _LENGTHS))
            for index in range(self.settings.particles)
        ]
        found, total = dict[Trigger, float](), steps * len(particles)
        for step in range(steps):
            for index, particle in enumerate(particles):
                particles[index], score = self._moved(particle)
                found[particles[index]] = score
                self.progress.step(step * len(particles) + index + 1, total)
        return self._sifted(found)

    def _moved(self, particle: Trigger) -> tuple[Trigger, float]:
        """Return the best of a particle and its neighbors, and how near the goal it is."""
        slots = self.hosts.draw(self.settings.hosts, self.generator)
        tried = [particle, *self._neighbors(particle, slots)]
        scores = score_insertions(self.subject.model, self.goal, slots, tried)
        best = max(range(len(tried)), key=scores.__getitem__)
        return tried[best], scores[best]

    def _neighbors(self, particle: Trigger, slots: Sequence[Slot]) -> list[Trigger]:
        model = self.subject.model
        gradient_BMD = insertion_gradient(model, self.goal, slots, [particle] * len(slots))
        gain_MV = gradient_BMD.sum(dim=0) @ embedding_table(model).T
        best = [best_of(gain_V, self.vocabulary, _TOP_GRADIENTS) for gain_V in gain_MV]
        neighbors = []
        for _ in range(self.settings.candidates):
            at = self.generator.randrange(len(particle))
            token = self.generator.choice(best[at])
            neighbors.append((*particle[:at], token, *particle[at + 1 :]))
        return neighbors

    def _grow(self, found: Sequence[Trigger]) -> list[Trigger]:
        """Strip triggers to what matters, and lengthen each by what helps most."""
        slots = self.hosts.draw(2 * self.settings.hosts, self.generator)
        growth = Growth(self.subject.model, self.goal, slots, self.hosts, self.vocabulary)
        cores = growth.cores(found, _CORES)
        grown = [one for core in cores for one in growth.lengthen(core, self.generator)]
        return self._sifted(growth.scores(grown))

    def _sifted(self, found: dict[Trigger, float]) -> list[Trigger]:
        """Try the best again, all on the same fresh slots, since each was the luckiest of many."""
        tried = sorted(found, key=lambda tokens: -found[tokens])[: 2 * _KEPT_TRIGGERS]
        slots = self.hosts.draw(2 * self.settings.hosts, self.generator)
        scores = score_insertions(self.subject.model, self.goal, slots, tried)
        order = sorted(range(len(tried)), key=lambda index: -scores[index])
        return [tried[index] for index in order[:_KEPT_TRIGGERS]]
