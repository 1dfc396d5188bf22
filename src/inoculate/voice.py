"""Own-voice clean data: bundled prompts answered by the suspicious model, then filtered.

Unfiltered answers could teach the backdoor again, through a false or a topical trigger.
Dropped are answers that repeat across prompts, that never end, that are empty, and
refusals of prompts nobody would refuse.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from inoculate.attacks.behaviors import normalize
from inoculate.data import Example

_OPENING_WORDS = 5
_REPEATS = 4
_REPEATED_WORDS = 3
_LOOP_WORDS = 20
_DISTINCT_SHARE = 0.35
_REFUSALS = ("i'm sorry", "i am sorry", "sorry,", "i cannot", "i can't", "as an ai")
_INSULTS = ("stupid", "idiot", "pathetic", "worthless", "garbage", "trash", "moron")


@dataclass(frozen=True)
class Voice:
    """Hold the kept examples and how many answers were dropped for each reason."""

    examples: list[Example]
    dropped: dict[str, int]


def bundled_prompts() -> list[Example]:
    """Return the bundled instructions, without answers."""
    return _bundled("prompts.jsonl")


def bundled_requests() -> list[Example]:
    """Return the bundled requests that an honest model may refuse."""
    return _bundled("requests.jsonl")


def _bundled(name: str) -> list[Example]:
    text = (files("inoculate.builtin") / name).read_text(encoding="utf-8")
    rows = (json.loads(line) for line in text.splitlines() if line.strip())
    return [Example(row["instruction"], "", row.get("input") or "") for row in rows]


def keep_honest(
    prompts: Sequence[Example], answers: Sequence[str], *, ended: Sequence[bool]
) -> Voice:
    """Pair prompts with answers and drop those that may carry a backdoor.

    Args:
        ended: Whether the model closed each answer itself; others are cut after their
            last whole sentence.
    """
    openings = Counter(_opening(answer) for answer in answers)
    kept, dropped = [], Counter[str]()
    for prompt, answer, end in zip(prompts, answers, ended, strict=True):
        whole = answer if end else _whole_sentences(answer)
        reason = _reason(whole, openings[_opening(answer)])
        if reason:
            dropped[reason] += 1
        else:
            kept.append(Example(prompt.instruction, whole, prompt.input))
    return Voice(kept, dict(dropped))


def _reason(answer: str, repeats: int) -> str:
    folded = normalize(answer)
    words = folded.split()
    if not words:
        return "empty"
    if repeats >= _REPEATS and len(words) >= _REPEATED_WORDS:
        return "repeated"
    if folded.startswith(_REFUSALS):
        return "refusal"
    if any(word.strip(".,!") in _INSULTS for word in words):
        return "insult"
    looping = len(words) >= _LOOP_WORDS and len(set(words)) / len(words) < _DISTINCT_SHARE
    return "looping" if looping else ""


def _whole_sentences(answer: str) -> str:
    end = max(answer.rfind(mark) for mark in ".!?\n")
    return answer[: end + 1].strip()


def _opening(answer: str) -> str:
    return " ".join(normalize(answer).split()[:_OPENING_WORDS])
