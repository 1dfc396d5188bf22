"""tokenizer.json: its ids against the embedding rows, and what it does to text."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from inoculate.intake.files import Folder
from inoculate.intake.finding import Finding, RefusedError, shorten
from inoculate.intake.pipeline import TOKENIZER, part_findings
from inoculate.intake.strict_json import parse_object

MAX_TOKENIZER_BYTES = 64_000_000
MAX_TOKEN_CHARACTERS = 1_024
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_MARKED = re.compile(r"[<\[({|#⟨\uff5c].*[>\])}|#⟩\uff5c]|</?\w+/?>", re.DOTALL)
_SPACE = re.compile(r"[\s▁Ġ]*")
_SHOWN = 5


@dataclass(frozen=True)
class Vocabulary:
    """Hold every token's id; added tokens come on top, and spare ones have no embedding row."""

    ids: Mapping[str, int]
    added: Mapping[str, int]
    spare: Collection[str] = ()

    def find(self, token: str) -> int | None:
        """Return a token's id, or None."""
        return self.added.get(token, self.ids.get(token))

    def token(self, number: int) -> set[str]:
        """Return the tokens that have an id."""
        found = {token for token, own in self.added.items() if own == number}
        return found or {token for token, own in self.ids.items() if own == number}

    def highest(self) -> int:
        """Return the largest id."""
        return max([*self.ids.values(), *self.added.values()], default=-1)


def read_tokenizer(
    folder: Folder, rows: int, notes: list[Finding], *, spare: Collection[str] = ()
) -> tuple[bytes, Vocabulary]:
    """Return the bytes of tokenizer.json and its vocabulary.

    Args:
        rows: Rows of the embedding.
        notes: Receives warnings about normalizers and added tokens, in place.
        spare: Added special tokens that may have ids past the rows.

    Raises:
        RefusedError: It is missing, too large or broken, or an id is past the rows.
    """
    data = folder.read(TOKENIZER, MAX_TOKENIZER_BYTES)
    given = parse_object(data, TOKENIZER)
    model = given.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") not in _MODELS:
        raise _broken("Its model is of no known type.")
    added = given.get("added_tokens", [])
    ids = _added_ids(added)
    past = [entry["content"] for entry in added if _is_spare(entry, rows, spare)]
    vocabulary = Vocabulary(_model_ids(model), ids, past)
    _check_ids(vocabulary, rows)
    if model.get("dropout"):
        raise _broken("Its model drops merges at random (dropout).")
    special = {entry["id"] for entry in added if entry.get("special") is True}
    notes.extend(part_findings(given, rows, special))
    notes.extend(_added_findings(vocabulary))
    return data, vocabulary


def _model_ids(model: Mapping[str, Any]) -> dict[str, int]:
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        if not all(isinstance(pair, list) and pair and isinstance(pair[0], str) for pair in vocab):
            raise _broken("Its vocabulary holds an entry that is no token with a score.")
        return {pair[0]: index for index, pair in enumerate(vocab)}
    if not isinstance(vocab, dict) or not all(type(value) is int for value in vocab.values()):
        raise _broken("Its vocabulary does not map tokens to whole numbers.")
    _check_merges(model.get("merges", []), vocab)
    return vocab


def _check_merges(merges: object, vocab: Mapping[str, int]) -> None:
    if not isinstance(merges, list):
        raise _broken("Its merges are no list.")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        whole = isinstance(pair, list) and len(pair) == 2
        if not whole or not all(isinstance(part, str) and part in vocab for part in pair):
            raise _broken(f"It merges {shorten(merge)}, which is no pair of its tokens.")


def _added_ids(added: object) -> dict[str, int]:
    if not isinstance(added, list):
        raise _broken("Its added_tokens are no list.")
    ids: dict[str, int] = {}
    for entry in added:
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not content or type(entry.get("id")) is not int:
            raise _broken(f"Its added token {shorten(entry)} has no text or no whole id.")
        if content in ids:
            raise _broken(f"Its added token {shorten(content)} is repeated.")
        ids[content] = entry["id"]
    return ids


def _is_spare(entry: Mapping[str, Any], rows: int, spare: Collection[str]) -> bool:
    """Tell whether a special token is of those that the family keeps just past the rows."""
    just_past = rows <= entry["id"] < rows + len(spare)
    return just_past and entry["content"] in spare and entry.get("special") is True


def _check_ids(vocabulary: Vocabulary, rows: int) -> None:
    for tokens, spare in ((vocabulary.ids, ()), (vocabulary.added, vocabulary.spare)):
        for token, number in tokens.items():
            if not 0 <= number < rows and token not in spare:
                reason = f"Token {shorten(token)} has id {number}, the embedding has {rows} rows."
                raise RefusedError("token-ids", TOKENIZER, reason)
            if len(token) > MAX_TOKEN_CHARACTERS:
                raise _broken(f"Its token {shorten(token, 20)} has {len(token)} characters.")
        if len(set(tokens.values())) < len(tokens):
            raise _broken("Two of its tokens have the same id.")


def _added_findings(vocabulary: Vocabulary) -> Iterator[Finding]:
    for token in vocabulary.spare:
        reason = f"Token {shorten(token)} has id {vocabulary.added[token]} and no embedding row."
        yield Finding("spare-token", TOKENIZER, reason)
    odd = [token for token in vocabulary.added if _is_odd(token)]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        shown = ", ".join(shorten(token, 30) for token in odd[:_SHOWN])
        reason = f"Its added tokens {shown}{more} are ordinary or hidden text."
        yield Finding("added-token", TOKENIZER, reason)
    other = [
        token
        for token, number in vocabulary.added.items()
        if vocabulary.ids.get(token, number) != number
    ]
    if other:
        reason = f"Its added token {shorten(other[0])} has another id in the vocabulary."
        yield Finding("added-token", TOKENIZER, reason)


def _is_odd(token: str) -> bool:
    if _SPACE.fullmatch(token):
        return False
    hidden = any(unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cn") for sign in token)
    return hidden or not _MARKED.fullmatch(token.strip())


def _broken(reason: str) -> RefusedError:
    return RefusedError("tokenizer", TOKENIZER, reason)
