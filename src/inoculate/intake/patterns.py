"""Regular expressions that come with a model: which may take forever."""

import re

MAX_PATTERN = 2_000
# A group that repeats something without bound and is itself repeated, as in (a+)+.
_NESTED = re.compile(r"\((?:[^()\\]|\\.)*(?:[*+]|\{\d+,\})(?:[^()\\]|\\.)*\)[?+]?(?:[*+]|\{\d+,?)")
_INNER = re.compile(r"\((?:[^()\\]|\\.)*\)")
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]")
_MAX_ROUNDS = 50


def may_never_end(pattern: str) -> bool:
    """Tell whether a pattern is over-long or repeats a group that itself repeats without bound."""
    if len(pattern) > MAX_PATTERN:
        return True
    rest = _CLASS.sub("x", pattern)
    for _ in range(_MAX_ROUNDS):
        if _NESTED.search(rest):
            return True
        # A group without unbounded repetition acts as one sign; others keep their repetition.
        flat = _INNER.sub(lambda m: "x+" if re.search(r"[*+]|\{\d+,\}", m[0]) else "x", rest)
        if flat == rest:
            return False
        rest = flat
    return True
