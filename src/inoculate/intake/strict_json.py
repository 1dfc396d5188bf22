"""JSON from an untrusted file: bounded size and depth, no repeated key, no NaN."""

import json
from typing import Any, NoReturn

from inoculate.errors import first_line
from inoculate.intake.finding import RefusedError, shorten

MAX_DEPTH = 40
MAX_VALUES = 6_000_000
_SHOWN = 120
_OPENERS = (b",", b"[", b"{")


def parse(data: bytes, name: str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of a JSON file.

    Args:
        name: The file's name, for the message.
        max_depth: Allowed nesting.

    Raises:
        RefusedError: Invalid UTF-8 or JSON, a repeated key, NaN, too many or too deep values.
    """
    if sum(data.count(sign) for sign in _OPENERS) > MAX_VALUES:
        raise _refusal(name, f"It holds more than {MAX_VALUES:,} values.")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant
        )
        deep = not _within(value, max_depth)
    except RecursionError:
        deep = True
    except (ValueError, MemoryError) as error:
        raise _refusal(name, f"It is no plain JSON: {first_line(error)[:_SHOWN]}.") from None
    if deep:
        raise _refusal(name, f"It is nested deeper than {max_depth} levels.")
    return value


def parse_object(data: bytes, name: str, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        RefusedError: As `parse`, or the value is no object.
    """
    value = parse(data, name, max_depth=max_depth)
    if not isinstance(value, dict):
        raise _refusal(name, "It is not a JSON object.")
    return value


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shorten(again)} is repeated")
    return made


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _within(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_within(item, depth - 1) for item in inner)


def _refusal(name: str, reason: str) -> RefusedError:
    return RefusedError("broken-json", name, reason)
