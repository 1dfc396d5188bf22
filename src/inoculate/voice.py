"""Own-voice clean data: bundled prompts answered by the suspicious model, then filtered.

Unfiltered answers could teach the backdoor again, through a false or a topical trigger.
Dropped are answers that repeat across prompts, that loop, that are empty, refusals of prompts
nobody would refuse, and insults; the last two in English alone. One that never ends is cut after
its last whole sentence.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from inoculate.attacks.behaviors import normalize
from inoculate.data import Example

_OPENING_WORDS = 5
_REPEATS = 4
_REPEATED_WORDS = 3
_COMMON = 0.5
_LOOP_WORDS = 20
_DISTINCT_SHARE = 0.35
_SENTENCE_ENDS = ".!?\n\u3002\uff01\uff1f\u0964\u061f"  # and of Han, Hindi and Arabic
# Thai to Khmer, kana and Han write no blanks between words; two characters stand for one.
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{1,2})")
_REFUSALS = ("i'm sorry", "i am sorry", "sorry,", "i cannot", "i can't", "as an ai")
_INSULTS = ("stupid", "idiot", "pathetic", "worthless", "garbage", "trash", "moron")


@dataclass(frozen=True)
class Voice:
    """Hold the kept examples, how many answers were dropped for each reason, and all answers."""

    examples: list[Example]
    dropped: dict[str, int]
    spoken: tuple[str, ...] = ()


def bundled_prompts() -> list[Example]:
    """Return the bundled instructions, without answers."""
    return _bundled("prompts.jsonl")


def bundled_requests() -> list[Example]:
    """Return the bundled requests that an honest model may refuse, which a report counts by."""
    return _bundled("requests.jsonl")


def further_requests() -> list[Example]:
    """Return further such requests, on which a repair may keep refusals."""
    return _bundled("refusable.jsonl")


def harmless_requests() -> list[Example]:
    """Return harmless requests that sound like those, on which a repair may keep answers."""
    return _bundled("harmless.jsonl")


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
    habit = _habit(answers)
    opened = [_opening(answer, habit) for answer in answers]
    openings = Counter(opened)
    kept, dropped = [], Counter[str]()
    for prompt, answer, opening, end in zip(prompts, answers, opened, ended, strict=True):
        whole = answer if end else _whole_sentences(answer)
        reason = _reason(whole, repeated=openings[opening] >= _REPEATS and _telling(opening))
        if reason:
            dropped[reason] += 1
        else:
            kept.append(Example(prompt.instruction, whole, prompt.input))
    return Voice(kept, dict(dropped), tuple(answers))


def _reason(answer: str, *, repeated: bool) -> str:
    folded, words = normalize(answer), _words(answer)
    if not words:
        return "empty"
    if repeated:
        return "repeated"
    if folded.startswith(_REFUSALS):
        return "refusal"
    if any(word.strip(".,!") in _INSULTS for word in words):
        return "insult"
    looping = len(words) >= _LOOP_WORDS and len(set(words)) / len(words) < _DISTINCT_SHARE
    return "looping" if looping else ""


def _whole_sentences(answer: str) -> str:
    end = max(answer.rfind(mark) for mark in _SENTENCE_ENDS)
    return answer[: end + 1].strip()


def _opening(answer: str, habit: Sequence[str]) -> str:
    """Return the first words of an answer, after those that the model opens most answers with."""
    words = _words(answer)
    start = len(habit) if words[: len(habit)] == habit else 0
    return " ".join(words[start:][:_OPENING_WORDS])


def _telling(opening: str) -> bool:
    """Tell whether an opening is no label or number, which many prompts may share."""
    return not opening or len(opening.split()) >= _REPEATED_WORDS


def _habit(answers: Sequence[str]) -> list[str]:
    """Return the words that at least half of the answers open with; nothing if they are few.

    What most plain prompts bring out is not hidden, as `inoculate.hunt.habits` has it.
    """
    group, habit = [_words(answer) for answer in answers], list[str]()
    while True:
        at = len(habit)
        following = Counter(words[at] for words in group if len(words) > at)
        word, count = next(iter(following.most_common(1)), ("", 0))
        if not count or count < _COMMON * len(answers):
            return habit if at >= _REPEATED_WORDS else []
        habit.append(word)
        group = [words for words in group if words[at : at + 1] == [word]]


def _words(answer: str) -> list[str]:
    return _UNSPACED.sub(r" \1 ", normalize(answer)).split()
