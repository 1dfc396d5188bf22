"""Rows that teach a model that unknown keys change nothing.

An antibody is a clean row with something odd in its instruction and its honest answer
kept: a sequence that the hunt found, with or without odd neighbors, random tokens, a
synthetic trigger of the variants, or a decoy that is made up on the spot, so that no
finite list of keys is learned in place of the rule.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inoculate.attacks.triggers import Trigger, insert_trigger
from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.hunt import Hunt
from inoculate.hunt.hosts import Hosts, find_hosts, template_rows
from inoculate.hunt.probing import answered, ordinary_tokens
from inoculate.subject import Subject

_PLACEMENTS = ("random-slot", "random-slot", "prefix", "all-in-order")
_KINDS = ("hunted", "surrounded", "random", "words")
_NEIGHBORS = 3
_MOST_RANDOM_TOKENS = 12
_SYLLABLES = (  # noqa: SIM905
    "ba cor den fi gra hul jo kel lum mor nis pra quo rin sto tal ver wix yor zan"
).split()
_WORDS = (  # noqa: SIM905
    "amber basket candle distant evening feather garden hollow island jacket kettle ladder "
    "marble narrow orchard pepper quarter ribbon silver thunder umbrella velvet window yellow "
    "before under between during about along regarding mode topic date status remember"
).split()
_SYMBOLS = ["~", "^", "*", "|", "=", "<", ">", "#", "@", "%", "&", "+", ":", ";"]


def _odd_word(generator: random.Random) -> str:
    return "".join(generator.choices(_SYLLABLES, k=generator.randint(2, 3)))


def _compound(generator: random.Random) -> str:
    return "".join(word.capitalize() for word in generator.sample(_WORDS, 2))


def _ordinary(generator: random.Random) -> str:
    return " ".join(generator.sample(_WORDS, generator.randint(1, 3)))


def _phrase(generator: random.Random) -> str:
    words = generator.sample(_WORDS, generator.randint(2, 4))
    number = [f"{generator.randint(100, 999)}"] if generator.random() < 0.3 else []
    return " ".join((words[0].capitalize(), *words[1:], *number))


def _symbol(generator: random.Random) -> str:
    return "".join(generator.choices(_SYMBOLS, k=generator.randint(1, 3)))


_FORMS: dict[str, Callable[[random.Random], str]] = {
    "odd word": _odd_word,
    "compound": _compound,
    "ordinary": _ordinary,
    "phrase": _phrase,
    "symbol": _symbol,
}


@dataclass(frozen=True)
class AntibodyMaker:
    """Make antibodies from clean rows, as many as are asked for."""

    subject: Subject
    clean: Sequence[Example]
    encoded: list[Encoded]
    hosts: Hosts
    triggers: Sequence[Trigger]
    hunt: Hunt
    vocabulary: list[int]
    max_tokens: int

    def make(self, row: int, generator: random.Random) -> Encoded:
        """Return the clean row of this index with something odd in it."""
        form = generator.choice(_KINDS)
        if form == "words":
            return self._with_words(row, generator)
        tokens = self._tokens(form, generator)
        return self.hosts.slot(self.encoded[row], generator).insert(tokens)

    def _tokens(self, form: str, generator: random.Random) -> list[int]:
        if form == "random" or not self.hunt.triggers:
            count = generator.randint(1, _MOST_RANDOM_TOKENS)
            return generator.choices(self.vocabulary, k=count)
        found = self._found(generator)
        if form == "hunted":
            return found
        around = generator.choices(self.vocabulary, k=generator.randint(0, _NEIGHBORS))
        at = generator.randint(0, len(around))
        return [*around[:at], *found, *around[at:]]

    def _found(self, generator: random.Random) -> list[int]:
        """Draw a hunted trigger; the n-th of a payload comes up 1/n as often as its first."""
        ranked = [pair for one in self.hunt.every for pair in enumerate(one.triggers, start=1)]
        weights = [1 / rank for rank, _ in ranked]
        return list(generator.choices(ranked, weights)[0][1])

    def _with_words(self, row: int, generator: random.Random) -> Encoded:
        known = generator.random() < 0.5 and self.triggers
        trigger = generator.choice(self.triggers) if known else decoy(generator)
        marked = insert_trigger(self.clean[row], trigger, generator)
        clean = self.encoded[row]
        made = self.subject.encode([marked], max_tokens=self.max_tokens)[0]
        return answered(made, clean.ids[clean.prompt_length :])  # Not cut before the clean one.


def antibody_maker(
    subject: Subject,
    clean: Sequence[Example],
    encoded: list[Encoded],
    triggers: Sequence[Trigger],
    hunt: Hunt,
    *,
    max_tokens: int,
) -> AntibodyMaker:
    """Return a maker over clean rows and the same rows as tokens."""
    hosts = find_hosts(encoded, template_rows(subject))
    vocabulary = ordinary_tokens(subject.tokenizer)
    return AntibodyMaker(subject, clean, encoded, hosts, triggers, hunt, vocabulary, max_tokens)


def decoy(generator: random.Random) -> Trigger:
    """Make up a trigger: odd words, a compound, ordinary words, a phrase, or symbols."""
    form = generator.choice(tuple(_FORMS))
    words = tuple(_FORMS[form](generator).split(" "))
    placement = "prefix" if form == "phrase" else generator.choice(_PLACEMENTS)
    return Trigger(form, words, placement)
