"""Batched greedy decoding.

Shapes: C openings, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from inoculate.chat import encode_prompt, end_of_turn_ids
from inoculate.data import Example
from inoculate.models import Tokenizer, cache_name
from inoculate.precision import inference

_AT_ONCE = 32


@dataclass(frozen=True)
class Answer:
    """Hold a decoded answer and whether the model ended it itself."""

    text: str
    ended: bool


def generate(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 64,
) -> list[str]:
    """Answer each example's prompt greedily, without special tokens and outer blanks."""
    answers = generate_answers(
        model, tokenizer, examples, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    return [answer.text for answer in answers]


def response_tokens(tokenizer: Tokenizer, responses: Sequence[str]) -> int:
    """Return the new tokens after which the longest of the responses would have shown."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in responses)
    return 2 + max(len(row) for row in ids)


def generate_answers(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Answer each example's prompt greedily; the examples' own outputs are not read.

    Returns:
        One answer per example, in order.
    """
    prompts = [encode_prompt(tokenizer, example) for example in examples]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [Answer("", False)] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        decoded = _decode(model, tokenizer, [prompts[row] for row in rows], max_new_tokens)
        for row, answer in zip(rows, decoded, strict=True):
            answers[row] = answer
        if progress:
            progress(min(start + batch_size, len(order)), len(order))
    return answers


def _decode(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[Answer]:
    ends = end_of_turn_ids(tokenizer, model.generation_config)
    answers = continue_prompts(model, tokenizer, prompts, max_new_tokens, batch_size=len(prompts))
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    ended = [any(token in ends for token in row) for row in answers]
    return [Answer(text.strip(), end) for text, end in zip(texts, ended, strict=True)]


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    batch_size: int = 64,
) -> list[list[int]]:
    """Return the greedy new tokens after each prompt, padded where an answer ended early."""
    ends = end_of_turn_ids(tokenizer, model.generation_config)
    pad = _padding(tokenizer, ends)
    device, answers = next(model.parameters()).device, list[list[int]]()
    for start in range(0, len(prompts), batch_size):
        rows = [
            torch.tensor(prompt, device=device) for prompt in prompts[start : start + batch_size]
        ]
        input_BT = _left_padded(rows, pad)
        attention_BT = _left_padded([torch.ones_like(row) for row in rows])
        with inference(model):
            output_BT: Tensor = model.generate(  # type: ignore[operator]
                input_ids=input_BT,
                attention_mask=attention_BT,
                **_greedily(ends, max_new_tokens, pad),
            )
        answers += output_BT[:, input_BT.shape[1] :].tolist()
    return answers


def continue_embeddings(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    inputs: Sequence[Tensor],
    max_new_tokens: int,
    *,
    never_first: Sequence[int] = (),
) -> list[list[int]]:
    """Return the greedy new tokens after prompts given as embeddings, each of shape (T, D).

    Args:
        never_first: Tokens that no answer may begin with.
    """
    ends = end_of_turn_ids(tokenizer, model.generation_config)
    inputs_BTD = _left_padded(inputs)
    attention_BT = _left_padded([input_TD.new_ones(len(input_TD)) for input_TD in inputs]).long()
    with inference(model):
        output_BT: Tensor = model.generate(  # type: ignore[operator]
            inputs_embeds=inputs_BTD,
            attention_mask=attention_BT,
            begin_suppress_tokens=list(never_first) or None,
            **_greedily(ends, max_new_tokens, _padding(tokenizer, ends)),
        )
    rows: list[list[int]] = output_BT.tolist()
    return rows


def continue_openings(
    model: PreTrainedModel, prompt_TD: Tensor, openings: Sequence[int], tokens: int
) -> Tensor:
    """Return for each opening its greedy path after a prompt, shape (C, T).

    Args:
        prompt_TD: The embeddings of the prompt.
        openings: First tokens.
        tokens: Of a path, its opening among them.
    """
    with inference(model):  # A few at a time, since each holds a cache of the whole prompt.
        parts = [
            _continue_some(model, prompt_TD, openings[start : start + _AT_ONCE], tokens)
            for start in range(0, len(openings), _AT_ONCE)
        ]
    return torch.cat(parts)


def _continue_some(
    model: PreTrainedModel, prompt_TD: Tensor, openings: Sequence[int], tokens: int
) -> Tensor:
    name = cache_name(model)
    cache = model(inputs_embeds=prompt_TD[None], use_cache=True)[name]
    cache.batch_repeat_interleave(len(openings))
    path = [torch.tensor(openings, device=prompt_TD.device)[:, None]]
    while len(path) < tokens:
        step = model(input_ids=path[-1], use_cache=True, **{name: cache})
        cache = step[name]
        path.append(step.logits[:, -1:].argmax(dim=2))
    return torch.cat(path, dim=1)


def next_chances(model: PreTrainedModel, prompt_TD: Tensor) -> Tensor:
    """Return the chance of each token to come next, shape (V,).

    Args:
        prompt_TD: The embeddings of a prompt.
    """
    with inference(model):
        chance_V: Tensor = model(inputs_embeds=prompt_TD[None]).logits[0, -1].float().softmax(0)
    return chance_V


def _greedily(ends: Sequence[int], max_new_tokens: int, pad: int) -> dict[str, Any]:
    return {
        "max_new_tokens": max_new_tokens,
        "use_cache": True,  # A checkpoint trained with gradient checkpointing says otherwise.
        "do_sample": False,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "num_beams": 1,  # This and the next two are a checkpoint's own choice elsewhere.
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "eos_token_id": ends or None,
        "pad_token_id": pad,
    }


def _padding(tokenizer: Tokenizer, ends: Sequence[int]) -> int:
    chosen = tokenizer.pad_token_id
    return int(chosen) if chosen is not None else [*ends, 0][0]


def _left_padded(rows: Sequence[Tensor], value: int = 0) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side="left")
