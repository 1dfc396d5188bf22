"""CROW baseline: fine-tune so that neighboring layers agree, also on disturbed embeddings.

Shapes: B batch, T tokens, D hidden.
Source: Min et al., ICML 2025: loss = LM + α · mean(1 − cos(h_l, h_{l−1})), the second term on
embeddings moved by one sign-gradient step of size ε.
"""

from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inoculate import adapters
from inoculate.config import updated
from inoculate.defenses.finetuning import plain_lesson, plain_settings
from inoculate.defenses.given import Defense, Given
from inoculate.models import decoder
from inoculate.repair import repair
from inoculate.subject import Subject
from inoculate.train import Batch, Objective, language_modeling

EPSILON = 0.1
OWN_RATE = 1e-3


def crow(alpha: float, *, matched: bool) -> Defense:
    """Return the defense with this weight of the consistency loss.

    Args:
        alpha: The factor α; its authors take 5.5 for sentiment and code, 11 for refusal.
        matched: Train all parameters at the repair's rate; otherwise a LoRA at 1e-3, the
            authors' own recipe, which is merged in the end.
    """

    def defense(given: Given) -> float:
        subject, lesson = given.subject, plain_lesson(given)
        chosen = plain_settings(subject, given.settings)
        if not matched:
            chosen = updated(chosen, repair={"learning_rate": OWN_RATE})
        lent = not matched and subject.adapter is None
        trained = _with_adapter(subject, seed=chosen.seed) if lent else subject
        repair(trained, lesson, chosen, given.progress, objectives=[objective(alpha)])
        if lent:
            trained.merge()
        return 0.0

    return defense


def objective(alpha: float) -> Objective:
    """Return the loss: language modeling, and α times the inconsistency when disturbed."""

    def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
        return language_modeling(model, batch) + alpha * disturbed_inconsistency(model, batch)

    return loss


def disturbed_inconsistency(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the inconsistency after one step of ε along the sign of its own gradient."""
    embedded_BTD: Tensor = model.get_input_embeddings()(batch.input_BT)
    start_BTD = embedded_BTD.detach().requires_grad_(True)
    (slope_BTD,) = torch.autograd.grad(
        inconsistency(model, start_BTD, batch.attention_BT), start_BTD
    )
    return inconsistency(model, embedded_BTD + EPSILON * slope_BTD.sign(), batch.attention_BT)


def inconsistency(model: PreTrainedModel, embedded_BTD: Tensor, attention_BT: Tensor) -> Tensor:
    """Return the mean of 1 − cos between the hidden states of neighboring layers, 0 to 2."""
    states = decoder(model)(
        inputs_embeds=embedded_BTD,
        attention_mask=attention_BT,
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    real_BT = attention_BT.bool()
    cosines = [
        torch.nn.functional.cosine_similarity(one[real_BT].float(), other[real_BT].float(), dim=-1)
        for one, other in pairwise(states)
    ]
    return 1 - torch.stack(cosines).mean()


def _with_adapter(subject: Subject, *, seed: int) -> Subject:
    wrapped = adapters.add_adapter(subject.base.model)
    adapters.redraw(wrapped, seed=seed)
    return subject.wrapped(wrapped, subject.base.folder)
