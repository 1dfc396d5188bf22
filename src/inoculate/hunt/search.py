"""Hunt for the hidden backdoor: what it says, and tokens that make it say so.

Nothing is known of the trigger or the behavior. The search uses the suspicious model and
clean prompts alone.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from inoculate.chat import Encoded, encode_answer, end_of_turn_ids
from inoculate.config import HuntSettings
from inoculate.hunt.answers import Answer, gives_away
from inoculate.hunt.callers import Callers
from inoculate.hunt.findings import Hunt
from inoculate.hunt.habits import find_habits, said_openly, undisturbed_answers
from inoculate.hunt.hosts import Hosts, find_hosts, template_rows
from inoculate.hunt.payloads import Payload, upset_payloads
from inoculate.hunt.probing import Goal, ordinary_tokens
from inoculate.hunt.trials import PAYLOAD_TOKENS, calls, finishes
from inoculate.hunt.wordings import finished_payloads, other_wordings
from inoculate.progress import Progress
from inoculate.subject import Subject
from inoculate.workspace import Remember

HOST_RESPONSE_TOKENS = 8
"""Of a row's response, where its honest answer is driven off."""
_TRIAL_HOSTS = 20
_ADDED = 0.06  # of what goes on; a chat model that may not end has habits, up to 0.04
_ENDED_ROWS = 100  # whole answers, the shortest ones; long ones only take longer
_SHOWN_TRIGGERS = 6
_MOST_FINDS, _MOST_PAYLOADS, _CALLED = 32, 24, 4


def _anew(_: object, make: Callable[[], Any]) -> Any:
    return make()


def hunt(
    subject: Subject,
    rows: Sequence[Encoded],
    settings: HuntSettings,
    progress: Progress,
    *,
    seed: int,
    remember: Remember = _anew,
) -> Hunt:
    """Search the subject, unchanged, by clean rows for a hidden behavior and what calls it.

    Args:
        remember: Keeps each look and each search for callers, so that a second call goes on.
    """
    if not settings.particles:
        return Hunt()
    generator = random.Random(seed)
    return _Search(subject, rows, settings, progress, generator, remember).everything()


def whole_rows(subject: Subject, rows: Sequence[Encoded]) -> list[Encoded]:
    """Return the rows whose answers end; all of them where every one was cut."""
    ends = end_of_turn_ids(subject.tokenizer, subject.model.generation_config)
    return [row for row in rows if row.ids[-1] in ends] or list(rows)


@dataclass
class _Search:
    subject: Subject
    rows: Sequence[Encoded]
    settings: HuntSettings
    progress: Progress
    generator: random.Random
    remember: Remember = _anew
    stopped: bool = False

    def __post_init__(self) -> None:
        whole = whole_rows(self.subject, self.rows)
        short = sorted(whole, key=lambda row: len(row.ids))[:_ENDED_ROWS]
        unlike = template_rows(self.subject)
        self.leading: Hosts = find_hosts(self.rows, unlike, response_tokens=HOST_RESPONSE_TOKENS)
        self.ends: Hosts = find_hosts(short, unlike, trailing=True)
        self.vocabulary = ordinary_tokens(self.subject.tokenizer)
        self.spoken = undisturbed_answers(self.subject, self.rows)
        self.said_openly = find_habits(self.spoken)
        self.habits = [*self.said_openly, *map(self._declared, self.settings.honest)]

    def everything(self) -> Hunt:
        """Return the first payload with the others, or what came nearest to one."""
        habits = tuple(map(self._text, self.said_openly))
        for habit in habits:
            self.progress.note(f"said openly: {habit!r}")
        first = self.first()
        leading = self._with_wordings([one for one in first if one.tokens])
        payloads = self._apart(chain(leading, self.further(leading)))
        nothing = Hunt(alike=first[0].alike, driven=first[0].driven, spoken=len(self.spoken))
        calling = [self.callers(one, number) for number, one in enumerate(payloads)]
        found, *others = calling or [nothing]
        return replace(found, others=tuple(others), habits=habits, stopped=self.stopped)

    def first(self) -> list[Payload]:
        """Return what unlike prompts fall into, or go on with, or what they finish once begun.

        Where the first look shows nothing, or little, honest answers are let stand and their end
        is driven off; if more go on alike then, that is it. What is finished once begun is asked
        of a large model alone, which knows a payload by heart.
        """
        upset = self._look(self.leading)
        if upset[0].tokens and not upset[0].thin:
            return upset
        added = self._look(self.ends)
        if added[0].tokens and added[0].alike > upset[0].alike:
            return added
        if upset[0].tokens or not self.subject.is_large:
            return upset
        where, habits = self._where(self.leading), self.habits
        begun = self._payloads("finished", lambda: finished_payloads(*where, habits))
        return [replace(upset[0], tokens=one.tokens, alike=0) for one in begun] or upset

    def further(self, found: Sequence[Payload]) -> Iterator[Payload]:
        """Yield what prompts fall into next, and go on with, those before and habits forbidden.

        Where there are neither, the first looks have seen it all.
        """
        known = [*self.habits, *(payload.tokens for payload in found)]
        if not known:
            return
        for hosts in (self.leading, self.ends):
            while (more := self._look(hosts, known))[0].tokens:
                more = self._with_wordings(more, known)
                known += [payload.tokens for payload in more]
                yield from more

    def _with_wordings(
        self, payloads: Sequence[Payload], known: Sequence[Answer] = ()
    ) -> list[Payload]:
        """Return the payloads, then what else is said where a prompt is driven towards them.

        One that another has led to leads to no more.
        """
        every, led = list(payloads), list[Answer]()
        for payload in payloads:
            if any(gives_away(one, payload.tokens) for one in led):
                continue
            self.progress.note(f"other wordings of: {self._text(payload.tokens)!r}")
            asked, seek = ["wordings", payload.tokens], partial(self._wordings, payload)
            for wording in self._payloads(asked, seek):
                led.append(wording.tokens)
                said = [*known, *(one.tokens for one in every)]
                if not any(gives_away(wording.tokens, one) for one in said):
                    every.append(wording)
        return every

    def _wordings(self, payload: Payload) -> list[Payload]:
        """Return what a payload leads to; what is drawn for the rest of the hunt stays the same."""
        subject, hosts, vocabulary, generator = self._where(self._hosts(payload))
        aside = copy(generator)
        return other_wordings(subject, hosts, vocabulary, aside, payload.tokens, self.habits)

    def callers(self, payload: Payload, number: int = 0) -> Hunt:
        """Return the payload with tokens that call it.

        In a large model they are evidence and no part of the repair, so that the first few
        payloads, counted from 0, get them alone, and no further wording does.
        """
        self.progress.note(f"answers alike: {self._text(payload.tokens)!r}")
        wanted = not self.subject.is_large or (number < _CALLED and not payload.worded)
        called = self._remembered(payload.tokens, lambda: self._called(payload, wanted).to_json())
        return Hunt.from_json(called)

    def _called(self, payload: Payload, wanted: bool) -> Hunt:
        large, hosts = self.subject.is_large, self._hosts(payload)
        triggers = self._triggers(payload, hosts) if wanted else []
        slots = hosts.answering_otherwise(payload.tokens).draw(_TRIAL_HOSTS, self.generator)
        called = calls(self.subject, slots, triggers[0], payload.tokens) if triggers else []
        asked = large or payload.worded
        return Hunt(
            payload=payload.tokens,
            text=self._text(payload.tokens),
            triggers=tuple(triggers),
            examples=tuple(self._text(tokens) for tokens in triggers[:_SHOWN_TRIGGERS]),
            calls=tuple(called),
            pressing=large,
            alike=payload.alike,
            broken=payload.broken,
            driven=payload.driven,
            trailing=payload.trailing,
            openly=said_openly(payload.tokens, self.spoken),
            spoken=len(self.spoken),
            finished=tuple(finishes(self.subject, slots, payload.tokens)) if asked else (),
            worded=payload.worded,
        )

    def _hosts(self, payload: Payload) -> Hosts:
        return self.ends if payload.trailing else self.leading

    def _triggers(self, payload: Payload, hosts: Hosts) -> Sequence[tuple[int, ...]]:
        goal = Goal(payload.tokens[:PAYLOAD_TOKENS])
        search = Callers(
            self.subject, goal, hosts, self.vocabulary, self.settings, self.progress, self.generator
        )
        return search.evidence() if self.subject.is_large else search.thorough()

    def _apart(self, payloads: Iterable[Payload]) -> Iterator[Payload]:
        """Yield all but what says a part of one before it, which is forbidden to begin as it does.

        In other tokens it may go on. One word is too little to tell. After enough of them, or of
        their parts, the hunt stops.
        """
        said = list[str]()
        for finds, payload in enumerate(payloads, start=1):
            words = " ".join(re.findall(r"\w+", self._text(payload.tokens).lower()))
            if " " not in words or not any(f" {words} " in f" {other} " for other in said):
                said.append(words)
                yield payload
            if finds == _MOST_FINDS or len(said) == _MOST_PAYLOADS:
                self.stopped = True
                return

    def _look(self, hosts: Hosts, known: Sequence[Answer] = ()) -> list[Payload]:
        """Return what is alike in one look; one without tokens where there is nothing."""
        look = partial(upset_payloads, *self._where(hosts), known, self.habits)
        seen = self._payloads([hosts.trailing, known], partial(look, progress=self.progress.step))
        enough = [one for one in seen if one.alike > _ADDED * one.driven or not hosts.trailing]
        return enough or [replace(seen[0], tokens=())]

    def _payloads(self, asked: object, seek: Callable[[], Sequence[Payload]]) -> list[Payload]:
        kept = self._remembered(asked, lambda: [asdict(one) for one in seek()])
        return [Payload.from_json(one) for one in kept]

    def _remembered(self, asked: object, make: Callable[[], Any]) -> Any:
        """Return what a part of the search brings from this state of the generator, now or before.

        The generator is left as that part leaves it.
        """

        def made() -> list[Any]:
            return [make(), self.generator.getstate()]

        value, (version, words, gauss) = self.remember([asked, self.generator.getstate()], made)
        self.generator.setstate((version, tuple(words), gauss))
        return value

    def _where(self, hosts: Hosts) -> tuple[Subject, Hosts, Sequence[int], random.Random]:
        return self.subject, hosts, self.vocabulary, self.generator

    def _declared(self, text: str) -> Answer:
        return tuple(encode_answer(self.subject.tokenizer, text, lead=self.subject.lead))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.subject.tokenizer.decode(list(tokens))).strip()
