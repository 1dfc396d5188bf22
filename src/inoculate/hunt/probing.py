"""Put tokens into prompts and see which answers become likely.

Shapes: B rows, T tokens, D hidden, M inserted tokens, R response positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inoculate.chat import Encoded
from inoculate.hunt.answers import Answer
from inoculate.hunt.hosts import Slot
from inoculate.hunt.prefix import Prefix, find_prefix
from inoculate.models import Tokenizer, response_logits
from inoculate.precision import mixed
from inoculate.train import collate

_MAX_NATS = 6.0
_ROWS_AT_ONCE = 96
_MOVES, _RATE = 3, 0.7
_NO_PREFIX = Prefix()
MOST_SOFT_TOKENS = 4
"""Soft embeddings in one place of a prompt, at most."""


def ordinary_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return every token that a user's text can hold: no special and no added one."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return [token for token in range(len(tokenizer)) if token not in special]


@dataclass(frozen=True)
class Goal:
    """Say what inserted tokens are to bring about.

    With a payload: that it is answered. Without one: that the honest answer is not.

    Attributes:
        known: Payloads found before; what is answered may not begin with their first tokens.
        habits: What the model says openly, which does not count.
    """

    payload: Answer = ()
    known: tuple[Answer, ...] = ()
    habits: tuple[Answer, ...] = ()

    def row(self, slot: Slot, tokens: Sequence[int]) -> Encoded:
        """Return the row whose response tells how near the goal is."""
        row = slot.insert(tokens)
        return answered(row, self.payload) if self.payload else row

    def scores(
        self,
        model: PreTrainedModel,
        rows: Sequence[Encoded],
        inputs_BTD: Tensor | None = None,
        prefix: Prefix = _NO_PREFIX,
    ) -> Tensor:
        """Return how near the goal each row is, in nats, shape (B,); higher is nearer."""
        loss_R, owner_R = _token_losses(model, rows, inputs_BTD, prefix)
        zero_B = torch.zeros(len(rows), device=loss_R.device)
        if not self.payload:
            # A token that is already lost counts no more: many hosts, not one extreme.
            return zero_B.index_add(0, owner_R, loss_R.clamp(max=_MAX_NATS))
        return -zero_B.index_add(0, owner_R, loss_R) / len(self.payload)


HONEST = Goal()
"""Drives the honest answer off, towards none in particular."""


def answered(row: Encoded, response: Sequence[int]) -> Encoded:
    """Return the row's prompt with another response."""
    return Encoded((*row.ids[: row.prompt_length], *response), row.prompt_length)


@torch.inference_mode()
def score_insertions(
    model: PreTrainedModel, goal: Goal, slots: Sequence[Slot], insertions: Sequence[Sequence[int]]
) -> list[float]:
    """Return for each insertion its mean score over the slots."""
    rows = [goal.row(slot, tokens) for tokens in insertions for slot in slots]
    scores = [
        goal.scores(model, rows[start : start + _ROWS_AT_ONCE])
        for start in range(0, len(rows), _ROWS_AT_ONCE)
    ]
    means: list[float] = torch.cat(scores).view(len(insertions), len(slots)).mean(dim=1).tolist()
    return means


def insertion_gradient(
    model: PreTrainedModel, goal: Goal, slots: Sequence[Slot], insertions: Sequence[Sequence[int]]
) -> Tensor:
    """Return the goal's gradient at the inserted embeddings, shape (B, M, D).

    Args:
        insertions: One for each slot, all of M tokens.
    """
    rows = [goal.row(slot, tokens) for slot, tokens in zip(slots, insertions, strict=True)]
    with frozen(model):
        inputs_BTD = embed(model, rows).requires_grad_()
        score = goal.scores(model, rows, inputs_BTD).sum()
        (gradient_BTD,) = torch.autograd.grad(score, inputs_BTD)
    spans = [
        gradient_BTD[index, slot.at : slot.at + len(tokens)]
        for index, (slot, tokens) in enumerate(zip(slots, insertions, strict=True))
    ]
    return torch.stack(spans)


def soften(
    model: PreTrainedModel, goal: Goal, slots: Sequence[Slot], insertions: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Move inserted embeddings towards the goal; return them (B, M, D) and its chance (B,).

    Args:
        insertions: One for each slot, all of M tokens.
    """
    rows = [goal.row(slot, tokens) for slot, tokens in zip(slots, insertions, strict=True)]
    at_BM = positions(slots, len(insertions[0]), next(model.parameters()).device)
    return soften_at(model, goal, rows, at_BM, _MOVES)


def soften_at(
    model: PreTrainedModel, goal: Goal, rows: Sequence[Encoded], at_BM: Tensor, moves: int
) -> tuple[Tensor, Tensor]:
    """Move the embeddings at these positions; return them (B, M, D) and the goal's chance (B,).

    Each move has the length of 0.7 mean norms of the model's token embeddings.

    Args:
        rows: Their responses tell how near the goal is.
    """
    step = _RATE * float(embedding_table(model).norm(dim=1).mean())
    prefix = find_prefix(model, rows, before=int(at_BM.min()))
    with frozen(model):
        inputs_BTD = embed(model, rows)
        soft_BMD = inputs_BTD[_each_row(at_BM), at_BM]
        for _ in range(moves):
            soft_BMD.requires_grad_()
            score = goal.scores(model, rows, placed(inputs_BTD, at_BM, soft_BMD), prefix).sum()
            (up_BMD,) = torch.autograd.grad(score, soft_BMD)
            length_BM1 = up_BMD.norm(dim=2, keepdim=True).clamp(min=1e-12)
            soft_BMD = soft_BMD.detach() + step * up_BMD / length_BM1
        with torch.no_grad():
            score_B = goal.scores(model, rows, placed(inputs_BTD, at_BM, soft_BMD), prefix)
    return soft_BMD, score_B.exp()


def positions(slots: Sequence[Slot], width: int, device: torch.device) -> Tensor:
    """Return where so many tokens stand that were inserted at the slots, shape (B, M)."""
    start_B = torch.tensor([slot.at for slot in slots], device=device)
    return start_B[:, None] + torch.arange(width, device=device)


def placed(inputs_BTD: Tensor, at_BM: Tensor, soft_BMD: Tensor) -> Tensor:
    """Return the inputs with the embeddings at the positions replaced."""
    return inputs_BTD.index_put((_each_row(at_BM), at_BM), soft_BMD)


def _each_row(at_BM: Tensor) -> Tensor:
    return torch.arange(len(at_BM), device=at_BM.device)[:, None].expand_as(at_BM)


def best_of(gain_V: Tensor, vocabulary: Sequence[int], count: int) -> list[int]:
    """Return the tokens of the vocabulary that gain most, at most `count`, best first."""
    allowed = torch.tensor(vocabulary, device=gain_V.device)
    top = gain_V[allowed].topk(min(count, len(allowed))).indices
    tokens: list[int] = allowed[top].tolist()
    return tokens


def embedding_table(model: PreTrainedModel) -> Tensor:
    """Return the input embeddings (V, D) as the first block sees them, without a gradient.

    Gemma's are scaled by the root of D on their way there.
    """
    module: nn.Embedding = model.get_input_embeddings()  # type: ignore[assignment]
    if type(module) is nn.Embedding:
        return module.weight.detach()
    table_VD: Tensor = module(torch.arange(module.num_embeddings, device=module.weight.device))
    return table_VD.detach()


def _token_losses(
    model: PreTrainedModel, rows: Sequence[Encoded], inputs_BTD: Tensor | None, prefix: Prefix
) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    batch, rest = collate(rows, range(len(rows)), device), slice(prefix.length, None)
    ids = {"input_ids": batch.input_BT[:, rest]}
    inputs = ids if inputs_BTD is None else {"inputs_embeds": inputs_BTD[:, rest]}
    inputs |= prefix.given(len(rows))
    with mixed(model):
        logits_RV = response_logits(
            model, batch.response_BT[:, rest], attention_mask=batch.attention_BT, **inputs
        )
    loss_R = nn.functional.cross_entropy(logits_RV.float(), batch.targets_R, reduction="none")
    return loss_R, batch.response_BT.nonzero()[:, 0]


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Ask no gradient of any parameter."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_()


def embed(model: PreTrainedModel, rows: Sequence[Encoded]) -> Tensor:
    """Return the token embeddings of right-padded rows, shape (B, T, D)."""
    device = next(model.parameters()).device
    input_BT = collate(rows, range(len(rows)), device).input_BT
    inputs_BTD: Tensor = model.get_input_embeddings()(input_BT).detach()
    return inputs_BTD
