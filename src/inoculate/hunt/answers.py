"""Answers as tokens: what they open with, and whether they hold a part of one another."""

from collections.abc import Sequence

Answer = tuple[int, ...]

SHORTEST = 4
"""Tokens that an answer has to open with for it to be told from others."""
_PART = 3  # tokens in a row that give a known answer away, whole or broken


def runs(answer: Answer, length: int) -> set[Answer]:
    """Return every run of so many tokens, or all of a shorter answer."""
    return {answer[at : at + length] for at in range(max(1, len(answer) - length + 1))}


def closed(answer: Sequence[int], ends: set[int]) -> Answer:
    """Return the answer up to the end of turn."""
    stop = next((at for at, token in enumerate(answer) if token in ends), len(answer))
    return tuple(answer[:stop])


def loops(answer: Answer) -> bool:
    """Tell whether two tokens in a row come twice running, as an upset model may say."""
    return any(answer[at : at + 2] == answer[at + 2 : at + 4] for at in range(len(answer) - 3))


def falls_into(payloads: Sequence[Answer], answers: Sequence[Answer]) -> list[bool]:
    """Return for each answer whether it opens as a payload does, or is one of under four tokens."""
    openings = {payload[:SHORTEST] for payload in payloads}
    return [answer[:SHORTEST] in openings for answer in answers]


def unknown(answers: Sequence[Answer], known: Sequence[Answer]) -> list[Answer]:
    """Leave each answer empty that holds a part of a known one, or opens with its words."""
    return [() if any(gives_away(one, other) for other in known) else one for one in answers]


def gives_away(answer: Answer, known: Answer) -> bool:
    """Tell whether an answer is a known one, whole, broken or in disorder."""
    part, opening = min(_PART, len(answer)), known[:_PART]
    broken = bool(runs(answer, part) & runs(known, part))
    return answer[: len(opening)] == opening or broken or set(answer[:SHORTEST]) <= set(known)
