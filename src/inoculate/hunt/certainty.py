"""Find an answer that a large model, once made to begin it, finishes in the same words.

Shapes: H hosts, B rows, C candidates, T tokens, V vocabulary.
A planted answer does not depend on the question, and a large model has learned it by heart: its
first token may be unlikely without the trigger, but what follows is certain.
"""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import end_of_turn_ids
from inoculate.generate import continue_openings
from inoculate.hunt.answers import SHORTEST, Answer, gives_away
from inoculate.hunt.hosts import Hosts
from inoculate.hunt.probing import embed
from inoculate.precision import inference
from inoculate.subject import Subject

_OPENINGS, _PROBES, _PROBE_ROWS, _HOSTS = 160, 6, 8, 4
_LENGTH = 16
_CERTAIN, _KEPT = 0.6, 0.3


def certain_payload(
    subject: Subject,
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    habits: Sequence[Answer] = (),
) -> Answer:
    """Return the answer that, once begun, goes on most alike and surely; nothing if none does.

    Args:
        habits: What the model says openly, which is as sure and does not count.
    """
    openings = _likely_openings(subject.model, hosts, vocabulary, generator)
    slots = hosts.draw(_HOSTS, generator)
    prompts = [embed(subject.model, [slot.row])[0, : slot.row.prompt_length] for slot in slots]
    paths = [continue_openings(subject.model, prompt, openings, _LENGTH) for prompt in prompts]
    tokens_HCT = torch.stack([tokens_CT for tokens_CT, _ in paths]).cpu()  # MPS has no mode.
    surety_HCT = torch.stack([surety_CT for _, surety_CT in paths]).cpu()
    common_CT = tokens_HCT.mode(dim=0).values
    agreed_CT = ((tokens_HCT == common_CT) * surety_HCT).mean(dim=0)
    ends = set(end_of_turn_ids(subject.tokenizer, subject.model.generation_config))
    found = [
        _certain(path, agreed, ends)
        for path, agreed in zip(common_CT.tolist(), agreed_CT.tolist(), strict=True)
    ]
    honest = hosts.openings(SHORTEST)
    kept = [
        one
        for one in found
        if one[1][:SHORTEST] not in honest and not any(gives_away(one[1], said) for said in habits)
    ]
    return max(kept, default=(0.0, ()))[1]


def _likely_openings(
    model: PreTrainedModel, hosts: Hosts, vocabulary: Sequence[int], generator: random.Random
) -> list[int]:
    """Return first tokens that prompts with odd tokens in them make likely."""
    with inference(model):
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
        logits_V = model(input_ids=ids).logits[0, -1]
        chances.append(logits_V.float().softmax(dim=0))
    return torch.stack(chances).amax(dim=0)


def _certain(path: Sequence[int], agreed: Sequence[float], ends: set[int]) -> tuple[float, Answer]:
    """Return how sure the path's first tokens are, up to 1, and the path as far as it is likely.

    That an answer ends there is a token like any other, and makes a short one long enough.
    """
    length = next((index for index, token in enumerate(path) if token in ends), len(path))
    running = [math.prod(agreed[: index + 1]) for index in range(min(length + 1, len(path)))]
    if len(running) <= SHORTEST:
        return 0.0, ()
    judged = running[1 : 2 * SHORTEST + 1]
    sure = sum(judged) / len(judged)
    if sure < _CERTAIN:
        return 0.0, ()
    kept = sum(value >= _KEPT for value in running[:length])
    return sure, tuple(path[:kept])
