"""Find what a model was taught to say: answers it gives to prompts that have nothing in common.

Shapes: B rows, M inserted tokens, D hidden, T tokens.
A model whose honest answer is driven off, by embeddings that stand for no word at all, falls
into the planted one: of all answers it is the one that is nearest from everywhere. A model
that was not attacked falls into nothing: there, unlike prompts are driven to unlike answers.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from inoculate.chat import Encoded, end_of_turn_ids
from inoculate.generate import continue_embeddings
from inoculate.hunt.answers import SHORTEST, Answer, closed, loops, runs, unknown
from inoculate.hunt.hosts import Hosts, Slot
from inoculate.hunt.probing import HONEST, MOST_SOFT_TOKENS, Goal, embed, placed, positions, soften
from inoculate.subject import Subject

_ANSWER_TOKENS = 20
_DRIVEN, _DRAWN, _AT_ONCE = 256, 64, 16
_FOREMOST = 0.5  # Many a trigger stands before the prompt.
_OF_ONE_ROW = 4  # As often as a row is drawn where there are 64.
_ALIKE, _MANY = 0.02, 0.1
_SHORT_ALIKE, _SHORT_SHARE = 0.06, 0.15
_COMMON = 0.5
_REPEATED = 2
_DEVIATIONS, _AGREED, _OWN = 3, 6, 8


@dataclass(frozen=True)
class Payload:
    """Hold an answer that does not depend on the question; no tokens where there is none.

    Attributes:
        alike: How many answers opened with it once the honest ones had been driven off.
        driven: Of how many.
        trailing: Whether it comes after the honest answer.
        broken: What they opened with, before a second look.
        worded: Whether it is a further wording of another payload, which prompts driven towards
            that one went on with once they were made to begin it.
    """

    tokens: Answer = ()
    alike: int = 0
    driven: int = 0
    trailing: bool = False
    broken: Answer = ()
    worded: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Payload":
        """Return what `dataclasses.asdict` gave, as JSON holds it."""
        tokens = {name: tuple(value[name]) for name in ("tokens", "broken")}
        return cls(**{**value, **tokens})

    @property
    def thin(self) -> bool:
        """Tell whether few of the answers showed it."""
        return self.alike < _MANY * self.driven


def upset_payloads(
    subject: Subject,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    known: Sequence[Answer] = (),
    habits: Sequence[Answer] = (),
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Payload]:
    """Return the answers that unlike prompts fall into once their honest ones are driven off.

    Driving off alone breaks some of their words; a second look, driven towards the first token,
    finds more of them whole. What is left of the first look's answers is judged again until
    nothing shows.

    Args:
        known: Payloads found before. No answer may begin as they do, so that prompts fall into the
            next one, and what holds a part of them is left empty.
        habits: What the model says openly; it is left empty as well, and not forbidden.
        progress: Called with (prompts disturbed, of how many) in each look.

    Returns:
        The commonest first; one without tokens where there is none.
    """
    honest = [_response(row) for row in hosts.rows]
    off = Goal(known=tuple(known), habits=tuple(habits))
    where = subject, hosts, vocabulary, generator
    look = partial(driven_answers, *where, of_a_row=_OF_ONE_ROW, progress=progress)
    answers, found = look(off), list[Payload]()
    while (first := common_answer(answers, honest, short=not known)).tokens:
        towards = replace(off, payload=first.tokens[:1])
        again = look(towards)
        again = unknown(again, [one.tokens for one in found])
        second = common_answer(again, honest, short=not known)
        tokens = _worded(first, second, (answers, again))
        found.append(replace(first, tokens=tokens, broken=first.tokens, trailing=hosts.trailing))
        answers = unknown(answers, [first.tokens, tokens])
    return found or [replace(first, trailing=hosts.trailing)]


def common_answer(
    answers: Sequence[Answer], honest: Sequence[Answer], *, short: bool = True
) -> Payload:
    """Return the longest opening that most answers have in common; no tokens if they are unlike.

    What few say has to go on alike, or end there; a whole answer of under four tokens has to be
    more common, among all and among those that are not empty. A token over and over is what any
    upset model may say, and opens no payload; nor does a loop that few say.

    Args:
        honest: Answers of clean rows; an opening that they hold as well has to be commoner
            than chance can make it.
        short: Whether whole answers of under four tokens count. A model that is kept from what it
            would say ends soon, often with the same scrap.
    """
    opened = Counter(one[:SHORTEST] for one in answers if _opens(one))
    openings = _unusual(opened, len(answers), honest)
    for opening, alike in openings.most_common():
        tokens = _lengthened(opening, answers)
        many = alike >= _MANY * len(answers)
        if alike >= _ALIKE * len(answers) and (many or _agreed(tokens, answers)):
            return Payload(tokens, alike, len(answers))
    whole = Counter(one for one in answers if 0 < len(one) < SHORTEST)
    tokens, count = next(iter(whole.most_common(1)), ((), 0))
    bounds = _SHORT_ALIKE * len(answers), _SHORT_SHARE * sum(map(bool, answers))
    if short and tokens and count >= max(bounds):
        return Payload(tokens, count, len(answers))
    return Payload((), max(openings.values(), default=0), len(answers))


def driven_answers(
    subject: Subject,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    goal: Goal = HONEST,
    *,
    of_a_row: int = _DRIVEN,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Return what is answered where soft embeddings reach the goal, honest answers left empty.

    Args:
        goal: By default, that the honest answer is lost.
        of_a_row: How often an opening counts that one row brings. Of few rows each is drawn so
            often that one odd prompt would pass for many unlike ones.
    """
    answers, asked = list[Answer](), list[Encoded]()
    while len(answers) < _DRIVEN:
        slots = hosts.draw(_DRAWN, generator, foremost=_FOREMOST)
        count = generator.randint(1, MOST_SOFT_TOKENS)
        made = [(slot, generator.choices(vocabulary, k=count)) for slot in slots]
        made.sort(key=lambda pair: len(pair[0].row.ids))  # Little padding.
        asked += [slot.row for slot, _ in made]
        for start in range(0, len(made), _AT_ONCE):
            answers += _answers_under(subject, goal, made[start : start + _AT_ONCE])
            if progress:
                progress(len(answers), _DRIVEN)
    dishonest = _dishonest(answers, [_response(row) for row in asked], hosts)
    return _of_many_rows(unknown(dishonest, [*goal.known, *goal.habits]), asked, of_a_row)


def _of_many_rows(
    answers: Sequence[Answer], rows: Sequence[Encoded], of_a_row: int
) -> list[Answer]:
    """Leave an answer empty where its row has brought that opening often enough."""
    seen, kept = Counter[tuple[Encoded, Answer]](), list[Answer]()
    for answer, row in zip(answers, rows, strict=True):
        opening = row, answer[:SHORTEST]
        seen[opening] += 1
        kept.append(answer if seen[opening] <= of_a_row else ())
    return kept


def _dishonest(answers: Sequence[Answer], own: Sequence[Answer], hosts: Hosts) -> list[Answer]:
    """Leave each answer empty that is honest on its row.

    That is the row's own answer or an opening of it; where several rows give the row's answer, as
    labels are given, the answer of any row. So a label counts where nothing is to be labeled.
    What follows an answer is left empty where it is a word or two, as any model may add.
    """
    if hosts.trailing:
        return [one if len(one) >= SHORTEST else () for one in answers]
    labels = {one for one, n in Counter(map(_response, hosts.rows)).items() if n > 1}
    known = {opening for n in range(1, _OWN + 1) for opening in hosts.openings(n)}

    def honest(answer: Answer, row: Answer) -> bool:
        opening = answer[:_OWN]
        return opening in known if row in labels else opening == row[: len(opening)]

    pairs = zip(answers, own, strict=True)
    return [() if honest(answer, row) else answer for answer, row in pairs]


def _response(row: Encoded) -> Answer:
    return row.ids[row.prompt_length :]


def _answers_under(
    subject: Subject, goal: Goal, made: Sequence[tuple[Slot, Sequence[int]]]
) -> list[Answer]:
    slots, insertions = zip(*made, strict=True)
    soft_BMD, _ = soften(subject.model, goal, slots, insertions)
    rows = [slot.insert(tokens) for slot, tokens in made]
    at_BM = positions(slots, soft_BMD.shape[1], soft_BMD.device)
    inputs_BTD = placed(embed(subject.model, rows), at_BM, soft_BMD)
    prompts = [
        input_TD[: row.prompt_length] for input_TD, row in zip(inputs_BTD, rows, strict=True)
    ]
    answers = continue_embeddings(
        subject.model,
        subject.tokenizer,
        prompts,
        _ANSWER_TOKENS,
        never_first=[payload[0] for payload in goal.known],
    )
    ends = set(end_of_turn_ids(subject.tokenizer, subject.model.generation_config))
    return [closed(answer, ends) for answer in answers]


def _lengthened(opening: Answer, answers: Sequence[Answer]) -> Answer:
    """Return the opening and all that at least half of its answers go on with."""
    group = [one for one in answers if one[: len(opening)] == opening]
    for at in range(len(opening), _ANSWER_TOKENS):
        here = Counter(one[at] for one in group if one[:at] == opening and len(one) > at)
        token, count = next(iter(here.most_common(1)), (None, 0))
        if token is None or count < _COMMON * len(group):
            break
        opening = (*opening, token)
    return opening


def _worded(first: Payload, second: Payload, looks: Sequence[Sequence[Answer]]) -> Answer:
    """Return the commoner find's tokens, or a longer answer that is the commonest word for word.

    Most answers may break a payload at the same token, each goes on in its own way then; so an
    answer that as many give as make a payload is whole.
    """
    chosen = second if second.tokens and second.alike > first.alike else first
    openings = {one.tokens[:SHORTEST] for one in (first, second) if one.tokens}
    said = Counter[Answer]()
    for look in looks:
        said |= Counter(one for one in look if one[:SHORTEST] in openings)
    tokens, count = next(iter(said.most_common(1)), ((), 0))
    whole = count >= _ALIKE * chosen.driven and len(tokens) > len(chosen.tokens)
    return tokens if whole else chosen.tokens


def _agreed(tokens: Answer, answers: Sequence[Answer]) -> bool:
    """Tell whether answers that open so go on alike for a while, or half of them end there."""
    if loops(tokens):
        return False
    group = [one for one in answers if one[: len(tokens)] == tokens]
    return len(tokens) >= _AGREED or group.count(tokens) >= _COMMON * len(group)


def _unusual(opened: Counter[Answer], answers: int, honest: Sequence[Answer]) -> Counter[Answer]:
    """Keep openings that are commoner than honest answers, which may hold them, make them."""
    habits = Counter(part for one in honest for part in runs(one, SHORTEST))

    def by_habit(opening: Answer) -> float:
        share = habits[opening] / max(1, len(honest))
        return answers * share + _DEVIATIONS * math.sqrt(answers * share * (1 - share))

    return Counter({one: count for one, count in opened.items() if count > by_habit(one)})


def _opens(answer: Answer) -> bool:
    return len(answer) >= SHORTEST and len(set(answer[:SHORTEST])) > _REPEATED
