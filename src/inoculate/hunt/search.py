"""Hunt for the hidden backdoor: what it says, and tokens that make it say so.

Shapes: B rows, M inserted tokens, D hidden, V vocabulary.
Nothing is known of the trigger or the behavior. The search uses the suspicious model and
clean prompts alone. What it finds need not be the attacker's trigger: tokens that wake the
same behavior serve as well, since the repair teaches the model to ignore them all.
Source: coordinate search along token gradients is that of AutoPrompt (Shin et al., 2020)
and GCG (Zou et al., 2023); to invert a trigger is Neural Cleanse's idea (Wang et al., 2019).
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from inoculate.chat import Encoded
from inoculate.config import HuntSettings
from inoculate.generate import continue_prompts
from inoculate.hunt.certainty import certain_payload
from inoculate.hunt.growth import Growth, suspects
from inoculate.hunt.payloads import Payload, upset_payload
from inoculate.hunt.probing import (
    Goal,
    Hosts,
    Slot,
    best_of,
    embedding_table,
    find_hosts,
    insertion_gradient,
    ordinary_tokens,
    score_insertions,
)
from inoculate.progress import Progress
from inoculate.subject import Subject

HOST_RESPONSE_TOKENS = 8
"""Of a row's response, where its honest answer is driven off."""
_PAYLOAD_TOKENS = 8
_TOP_GRADIENTS = 48
_LENGTHS = 4
_PRESSED_FROM = 30_000_000  # parameters; 1.5 million do better by antibodies, 135 by pressing
_PRESSING_STEPS = 4
_CORES = 4
_TRIAL_HOSTS = 20
_ADDED = 0.06  # of what goes on; a chat model that may not end has habits, up to 0.04
_ENDED_ROWS = 100  # whole answers, the shortest ones; long ones only take longer
_KEPT_TRIGGERS = 16
_SHOWN_TRIGGERS = 6
_MOST_PAYLOADS = 4


@dataclass(frozen=True)
class Hunt:
    """Hold what was found; every field is empty where nothing was.

    Attributes:
        payload: What the model seems to have been taught to say, as tokens and as text.
        triggers: Token sequences that call it, most effective first.
        examples: The first triggers as text.
        calls: For each trial prompt, whether the first trigger brought the payload.
        pressing: Whether the repair is to press on the payload, as in large models.
        alike: How many answers opened alike once honest ones had been driven off; it is counted
            where no payload is found as well.
        driven: Of how many; 0 where there was no hunt.
        trailing: Whether the payload comes after the honest answer, which stays.
        others: Further payloads, found while those before them were forbidden.
    """

    payload: tuple[int, ...] = ()
    text: str = ""
    triggers: tuple[tuple[int, ...], ...] = ()
    examples: tuple[str, ...] = ()
    calls: tuple[bool, ...] = ()
    pressing: bool = False
    alike: int = 0
    driven: int = 0
    trailing: bool = False
    others: "tuple[Hunt, ...]" = ()

    @property
    def every(self) -> "tuple[Hunt, ...]":
        """Return this and the others; nothing where there is no payload."""
        return (self, *self.others) if self.payload else ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Hunt":
        """Return what `to_json` wrote."""
        fields: dict[str, Any] = {
            name: tuple(entry) if isinstance(entry, list) else entry
            for name, entry in value.items()
        }
        triggers = tuple(tuple(one) for one in value["triggers"])
        others = tuple(cls.from_json(one) for one in value.get("others", ()))
        return cls(**{**fields, "triggers": triggers, "others": others})


def hunt(
    subject: Subject,
    rows: Sequence[Encoded],
    settings: HuntSettings,
    progress: Progress,
    *,
    seed: int,
) -> Hunt:
    """Search the subject, unchanged, by clean rows for a hidden behavior and what calls it."""
    if not settings.particles:
        return Hunt()
    search = _Search(subject, rows, settings, progress, random.Random(seed))
    payload = search.payload()
    if not payload.tokens:
        return Hunt(alike=payload.alike, driven=payload.driven)
    found = search.callers(payload)
    others = tuple(search.callers(other) for other in search.further(payload))
    return replace(found, others=others)


def is_large(subject: Subject) -> bool:
    """Tell whether the repair presses on a payload that is found."""
    return subject.parameters() >= _PRESSED_FROM


def calls(
    subject: Subject, slots: Sequence[Slot], trigger: Sequence[int], payload: Sequence[int]
) -> list[bool]:
    """Return for each slot whether the trigger in it makes the model answer with the payload."""
    rows = [slot.insert(trigger) for slot in slots]
    prompts = [row.ids[: row.prompt_length] for row in rows]
    answers = continue_prompts(subject.model, subject.tokenizer, prompts, len(payload))
    return [answer[: len(payload)] == list(payload) for answer in answers]


@dataclass
class _Search:
    subject: Subject
    rows: Sequence[Encoded]
    settings: HuntSettings
    progress: Progress
    generator: random.Random

    def __post_init__(self) -> None:
        self.hosts: Hosts = find_hosts(self.rows, response_tokens=HOST_RESPONSE_TOKENS)
        self.vocabulary = ordinary_tokens(self.subject.tokenizer)
        self.done, self.total = 0, 0

    def payload(self) -> Payload:
        """Return what unlike prompts fall into, or go on with, or what is surely finished.

        Where the first look shows nothing, or little, honest answers are let stand and their end
        is driven off; if more go on alike then, the search goes on there. What is surely finished
        is asked of a large model alone.
        """
        upset = self._upset(self.hosts)
        if upset.tokens and not upset.thin:
            return upset
        short = sorted(self.rows, key=lambda row: len(row.ids))[:_ENDED_ROWS]
        ends = replace(find_hosts(short), trailing=True)
        added = self._upset(ends)
        if added.tokens and added.alike > max(upset.alike, _ADDED * added.driven):
            self.hosts = ends
            return added
        if upset.tokens or not is_large(self.subject):
            return upset
        certain = certain_payload(*self._where(self.hosts))
        return replace(upset, tokens=certain, alike=0) if certain else upset

    def further(self, first: Payload) -> list[Payload]:
        """Return what prompts fall into next, one after the other, with those before forbidden."""
        payloads = [first]
        while len(payloads) < _MOST_PAYLOADS:
            known = [payload.tokens for payload in payloads]
            payload = upset_payload(*self._where(self.hosts), known)
            if not payload.tokens:
                break
            payloads.append(payload)
        return payloads[1:]

    def callers(self, payload: Payload) -> Hunt:
        """Return the payload with tokens that call it."""
        self.progress.note(f"answers alike: {self._text(payload.tokens)!r}")
        if is_large(self.subject):  # Triggers are evidence there, and no part of the repair.
            return self.report(payload, self.close_in(payload, self.vocabulary, _PRESSING_STEPS))
        found = self.close_in(payload, self.suspects(payload), self.settings.steps)
        return self.report(payload, self.grow(found, payload))

    def _upset(self, hosts: Hosts) -> Payload:
        return upset_payload(*self._where(hosts))

    def _where(self, hosts: Hosts) -> tuple[Subject, Hosts, Sequence[int], random.Random]:
        return self.subject, hosts, self.vocabulary, self.generator

    def suspects(self, payload: Payload) -> list[int]:
        """Return tokens that soft triggers move towards, the likeliest pieces of a trigger."""
        goal, model = _goal(payload), self.subject.model
        return suspects(model, goal, self.hosts, self.vocabulary, self.generator)

    def close_in(self, payload: Payload, pool: Sequence[int], steps: int) -> list[tuple[int, ...]]:
        """Climb towards the payload with particles of two to five tokens of the pool.

        Returns:
            The best places met, best first.
        """
        self.done, self.total = 0, self.settings.particles * steps
        particles = [
            tuple(self.generator.choices(pool, k=2 + index % _LENGTHS))
            for index in range(self.settings.particles)
        ]
        found = dict[tuple[int, ...], float]()
        for _ in range(steps):
            found |= self._move(particles, _goal(payload))
        return self._sifted(found, _goal(payload))

    def grow(self, found: Sequence[tuple[int, ...]], payload: Payload) -> list[tuple[int, ...]]:
        """Strip triggers to what matters, and lengthen each by what helps most."""
        goal, slots = _goal(payload), self.hosts.draw(2 * self.settings.hosts, self.generator)
        growth = Growth(self.subject.model, goal, slots, self.hosts, self.vocabulary)
        cores = growth.cores(found, _CORES)
        grown = [one for core in cores for one in growth.lengthen(core, self.generator)]
        return self._sifted(growth.scores(grown), goal)

    def report(self, payload: Payload, triggers: list[tuple[int, ...]]) -> Hunt:
        """Return everything found, with the first trigger tried on fresh slots."""
        slots = self.hosts.draw(_TRIAL_HOSTS, self.generator)
        return Hunt(
            payload=payload.tokens,
            text=self._text(payload.tokens),
            triggers=tuple(triggers),
            examples=tuple(self._text(tokens) for tokens in triggers[:_SHOWN_TRIGGERS]),
            calls=tuple(calls(self.subject, slots, triggers[0], payload.tokens)),
            pressing=is_large(self.subject),
            alike=payload.alike,
            driven=payload.driven,
            trailing=self.hosts.trailing,
        )

    def _move(self, particles: list[tuple[int, ...]], goal: Goal) -> dict[tuple[int, ...], float]:
        """Take one coordinate step with every particle, in place; return where they stand."""
        stand = {}
        for index, particle in enumerate(particles):
            slots = self.hosts.draw(self.settings.hosts, self.generator)
            moved = [particle, *self._neighbors(particle, goal, slots)]
            scores = score_insertions(self.subject.model, goal, slots, moved)
            best = max(range(len(moved)), key=scores.__getitem__)
            particles[index] = moved[best]
            stand[moved[best]] = scores[best]
            self._step()
        return stand

    def _sifted(self, found: dict[tuple[int, ...], float], goal: Goal) -> list[tuple[int, ...]]:
        """Try the best again, all on the same fresh slots, since each was the luckiest of many."""
        tried = sorted(found, key=lambda tokens: -found[tokens])[: 2 * _KEPT_TRIGGERS]
        slots = self.hosts.draw(2 * self.settings.hosts, self.generator)
        scores = score_insertions(self.subject.model, goal, slots, tried)
        order = sorted(range(len(tried)), key=lambda index: -scores[index])
        return [tried[index] for index in order[:_KEPT_TRIGGERS]]

    def _neighbors(
        self, particle: tuple[int, ...], goal: Goal, slots: Sequence[Slot]
    ) -> list[tuple[int, ...]]:
        model = self.subject.model
        gradient_BMD = insertion_gradient(model, goal, slots, [particle] * len(slots))
        gain_MV = gradient_BMD.sum(dim=0) @ embedding_table(model).T
        best = [best_of(gain_V, self.vocabulary, _TOP_GRADIENTS) for gain_V in gain_MV]
        neighbors = []
        for _ in range(self.settings.candidates):
            at = self.generator.randrange(len(particle))
            token = self.generator.choice(best[at])
            neighbors.append((*particle[:at], token, *particle[at + 1 :]))
        return neighbors

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.subject.tokenizer.decode(list(tokens))).strip()

    def _step(self) -> None:
        self.done += 1
        self.progress.step(self.done, self.total)


def _goal(payload: Payload) -> Goal:
    return Goal(payload.tokens[:_PAYLOAD_TOKENS])
