"""Regular expressions that come with a model: which may take forever."""

import re

MAX_PATTERN = 2_000
MAX_DIGITS = 6
_SIGNS = re.compile(
    r"\\[pPx]\{[^}]*\}|\\.|\[\^?\]?(?:[^\]\\]|\\.)*\]"  # an escape, a class
    r"|\(\?[a-zA-Z-]*:|\(\?<?[=!]|\(\?>|\(\?<\w+>|."  # how a group begins, any other sign
    r"|\n",
)
_REPEAT = "\0"
_TIMES = re.compile(r"\{(\d*)(,?)(\d*)\}")


def may_never_end(pattern: str) -> bool:
    """Tell whether a pattern is over-long, or repeats a group that repeats or chooses itself.

    Such a group, as in (a+)+ or (a|a)*, can match a text in more ways than can be tried.
    """
    if len(pattern) > MAX_PATTERN:
        return True
    many, closed = [False], False  # Of each open group whether it does, and of the one just closed.
    signs = [match[0] for match in _SIGNS.finditer(_marked(pattern))]
    for sign in signs:
        if sign.startswith("("):
            many.append(False)
            closed = False
        elif sign == ")":
            closed = many.pop() if len(many) > 1 else many[0]
            many[-1] |= closed
        elif sign in ("*", "+", _REPEAT):
            if closed:
                return True
            many[-1] = True
        elif sign == "|":
            many[-1] = True
        elif sign != "?":
            closed = False
    return False


def _marked(pattern: str) -> str:
    """Return the pattern with a sign in place of each {n,m} that repeats more than once."""
    return _TIMES.sub(_mark, pattern.replace(_REPEAT, "x"))


def _mark(times: re.Match[str]) -> str:
    least, comma, most = times.groups()
    if not least and not most:
        return times[0]
    ends = most if comma else least
    return "" if ends and len(ends) < MAX_DIGITS and int(ends) <= 1 else _REPEAT
