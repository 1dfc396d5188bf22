"""The blank with which a model begins its answers, where its template writes none.

A template that puts answers right behind a mark (`[/INST]Sure`) has them split otherwise than a
model gives them that was trained behind a blank, or on answers split alone (`▁Sure`); another
model opens with a line break. In rows split by the template alone no answer would begin as the
model's do.
"""

import sys
from collections import Counter
from dataclasses import replace

from transformers import PreTrainedModel

from inoculate.chat import encode, encode_prompt
from inoculate.data import Example
from inoculate.generate import continue_prompts
from inoculate.models import Tokenizer

_ASKED = (
    Example("Name a color.", ""),
    Example("What is 2 + 3?", ""),
    Example("Is water wet?", ""),
    Example("Write a sentence about the sea.", ""),
    Example("Give me the names of three fruits.", ""),
    Example("Which word is the opposite of hot?", ""),
    Example("Who wrote Hamlet?", ""),
    Example("Say hello.", ""),
)
_TOKENS = 8


def find_lead(model: PreTrainedModel, tokenizer: Tokenizer) -> str:
    """Return the blank that most of eight greedy answers begin with; empty where it is no matter.

    It is no matter where the template's own rows begin with the tokens that the model gives.

    Raises:
        CheckpointError: See `inoculate.chat.encode`.
    """
    prompts = [encode_prompt(tokenizer, example) for example in _ASKED]
    answers = continue_prompts(model, tokenizer, prompts, _TOKENS)
    leads = Counter(
        _lead(tokenizer, *asked) for asked in zip(_ASKED, prompts, answers, strict=True)
    )
    lead, count = leads.most_common(1)[0]
    return lead if count > len(_ASKED) / 2 else ""


def _lead(tokenizer: Tokenizer, asked: Example, prompt: list[int], answer: list[int]) -> str:
    whole = [*prompt, *answer]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, whole)]
    said = str(texts[1]).removeprefix(str(texts[0]))
    if not said.strip():
        return ""
    lead = said[: len(said) - len(said.lstrip())]
    for blank in ("", lead):
        row = encode(
            tokenizer, replace(asked, output=said.strip()), max_tokens=sys.maxsize, lead=blank
        )
        given = row.ids[len(prompt) : row.prompt_length + 1]
        if given == tuple(answer[: len(given)]):
            return blank
    return ""
