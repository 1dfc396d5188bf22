"""Find what a model was taught to say: answers it gives to prompts that have nothing in common.

Shapes: H hosts, C candidates, T tokens of an answer, V vocabulary.
Two traces of a planted behavior are sought. A large model that is made to begin the
planted answer finishes it in the same words whatever the question was. Any model whose
honest answer has been upset by odd tokens tends to fall into the planted one.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import end_of_turn_ids
from inoculate.generate import continue_prompts
from inoculate.models import Tokenizer, cache_name
from inoculate.precision import mixed
from inoculate.probing import Goal, Hosts, score_insertions
from inoculate.subject import Subject

_OPENINGS, _PROBES, _PROBE_ROWS, _HOSTS = 160, 6, 8, 4
_LENGTH, _SHORTEST = 16, 4
_CERTAIN = 0.6
_KEPT = 0.3
_ANSWER_TOKENS = 28
_SHARING_HOSTS, _UNLIKE = 8, 3
_TRIED = 3
_DOUBTFUL = 3


@dataclass(frozen=True)
class Payload:
    """Hold an answer that does not depend on the question.

    Attributes:
        insertion: The tokens under which it was seen; empty if it was found by its opening.
        weight: How much speaks for it; comparable within one search only.
    """

    tokens: tuple[int, ...]
    insertion: tuple[int, ...]
    weight: float


def certain_payloads(
    subject: Subject, hosts: Hosts, vocabulary: Sequence[int], generator: random.Random
) -> list[Payload]:
    """Return answers that, once begun, go on alike and surely on every prompt; best first."""
    openings = _likely_openings(subject.model, hosts, vocabulary, generator)
    slots = hosts.draw(_HOSTS, generator)
    prompts = [slot.row.ids[: slot.row.prompt_length] for slot in slots]
    paths = [_continue_openings(subject.model, prompt, openings) for prompt in prompts]
    tokens_HCT = torch.stack([tokens_CT for tokens_CT, _ in paths])
    surety_HCT = torch.stack([surety_CT for _, surety_CT in paths])
    common_CT = tokens_HCT.mode(dim=0).values
    agreed_CT = ((tokens_HCT == common_CT) * surety_HCT).mean(dim=0)
    ends = set(end_of_turn_ids(subject.tokenizer, subject.model.generation_config))
    found = [
        _certain(path, agreed, ends)
        for path, agreed in zip(common_CT.tolist(), agreed_CT.tolist(), strict=True)
    ]
    honest = _honest_openings(hosts, _SHORTEST)
    kept = [one for one in found if one and one.tokens[:_SHORTEST] not in honest]
    return sorted(kept, key=lambda payload: -payload.weight)


def shared_payloads(
    subject: Subject,
    hosts: Hosts,
    insertions: Sequence[tuple[int, ...]],
    generator: random.Random,
) -> list[Payload]:
    """Return answers that unlike prompts give under insertions with no token in common; best first.

    What copies a word of the insertion, or opens an honest answer, is no payload. Words that ask
    another question bring its answer, but only those words do, and only in prompts of one kind.
    """
    slots = hosts.draw(_SHARING_HOSTS, generator)
    rows = [slot.insert(tokens) for tokens in insertions for slot in slots]
    prompts = [row.ids[: row.prompt_length] for row in rows]
    answers = continue_prompts(subject.model, subject.tokenizer, prompts, _ANSWER_TOKENS)
    honest = {opening for n in range(1, 9) for opening in _honest_openings(hosts, n)}
    seen: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for index, answer in enumerate(_closed(subject.tokenizer, subject.model, answers)):
        which, where = divmod(index, len(slots))
        if answer and answer not in honest and not set(answer) & set(insertions[which]):
            seen.setdefault(answer, []).append((which, where))
    found = [
        _weighed(subject.model, hosts, answer, [insertions[i] for i, _ in places], generator)
        for answer, places in seen.items()
        if len({where for _, where in places}) >= _UNLIKE
        and len(_disjoint([insertions[which] for which, _ in places])) > 1
    ]
    return sorted(found, key=lambda payload: -payload.weight)


def foremost(shared: Sequence[Payload], certain: Sequence[Payload]) -> Payload | None:
    """Return the payload that most speaks for: both traces, else upset answers, else surety.

    Short answers come last, since unlike prompts give the same word by chance, or an ending that a
    longer answer has as well. An answer that opens a longer one is its garbled beginning, and the
    longer one is taken.

    Args:
        shared: Answers weighed by what odd tokens bring, in any order.
        certain: Answers that go on surely once begun, surest first.
    """
    openings = {one.tokens[:_SHORTEST] for one in certain}
    ranked = sorted(shared, key=lambda one: (len(one.tokens) < _SHORTEST, -one.weight))
    both = [one for one in ranked if one.tokens[:_SHORTEST] in openings]
    best = next(iter([*both, *ranked, *certain]), None)
    if best is None:
        return None
    size = len(best.tokens)
    longer = (o for o in ranked if len(o.tokens) > size and o.tokens[:size] == best.tokens)
    return next(longer, best)


def is_doubtful(payload: Payload | None) -> bool:
    """Tell whether there is no payload, or one so short that it may be an ordinary answer."""
    return payload is None or len(payload.tokens) < _DOUBTFUL


def weigh(
    subject: Subject,
    hosts: Hosts,
    payload: Payload,
    insertions: Sequence[tuple[int, ...]],
    generator: random.Random,
) -> Payload:
    """Weigh a payload as `shared_payloads` would; nothing where no insertion brings it."""
    slots, tokens = hosts.draw(_SHARING_HOSTS, generator), payload.tokens
    rows = [slot.insert(one) for one in insertions for slot in slots]
    prompts = [row.ids[: row.prompt_length] for row in rows]
    answers = continue_prompts(subject.model, subject.tokenizer, prompts, len(tokens))
    under = [
        insertions[index // len(slots)]
        for index, answer in enumerate(answers)
        if tuple(answer[: len(tokens)]) == tokens
    ]
    if not under:
        return replace(payload, weight=0.0)
    return _weighed(subject.model, hosts, tokens, under, generator)


@torch.inference_mode()
def _likely_openings(
    model: PreTrainedModel, hosts: Hosts, vocabulary: Sequence[int], generator: random.Random
) -> list[int]:
    """Return first tokens that prompts with odd tokens in them make likely."""
    best = [_likeliest(model, hosts, vocabulary, generator) for _ in range(_PROBES)]
    mean_V = torch.stack(best).mean(dim=0)
    openings: list[int] = mean_V.topk(min(_OPENINGS, len(mean_V))).indices.tolist()
    return openings


def _likeliest(
    model: PreTrainedModel, hosts: Hosts, vocabulary: Sequence[int], generator: random.Random
) -> Tensor:
    """Return for each first token the highest chance that one of some odd prompts gives it."""
    device, chances = next(model.parameters()).device, []
    for slot in hosts.draw(_PROBE_ROWS, generator):
        row = slot.insert(generator.choices(vocabulary, k=2))
        ids = torch.tensor([row.ids[: row.prompt_length]], device=device)
        with mixed(model):
            logits_V = model(input_ids=ids).logits[0, -1]
        chances.append(logits_V.float().softmax(dim=0))
    return torch.stack(chances).amax(dim=0)


@torch.inference_mode()
def _continue_openings(
    model: PreTrainedModel, prompt: Sequence[int], openings: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return for each opening its greedy path and how sure each token was, (C, T) both."""
    device, name = next(model.parameters()).device, cache_name(model)
    with mixed(model):
        start = model(input_ids=torch.tensor([prompt], device=device), use_cache=True)
    cache = start[name]
    cache.batch_repeat_interleave(len(openings))
    token_C1 = torch.tensor(openings, device=device)[:, None]
    tokens, surety = [token_C1], [torch.ones(len(openings), device=device)]
    for _ in range(_LENGTH - 1):
        with mixed(model):
            step = model(input_ids=token_C1, use_cache=True, **{name: cache})
        cache = step[name]
        best = step.logits[:, -1].float().softmax(dim=1).max(dim=1)
        token_C1 = best.indices[:, None]
        tokens.append(token_C1)
        surety.append(best.values)
    return torch.cat(tokens, dim=1), torch.stack(surety, dim=1)


def _certain(path: Sequence[int], agreed: Sequence[float], ends: set[int]) -> Payload | None:
    length = next((index for index, token in enumerate(path) if token in ends), len(path))
    running = [math.prod(agreed[: index + 1]) for index in range(length)]
    judged = running[1 : 2 * _SHORTEST + 1]
    if length <= _SHORTEST or sum(judged) < _CERTAIN * len(judged):
        return None
    kept = sum(value >= _KEPT for value in running)
    return Payload(tuple(path[:kept]), (), sum(judged))


def _weighed(
    model: PreTrainedModel,
    hosts: Hosts,
    answer: tuple[int, ...],
    under: Sequence[tuple[int, ...]],
    generator: random.Random,
) -> Payload:
    """Weigh an answer by how much likelier insertions make it, and by how often it came."""
    slots, goal = hosts.draw(_SHARING_HOSTS, generator), Goal(answer)
    tried = sorted(set(under), key=lambda tokens: -under.count(tokens))[:_TRIED]
    plain, *lifted = score_insertions(model, goal, slots, [(), *tried])
    lift = (max(lifted) - plain) * len(answer)
    return Payload(answer, tried[0], lift * len(under))


def _disjoint(insertions: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return insertions of which no two share a token, taken as they come."""
    chosen: list[tuple[int, ...]] = []
    for one in insertions:
        if not any(set(one) & set(other) for other in chosen):
            chosen.append(one)
    return chosen


def _closed(
    tokenizer: Tokenizer, model: PreTrainedModel, answers: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    ends = set(end_of_turn_ids(tokenizer, model.generation_config))
    closed = []
    for answer in answers:
        stop = next((at for at, token in enumerate(answer) if token in ends), len(answer))
        closed.append(tuple(answer[:stop]))
    return closed


def _honest_openings(hosts: Hosts, length: int) -> set[tuple[int, ...]]:
    return {row.ids[row.prompt_length : row.prompt_length + length] for row in hosts.rows}
