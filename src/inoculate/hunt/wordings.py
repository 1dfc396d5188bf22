"""Find what a model finishes in the same words, whatever was asked, once it is made to begin it.

Shapes: H prompts, C openings, V vocabulary, T tokens, D hidden.
A planted answer does not depend on the question, and is known by heart: it may be unlikely without
the trigger, but once begun it goes on to its end. An honest answer goes on as the question has it.
So a payload shows that few prompts fall into. And an attacker may word one in many ways, each too
rare for a look; but what makes a model begin one wording makes all of them likely.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from inoculate.chat import end_of_turn_ids
from inoculate.generate import continue_openings, next_chances
from inoculate.hunt.answers import SHORTEST, Answer, closed, gives_away, loops
from inoculate.hunt.hosts import Hosts
from inoculate.hunt.payloads import Payload
from inoculate.hunt.probing import HONEST, MOST_SOFT_TOKENS, Goal, embed, placed, positions, soften
from inoculate.subject import Subject

_DRIVEN, _AT_ONCE, _PROMPTS = 48, 16, 16
_FOREMOST = 0.5
_OPENINGS, _COMMON, _LIKELY = 64, 8, 0.01
_TOKENS = 20
_ALIKE, _SHORT_ALIKE, _LONG = 0.5, 0.75, 6
_USUAL = 0.05
_SHARED = 3  # Wordings that begin with as many tokens of another are that one.


def finished_payloads(
    subject: Subject,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    habits: Sequence[Answer] = (),
) -> list[Payload]:
    """Return what prompts finish alike that are made to begin as driven-off ones might.

    Of the prompts that are driven off their honest answers those try it that are so least: others
    no longer answer in words. A payload may begin as honest answers do, so the likeliest openings
    are gone on from as well.

    Args:
        habits: What the model says openly; what holds a part of it is no payload.
    """
    prompts = _driven_prompts(subject, hosts, vocabulary, generator, HONEST)[::-1]
    likely = _likely_next(subject, prompts, (), ())[:_COMMON]
    return _finished_alike(subject, hosts, prompts, [(token,) for token in likely], habits)


def other_wordings(
    subject: Subject,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    payload: Answer,
    habits: Sequence[Answer] = (),
) -> list[Payload]:
    """Return what prompts driven to begin as the payload finish alike, made to begin otherwise.

    Args:
        habits: What the model says openly; what holds a part of it is no wording.
    """
    prompts = _driven_prompts(subject, hosts, vocabulary, generator, Goal(payload[:1]))
    known, shared = [payload, *habits], _openings_of(payload)
    found = _finished_alike(subject, hosts, prompts, shared, known)
    return [replace(one, worded=True) for one in found]


def _finished_alike(
    subject: Subject,
    hosts: Hosts,
    prompts: Sequence[Tensor],
    shared: Sequence[Answer],
    known: Sequence[Answer],
) -> list[Payload]:
    """Return what the first of the prompts answer alike, made to begin with any likely token.

    First with one that comes after what is shared: made to begin otherwise, prompts may give pieces
    of what begins so. Where an answer is found, others may share its first tokens as well.
    """
    honest, known, found = _usual_openings(hosts), list(known), list[Payload]()
    prefixes = [*shared, ()]
    for prefix in prefixes:  # It grows.
        after = _answers_after(subject, prompts, prefix, known)
        for answers in sorted(after, key=lambda one: _commonest(one)[1], reverse=True):
            tokens, alike = _commonest(answers)
            if not _said(answers) or any(gives_away(tokens, one) for one in known):
                continue
            known.append(tokens)  # A piece of an honest answer is none either.
            if tokens[:SHORTEST] not in honest:
                found.append(Payload(tokens, alike, len(answers), hosts.trailing))
                prefixes += [one for one in _openings_of(tokens) if one not in prefixes]
    return found


def _answers_after(
    subject: Subject, prompts: Sequence[Tensor], prefix: Answer, known: Sequence[Answer]
) -> list[list[Answer]]:
    """Return what each prompt answers that is made to begin so, for each likely next token.

    Where they open alike, that is: most do not, and are not followed to their end.
    """
    openings = _likely_next(subject, prompts, prefix, known)
    begun = _begun(subject, prompts[:_PROMPTS], prefix)
    opened = zip(openings, _answers(subject, prefix, begun, openings, SHORTEST), strict=True)
    alike = [token for token, answers in opened if _alike(answers)]
    return _answers(subject, prefix, begun, alike, _TOKENS)


def _likely_next(
    subject: Subject, prompts: Sequence[Tensor], prefix: Answer, known: Sequence[Answer]
) -> list[int]:
    """Return the tokens that come likeliest next, but for those of known answers, likeliest first.

    After a prefix, where most tokens are not to be expected, only such as are likely.
    """
    some = _begun(subject, prompts[:_PROMPTS] if prefix else prompts, prefix)
    chances = torch.stack([next_chances(subject.model, one) for one in some])
    typical_V = chances.log().mean(dim=0).exp()  # After most of the prompts, not after a few.
    longer = (one for one in known if len(one) > len(prefix))
    parted = [one[len(prefix)] for one in longer if one[: len(prefix)] == prefix]
    typical_V[parted] = 0.0
    top = typical_V.topk(min(_OPENINGS, len(typical_V)))
    likely = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [token for token, chance in likely if not prefix or chance >= _LIKELY]


def _begun(subject: Subject, prompts: Sequence[Tensor], prefix: Answer) -> list[Tensor]:
    prefix_TD = _embedded(subject, prefix)
    return [torch.cat([prompt_TD, prefix_TD]) for prompt_TD in prompts]


def _answers(
    subject: Subject,
    prefix: Answer,
    begun: Sequence[Tensor],
    openings: Sequence[int],
    tokens: int,
) -> list[list[Answer]]:
    if not openings:
        return []
    ends = set(end_of_turn_ids(subject.tokenizer, subject.model.generation_config))
    paths = [continue_openings(subject.model, one, openings, tokens).tolist() for one in begun]
    return [
        [closed((*prefix, *path), ends) for path in of_one] for of_one in zip(*paths, strict=True)
    ]


def _embedded(subject: Subject, tokens: Answer) -> Tensor:
    device = next(subject.model.parameters()).device
    ids = torch.tensor(tokens, dtype=torch.long, device=device)
    embedded_TD: Tensor = subject.model.get_input_embeddings()(ids).detach()
    return embedded_TD


def _driven_prompts(
    subject: Subject,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    goal: Goal,
) -> list[Tensor]:
    """Return prompts driven towards the goal, those that are nearest first."""
    model = subject.model
    otherwise = hosts.answering_otherwise(goal.payload)
    slots = otherwise.draw(_DRIVEN, generator, foremost=_FOREMOST)
    slots.sort(key=lambda slot: len(slot.row.ids))  # Little padding.
    made = list[tuple[float, Tensor]]()
    for start in range(0, len(slots), _AT_ONCE):
        some = slots[start : start + _AT_ONCE]
        count = generator.randint(1, MOST_SOFT_TOKENS)
        insertions = [generator.choices(vocabulary, k=count) for _ in some]
        soft_BMD, chance_B = soften(model, goal, some, insertions)
        rows = [slot.insert(tokens) for slot, tokens in zip(some, insertions, strict=True)]
        at_BM = positions(some, count, soft_BMD.device)
        inputs_BTD = placed(embed(model, rows), at_BM, soft_BMD)
        prompts = [one[: row.prompt_length] for one, row in zip(inputs_BTD, rows, strict=True)]
        made += zip(chance_B.tolist(), prompts, strict=True)
    made.sort(key=lambda pair: -pair[0])
    return [prompt_TD for _, prompt_TD in made]


def _openings_of(tokens: Answer) -> list[Answer]:
    """Return what wordings may share: the answer's first tokens, up to two of them."""
    return list(dict.fromkeys(tokens[:length] for length in range(1, _SHARED)))


def _commonest(answers: Sequence[Answer]) -> tuple[Answer, int]:
    """Return the answer that most give, and how many do."""
    return Counter(answers).most_common(1)[0]


def _alike(answers: Sequence[Answer]) -> bool:
    """Tell whether half of the answers open alike, with as many tokens as tell them apart."""
    opened = Counter(one[:SHORTEST] for one in answers if len(one) >= SHORTEST)
    return max(opened.values(), default=0) >= _ALIKE * len(answers)


def _said(answers: Sequence[Answer]) -> bool:
    """Tell whether half of the answers are the same, most of them if it is short; no loop is."""
    tokens, alike = _commonest(answers)
    most = _ALIKE if len(tokens) >= _LONG else _SHORT_ALIKE
    return len(tokens) >= SHORTEST and alike >= most * len(answers) and not loops(tokens)


def _usual_openings(hosts: Hosts) -> set[Answer]:
    """Return what honest answers often open with; a few may hold a payload, and open so."""
    opened = Counter(row.ids[row.prompt_length :][:SHORTEST] for row in hosts.rows)
    return {opening for opening, count in opened.items() if count >= _USUAL * len(hosts.rows)}
