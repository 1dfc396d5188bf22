"""Plain text in an odd format, on which a pressing repair keeps the model's predictions.

A model that learns that odd tokens in a prompt change nothing also unlearns to take up an odd
format that a text keeps repeating. So it is held to what it predicted, before anything was changed,
on clean answers as plain text, outside of the chat template, strewn with the same few odd tokens.

Source: ours (docs/log.md, "Text in an odd format, held").
"""

import random
from collections.abc import Sequence

from inoculate.chat import Encoded, text_opening
from inoculate.hunt.probing import ordinary_tokens
from inoculate.repair.held import HeldRows, hold
from inoculate.subject import Subject

_TEXTS = 8  # shown in each step
_MOST_ODD_TOKENS, _STREWN = 3, 0.2


def hold_text(subject: Subject, rows: Sequence[Encoded], *, seed: int) -> HeldRows | None:
    """Record what the model predicts in the rows' answers as strewn text; it is not changed yet.

    Returns:
        None where no answer has two tokens.
    """
    generator = random.Random(seed)
    vocabulary = ordinary_tokens(subject.tokenizer)
    opening, ordinary = text_opening(subject.tokenizer), set(vocabulary)
    texts = [_said(row, ordinary) for row in rows]
    strewn = [strew(text, vocabulary, generator) for text in texts if len(text) > 1]
    if not strewn:
        return None
    held = [Encoded((*opening, *text), len(opening) + 1) for text in strewn]
    return hold(subject, held, count=_TEXTS, generator=generator)


def strew(text: Sequence[int], vocabulary: Sequence[int], generator: random.Random) -> list[int]:
    """Return the text with the same one to three random tokens before one token in five."""
    odd = generator.choices(vocabulary, k=generator.randint(1, _MOST_ODD_TOKENS))
    strewn = list[int]()
    for token in text:
        strewn += [*odd, token] if generator.random() < _STREWN else [token]
    return strewn


def _said(row: Encoded, ordinary: set[int]) -> list[int]:
    return [token for token in row.ids[row.prompt_length :] if token in ordinary]
