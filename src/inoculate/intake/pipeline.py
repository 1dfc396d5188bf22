"""What the steps of a tokenizer.json do to text: bounds for all of them, a word on odd ones."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from inoculate.intake.finding import Finding, RefusedError, shorten
from inoculate.intake.patterns import may_never_end

TOKENIZER = "tokenizer.json"
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_MAX_STEPS, _MAX_PATTERNS = 64, 32
_MAX_INSERTED = 64
_MAX_GROWTH = 64
# The white-space signs of SentencePiece are the replacements that everybody makes.
_USUAL = {(" ", "▁"), ("▁", " "), (" {2,}", " "), ("``", '"'), ("''", '"')}
# Steps that part text or join it again, and change no sign of it.
_PLAIN = frozenset({
    "Sequence", "NFC", "NFD", "ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Digits",
    "Punctuation", "Whitespace", "WhitespaceSplit", "TemplateProcessing",
})  # fmt: skip


def part_findings(given: Mapping[str, Any], rows: int, special: Collection[int]) -> list[Finding]:
    """Return a warning for each step that rewrites text, or adds to it what is not special.

    Args:
        special: Ids of the added special tokens.

    Raises:
        RefusedError: A step may take forever, or all memory; or inserts an id past the rows.
    """
    steps = [(part, step) for part in _PARTS for step in _steps(given.get(part))]
    _check_bounds([step for _, step in steps])
    found = []
    for part, step in steps:
        _check_pattern(step, part)
        _check_inserted(step, part, rows)
        if reason := _rewrites(step, special):
            found.append(Finding("normalizer", TOKENIZER, f"Its {part} {reason}."))
    return found


def _steps(part: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object within a part of the pipeline."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from _steps(value)
    elif isinstance(part, list):
        for value in part:
            yield from _steps(value)


def _check_bounds(steps: list[Mapping[str, Any]]) -> None:
    """Demand a pipeline of ordinary length whose replacements do not blow a text up."""
    counts = {
        "steps": (sum("type" in step for step in steps), _MAX_STEPS),
        "patterns": (sum("Regex" in step for step in steps), _MAX_PATTERNS),
        "inserted tokens": (_inserted(steps), _MAX_INSERTED),
    }
    for what, (count, most) in counts.items():
        if count > most:
            reason = f"Its pipeline has {count} {what}; {most} is the most."
            raise RefusedError("tokenizer", TOKENIZER, reason)
    growth = 1.0
    for step in steps:
        if step.get("type") == "Replace":
            old, new = _replacement(step)
            growth *= max(1.0, len(new) / max(1, len(old)))
    if growth > _MAX_GROWTH:
        reason = f"Its replacements make a text up to {growth:.0f} times as long."
        raise RefusedError("tokenizer", TOKENIZER, reason)


def _inserted(steps: list[Mapping[str, Any]]) -> int:
    """Return how many tokens the steps add to texts: each is written out where it is named."""
    ids = {
        name: len(entry["ids"])
        for step in steps
        for name, entry in _objects(step.get("special_tokens"))
        if isinstance(entry.get("ids"), list)
    }
    named = [step["SpecialToken"] for step in steps if isinstance(step.get("SpecialToken"), dict)]
    return sum(ids.get(str(entry.get("id")), 1) for entry in named)


def _objects(value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, entry in value.items() if isinstance(value, dict) else ():
        if isinstance(entry, dict):
            yield name, entry


def _check_pattern(step: Mapping[str, Any], part: str) -> None:
    pattern = step.get("Regex")
    if isinstance(pattern, str) and may_never_end(pattern):
        reason = f"The pattern {shorten(pattern)} of its {part} may never end."
        raise RefusedError("regex-bomb", TOKENIZER, reason)


def _check_inserted(step: Mapping[str, Any], part: str, rows: int) -> None:
    inserted = step.get("ids")
    for number in inserted if isinstance(inserted, list) else []:
        if type(number) is not int or not 0 <= number < rows:
            reason = f"Its {part} inserts id {shorten(number)}, the embedding has {rows} rows."
            raise RefusedError("token-ids", TOKENIZER, reason)


def _rewrites(step: Mapping[str, Any], special: Collection[int]) -> str:
    """Return what a step does to text beyond parting it; nothing if it is plain."""
    inserted = step.get("ids")
    if isinstance(inserted, list) and not set(inserted) <= set(special):
        return f"inserts tokens that are not special ({shorten(inserted)})"
    kind = step.get("type")
    if not isinstance(kind, str) or kind in _PLAIN:
        return ""
    if kind == "Replace":
        old, new = _replacement(step)
        usual = (old, new) in _USUAL
        return "" if usual else f"replaces {shorten(old)} by {shorten(new)}"
    usual = (
        (kind == "Prepend" and step.get("prepend") == "▁")
        or (kind == "Strip" and step.get("content") == " ")
        or (kind == "Split" and step.get("behavior") != "Removed")
    )
    return "" if usual else f"holds a step {shorten(kind)}, which rewrites text"


def _replacement(step: Mapping[str, Any]) -> tuple[str, str]:
    pattern = step.get("pattern")
    old = next(iter(pattern.values()), "") if isinstance(pattern, dict) else pattern
    return str(old), str(step.get("content"))
