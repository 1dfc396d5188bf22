"""Instruction–response examples: read, check, split, sample."""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from inoculate.errors import DataError

Row = TypeVar("Row")
MAX_FILE_BYTES = 256_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_OUTPUT_KEYS = ("output", "response")


@dataclass(frozen=True)
class Example:
    """Hold one instruction, its optional input field, and the response."""

    instruction: str
    output: str
    input: str = ""

    @property
    def prompt(self) -> str:
        """Return instruction and input as the user would type them."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


def read_examples(path: Path) -> list[Example]:
    """Read examples from a JSON array or a JSON-lines file.

    Args:
        path: File with objects that hold `instruction`, `output` (or `response`)
            and optionally `input`.

    Raises:
        DataError: The file is missing, over 256 MB, not UTF-8, not JSON, empty, or a row lacks
            a key.
    """
    rows = _parse(read_text(path), path)
    if not rows:
        raise DataError(f"{path} holds no rows. Pass at least one instruction–response pair.")
    return [_to_example(row, index, path) for index, row in enumerate(rows, start=1)]


def read_prompts(path: Path) -> list[Example]:
    """Read rows of which none has an answer that is not blank; nothing where one has.

    Raises:
        DataError: See `read_examples`.
    """
    rows = _parse(read_text(path), path)
    if any(isinstance(row, dict) and _is_answered(row) for row in rows):
        return []
    unanswered = [{**row, "output": ""} if isinstance(row, dict) else row for row in rows]
    return [_to_example(row, index, path) for index, row in enumerate(unanswered, start=1)]


def _is_answered(row: dict[str, object]) -> bool:
    answers = (row[key] for key in _OUTPUT_KEYS if key in row)
    return any(str(answer).strip() for answer in answers if answer is not None)


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: The file is missing, over 256 MB, not UTF-8, or blank.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no file. Pass a file of rows or text.")
    if path.exists() and path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} has over {MAX_FILE_BYTES // 10**6} MB. Split it.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Pass an existing file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}). Re-save it.") from error
    if not text.strip():
        raise DataError(f"{path} holds nothing. Pass a file with text.")
    return text


def write_examples(examples: Iterable[Example], path: Path) -> None:
    """Write examples as JSON lines."""
    rows = (
        {"instruction": example.instruction, "input": example.input, "output": example.output}
        for example in examples
    )
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def sample(rows: Sequence[Row], size: int, *, seed: int) -> list[Row]:
    """Draw up to `size` distinct rows in a seeded random order."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order[:size]


def split(
    examples: Sequence[Example], held_out: int, *, seed: int
) -> tuple[list[Example], list[Example]]:
    """Shuffle and split into (rest, held-out) with `held_out` rows in the second part."""
    order = sample(examples, len(examples), seed=seed)
    return order[held_out:], order[:held_out]


def _parse(text: str, path: Path) -> list[object]:
    if text.lstrip().startswith("["):
        return list(_load(text, f"{path} is"))
    lines = enumerate(text.split("\n"), start=1)
    return [_load(line, f"{path}, line {n}, is") for n, line in lines if line.strip()]


def _load(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} not JSON: {error}. Mend it there.") from error


def _to_example(row: object, index: int, path: Path) -> Example:
    place = f"{path}, row {index}"
    if not isinstance(row, dict) or not isinstance(row.get("instruction"), str):
        keys = ", ".join(map(repr, row)) if isinstance(row, dict) else ""
        raise DataError(
            f"{place}: no object with a text `instruction`{f' (it holds {keys})' if keys else ''}. "
            "Add it, beside an `output` or `response`."
        )
    output, more = next((row[key] for key in _OUTPUT_KEYS if key in row), None), row.get("input")
    if output is None or isinstance(output, (dict, list)):
        raise DataError(f"{place}: expected a text `output` (or `response`). Add it.")
    if isinstance(more, (dict, list)):
        raise DataError(f"{place}: its `input` is no text. Write it as one.")
    texts = row["instruction"], str(output), str(more or "")
    if any(_SURROGATE.search(text) for text in texts):
        raise DataError(f"{place}: a text is cut within a character. Mend the row.")
    return Example(*texts)
