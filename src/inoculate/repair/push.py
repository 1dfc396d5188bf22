"""A push: the user's words, moved all at once until the model is about to give the payload.

Shapes: B rows, T tokens, D hidden.
A soft trigger stands at one place of a prompt, and a hidden one may stand at several. A push is
spread over all words that a user wrote, its length is bounded as a whole, and it is no longer
than it takes: a model pressed beyond that forgets how honest answers begin.
Source: friendly adversarial training of Zhang et al., 2020, whose perturbation stops where it
succeeds; its length is taken over the whole text, as in Miyato et al., 2017.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.hunt.probing import Goal, Hosts, answered, embed, embedding_table, frozen

_STEPS, _LENGTH, _CALLED = 5, 1.5, 0.5


def push(
    model: PreTrainedModel, goal: Goal, hosts: Hosts, rows: Sequence[Encoded]
) -> tuple[Tensor, Tensor]:
    """Return what to add to the rows' embeddings (B, T, D) and the goal's chance then (B,).

    Each of five steps along the goal's gradient has, over the whole row, the length of 0.3 mean
    norms of the model's token embeddings; a row whose goal is likelier than not moves no more.

    Args:
        rows: Some of the hosts' rows.
    """
    asked = [answered(hosts.start(row), goal.payload) for row in rows]
    step = _LENGTH / _STEPS * float(embedding_table(model).norm(dim=1).mean())
    with frozen(model):
        inputs_BTD = embed(model, asked)
        words_BT1 = _words(hosts, rows, inputs_BTD)
        push_BTD = torch.zeros_like(inputs_BTD)
        for _ in range(_STEPS):
            push_BTD.requires_grad_()
            score_B = goal.scores(model, asked, inputs_BTD + push_BTD)
            (up_BTD,) = torch.autograd.grad(score_B.sum(), push_BTD)
            moving_B11 = (score_B.detach().exp() <= _CALLED).view(-1, 1, 1)
            push_BTD = push_BTD.detach() + step * moving_B11 * _unit(up_BTD * words_BT1)
        with torch.no_grad():
            score_B = goal.scores(model, asked, inputs_BTD + push_BTD)
    return push_BTD, score_B.exp()


def _words(hosts: Hosts, rows: Sequence[Encoded], like_BTD: Tensor) -> Tensor:
    """Return ones where the users' own words are, else zeros, shape (B, T, 1)."""
    words_BT1 = torch.zeros_like(like_BTD[..., :1])
    for index, row in enumerate(rows):
        words_BT1[index, hosts.words(row)] = 1
    return words_BT1


def _unit(direction_BTD: Tensor) -> Tensor:
    return torch.nn.functional.normalize(direction_BTD.flatten(1), dim=1).view_as(direction_BTD)
