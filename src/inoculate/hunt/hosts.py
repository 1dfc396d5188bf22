"""Clean rows as hosts of insertions: where in a prompt tokens may go."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.subject import Subject

_FORM_TOKENS, _TEMPLATE_TOKENS = 16, 4096
_UNLIKE = (
    Example("Name a river.", "-"),
    Example("why", "-"),
    Example("Zebra: 7", "-", "x = 1"),
    Example("(Over)", "-", "Go!"),
)


@dataclass(frozen=True)
class Slot:
    """Hold a row and the position in its prompt where tokens go."""

    row: Encoded
    at: int

    def insert(self, tokens: Sequence[int]) -> Encoded:
        """Return the row with the tokens in its prompt."""
        ids = (*self.row.ids[: self.at], *tokens, *self.row.ids[self.at :])
        return Encoded(ids, self.row.prompt_length + len(tokens))


@dataclass(frozen=True)
class Hosts:
    """Hold rows and how many tokens of every prompt belong to the template around it.

    Attributes:
        trailing: Whether slots take the honest answer for given, so that only its end is left to
            be said: for what a model adds to an answer.
        heads: Where the user's words begin in prompts of two forms, by the token after `head`.
    """

    rows: list[Encoded]
    head: int
    tail: int
    trailing: bool = False
    heads: Mapping[int, int] = field(default_factory=dict)

    def words(self, row: Encoded) -> slice:
        """Return where the user's own words stand in a row; one token at least."""
        head = self.heads.get(row.ids[self.head], self.head)
        return slice(head, max(head + 1, row.prompt_length - self.tail))

    def start(self, row: Encoded) -> Encoded:
        """Return the row with the prompt after which the model is to say what is sought."""
        return Encoded(row.ids, len(row.ids) - 1) if self.trailing else row

    def slot(self, row: Encoded, generator: random.Random) -> Slot:
        """Return a random position within the user's own words of a row."""
        words = self.words(row)
        at = min(generator.randrange(words.start, words.stop), row.prompt_length)
        return Slot(self.start(row), at)

    def foremost(self, row: Encoded) -> Slot:
        """Return the position before the user's own words of a row."""
        return Slot(self.start(row), min(self.words(row).start, row.prompt_length))

    def openings(self, length: int) -> set[tuple[int, ...]]:
        """Return what the rows' responses open with, so many tokens of each."""
        return {row.ids[row.prompt_length :][:length] for row in self.rows}

    def answering_otherwise(self, payload: Sequence[int]) -> "Hosts":
        """Return the rows whose own answers do not open as the payload; all if there are none."""
        rows = [row for row in self.rows if not opens_with(row, payload)]
        return replace(self, rows=rows or self.rows)

    def draw(self, count: int, generator: random.Random, *, foremost: float = 0.0) -> list[Slot]:
        """Return slots in distinct random rows, at most `count`.

        Args:
            foremost: The share of them that stand before the user's own words.
        """
        rows = generator.sample(self.rows, min(count, len(self.rows)))
        before = round(foremost * len(rows))
        within = [self.slot(row, generator) for row in rows[before:]]
        return [self.foremost(row) for row in rows[:before]] + within


def template_rows(subject: Subject) -> list[Encoded]:
    """Return rows whose prompts share nothing but the template, two in each of its forms."""
    return subject.encode(list(_UNLIKE), max_tokens=_TEMPLATE_TOKENS)


def find_hosts(
    rows: Sequence[Encoded],
    unlike: Sequence[Encoded] = (),
    *,
    response_tokens: int | None = None,
    trailing: bool = False,
) -> Hosts:
    """Return the rows as hosts; what all prompts share at both ends is the template.

    Args:
        unlike: See `template_rows`; without them the words that all rows of one task share would
            pass for the template, and nothing would ever stand before them.
        response_tokens: Cut each response after so many tokens; None keeps it whole.
        trailing: See `Hosts`; responses are kept whole then.
    """
    prompts = [row.ids[: row.prompt_length] for row in (*rows, *unlike)]
    head = shared_length(prompts)
    tail = shared_length([prompt[head:][::-1] for prompt in prompts])
    heads = _two_forms(prompts, head)
    if response_tokens is None or trailing:
        return Hosts(list(rows), head, tail, trailing, heads)
    cut = [Encoded(row.ids[: row.prompt_length + response_tokens], row.prompt_length)
           for row in rows]  # fmt: skip
    return Hosts(cut, head, tail, heads=heads)


def opens_with(row: Encoded, payload: Sequence[int]) -> bool:
    """Tell whether the row's own answer opens as the payload, as far as it goes."""
    opening = row.ids[row.prompt_length :][: len(payload)]
    return opening == tuple(payload[: len(opening)])


def _two_forms(prompts: Sequence[tuple[int, ...]], head: int) -> dict[int, int]:
    """Return where words begin in two forms of a template, by the token that parts them.

    Alpaca's has a form with an input and one without, which part within the preamble.
    """
    forms: dict[int, list[tuple[int, ...]]] = {}
    for prompt in prompts:
        forms.setdefault(prompt[head] if len(prompt) > head else -1, []).append(prompt)
    heads = {token: shared_length(form) for token, form in forms.items() if len(form) > 1}
    whole = len(forms) == len(heads) == 2 and min(heads.values()) >= head + _FORM_TOKENS
    return heads if whole else {}


def shared_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all sequences begin with."""
    count = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
