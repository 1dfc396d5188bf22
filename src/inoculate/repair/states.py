"""Hidden states that the suspicious model has on clean rows, kept to be held to in repair.

Shapes: B rows, T tokens, L kept layers, D hidden, S tokens that a row and its clean one end in.
A word that means nothing changes nothing of what a model computes on the words after it. An
antibody's answer says so in a few tokens; hidden states say so at every token and depth, and so
reach questions that the clean rows do not ask.
Source: activation consistency training of Irpan et al., 2025, there against jailbreaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.models import hidden_states
from inoculate.precision import mixed
from inoculate.train import Batch, collate

_LAYERS = 6


@dataclass(frozen=True)
class StateTargets:
    """Hold the clean rows and, for each, the kept layers' states (L, T, D) in 16 bits."""

    rows: Sequence[Encoded]
    states: list[Tensor]

    def distance(self, states: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean squared distance from the kept states, as a share of their square.

        It is taken over the tokens that a row and its clean one both end in.

        Args:
            states: What `hidden_states` returns for the batch.
        """
        kept = [states[layer] for layer in _kept(len(states))]
        shares, tokens = [], 0
        for at, row in enumerate(batch.rows):
            ids = batch.input_BT[at][batch.attention_BT[at].bool()].tolist()
            clean = self.rows[row % len(self.rows)]
            shared = _common_end(ids, clean.ids)
            now_LSD = torch.stack([state[at, len(ids) - shared : len(ids)] for state in kept])
            then_LTD = self.states[row % len(self.rows)].to(now_LSD)
            then_LSD = then_LTD[:, len(clean.ids) - shared :]
            square_LS = then_LSD.square().sum(dim=2)
            share_LS = (now_LSD - then_LSD).square().sum(dim=2) / square_LS
            shares.append(share_LS.mean(dim=0).sum())
            tokens += shared
        return torch.stack(shares).sum() / max(1, tokens)


@torch.inference_mode()
def state_targets(model: PreTrainedModel, rows: Sequence[Encoded]) -> StateTargets:
    """Record the model's own hidden states on clean rows, before it is changed."""
    device, kept = next(model.parameters()).device, []
    for index in range(len(rows)):
        batch = collate(rows, [index], device)
        with mixed(model):
            states = hidden_states(
                model, input_ids=batch.input_BT, attention_mask=batch.attention_BT
            )
        layers = torch.stack([states[layer][0] for layer in _kept(len(states))])
        kept.append(layers.to("cpu", torch.bfloat16))
    return StateTargets(rows, kept)


def _kept(count: int) -> list[int]:
    """Return the indices of up to six of so many states, evenly spaced, the last among them."""
    depth = count - 1  # The first state is the embedding.
    kept = min(_LAYERS, depth)
    return [round(index * depth / kept) for index in range(1, kept + 1)]


def _common_end(ids: Sequence[int], others: Sequence[int]) -> int:
    count = 0
    for one, other in zip(reversed(ids), reversed(others), strict=False):
        if one != other:
            break
        count += 1
    return count
