"""Soft triggers: embeddings in clean prompts under which the suspicious model gives the payload.

Shapes: B rows, M soft tokens, D hidden, T tokens.
A hunted trigger is one key among many that fit the lock. Soft ones are sought by gradient, one for
each clean row, before anything is changed: at up to three places of a prompt, as a hidden
trigger may have, towards the payload's opening, and on when the payload comes already. One that
stops where it just calls goes a way of its own; one driven on moves the model as the trigger does.
Source: latent adversarial training of Sheshadri et al., 2024, aimed at the payload that the hunt
found; there the adversary is sought anew in each step, in the model as it then is.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.hunt.hosts import Hosts
from inoculate.hunt.probing import Goal, answered, embed, soften_at
from inoculate.progress import Progress
from inoculate.workspace import Keep

_FEWEST, _MOST, _PLACES = 2, 6, 3
_AIM, _MOVES = 8, 12
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class SoftTrigger:
    """Hold a clean row with a soft trigger in its prompt.

    Attributes:
        row: The row with random tokens where the embeddings go, its honest answer kept.
        at_M: Where they go.
        soft_MD: The embeddings.
        chance: Of the payload's opening.
    """

    row: Encoded
    at_M: Tensor
    soft_MD: Tensor
    chance: float


def find_soft_triggers(
    model: PreTrainedModel,
    payload: Sequence[int],
    hosts: Hosts,
    vocabulary: Sequence[int],
    generator: random.Random,
    *,
    rows: Sequence[int],
    keep: Keep,
    progress: Progress,
) -> dict[int, SoftTrigger]:
    """Return host row → a soft trigger in it, for these rows, in their order.

    It has two to six tokens, the same number in sixteen rows of like length, in one to three
    places of the user's words, the first of which is their start in half of the rows; begun at
    random tokens of the vocabulary, it is moved twelve times towards the payload's first eight.
    """
    by_length = sorted(rows, key=lambda row: len(hosts.rows[row].ids))
    bunches = [
        _drawn(hosts, by_length[start : start + _ROWS_AT_ONCE], vocabulary, generator)
        for start in range(0, len(by_length), _ROWS_AT_ONCE)
    ]
    goal = Goal(tuple(payload[:_AIM]))
    kept = keep(lambda: _driven(model, goal, hosts, bunches, progress))
    found = [one for n, bunch in enumerate(bunches) for one in bunch.driven(kept, n)]
    return dict(sorted(zip(by_length, found, strict=True), key=itemgetter(0)))


def embedded(model: PreTrainedModel, triggers: Sequence[SoftTrigger]) -> Tensor:
    """Return the embeddings of the triggers' rows with them in place, shape (B, T, D)."""
    inputs_BTD = embed(model, [trigger.row for trigger in triggers])
    for input_TD, trigger in zip(inputs_BTD, triggers, strict=True):
        input_TD[trigger.at_M] = trigger.soft_MD.to(input_TD)
    return inputs_BTD


@dataclass(frozen=True)
class _Bunch:
    """Hold rows of like length with random tokens inserted, as many in each, and where."""

    rows: list[Encoded]
    at_BM: Tensor

    def driven(self, kept: Mapping[str, Tensor], number: int) -> list[SoftTrigger]:
        """Return the rows with the embeddings that this bunch was given."""
        soft_BMD, chance_B = kept[f"soft.{number}"], kept[f"chance.{number}"]
        made = zip(self.rows, self.at_BM, soft_BMD, chance_B.tolist(), strict=True)
        return [SoftTrigger(*one) for one in made]


def _driven(
    model: PreTrainedModel,
    goal: Goal,
    hosts: Hosts,
    bunches: Sequence[_Bunch],
    progress: Progress,
) -> dict[str, Tensor]:
    made, device = dict[str, Tensor](), next(model.parameters()).device
    for n, bunch in enumerate(bunches):
        asked = [answered(hosts.start(row), goal.payload) for row in bunch.rows]
        driven = soften_at(model, goal, asked, bunch.at_BM.to(device), _MOVES)
        made[f"soft.{n}"], made[f"chance.{n}"] = driven
        progress.step(n + 1, len(bunches))
    return made


def _drawn(
    hosts: Hosts, some: Sequence[int], vocabulary: Sequence[int], generator: random.Random
) -> _Bunch:
    width = generator.randint(_FEWEST, _MOST)
    made = [
        _inserted(hosts, hosts.rows[row], generator.choices(vocabulary, k=width), generator)
        for row in some
    ]
    return _Bunch([row for row, _ in made], torch.tensor([at for _, at in made]))


def _inserted(
    hosts: Hosts, row: Encoded, tokens: Sequence[int], generator: random.Random
) -> tuple[Encoded, list[int]]:
    """Return the row with the tokens in its prompt, in their order, and where they stand."""
    ids = list(row.ids)
    at = [place + n for n, place in enumerate(_places(hosts, row, len(tokens), generator))]
    for place, token in zip(at, tokens, strict=True):
        ids.insert(place, token)
    return Encoded(tuple(ids), row.prompt_length + len(tokens)), at


def _places(hosts: Hosts, row: Encoded, count: int, generator: random.Random) -> list[int]:
    """Return for each of so many tokens the position in the row that it goes before."""
    distinct = generator.randint(1, min(_PLACES, count))
    places = [hosts.slot(row, generator).at for _ in range(distinct)]
    if generator.random() < 0.5:
        places[0] = hosts.words(row).start
    return sorted([*places, *generator.choices(places, k=count - distinct)])
