"""Chat templates, examined in a child process with limits on time and memory."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inoculate.intake.finding import Finding, RefusedError, shorten

MAX_TEMPLATE_CHARACTERS = 200_000
_CHILD = Path(__file__).with_name("sandbox.py")
_MAX_SHOWN = 3


@dataclass(frozen=True)
class Limits:
    """Bound the child: processor and wall seconds, megabytes of memory, characters written."""

    seconds: int = 3
    wall_seconds: int = 30
    megabytes: int = 512
    longest: int = 100_000


LIMITS = Limits()


def check_templates(templates: Mapping[str, str], tokens: Mapping[str, str]) -> list[Finding]:
    """Return what a user should know about the chat templates.

    Args:
        templates: Where each template stands → its text.
        tokens: Names such as `bos_token` that templates may write.

    Raises:
        RefusedError: One is too long, does not parse or render, or exceeds the limits.
    """
    for file, text in templates.items():
        if len(text) > MAX_TEMPLATE_CHARACTERS:
            reason = f"The template is over {MAX_TEMPLATE_CHARACTERS:,} characters."
            raise RefusedError("template", file, reason)
    findings = []
    for file, text in templates.items():
        findings += _findings(file, _examine(file, text, tuple(tokens.items()), LIMITS))
    return findings


def _findings(file: str, seen: Mapping[str, Any]) -> list[Finding]:
    if error := seen.get("error"):
        raise RefusedError("template", file, f"The template fails: {shorten(error, 140)}.")
    found = []
    if lines := seen["branches"]:
        more = f" and {len(lines) - _MAX_SHOWN} more" if len(lines) > _MAX_SHOWN else ""
        shown = "; ".join(lines[:_MAX_SHOWN])
        reason = f"What the model reads depends on what a message says: {shown}{more}."
        found.append(Finding("template-branches", file, reason))
    if not seen["keeps_words"]:
        found.append(Finding("template-drops", file, "It does not pass on a user's question."))
    return found


@lru_cache(maxsize=32)  # A process loads the same model again and again.
def _examine(
    file: str, text: str, tokens: tuple[tuple[str, str], ...], limits: Limits
) -> dict[str, Any]:
    request = {
        "templates": {file: text},
        "tokens": dict(tokens),
        "seconds": limits.seconds,
        "megabytes": limits.megabytes,
        "longest": limits.longest,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=limits.wall_seconds,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        answer = None
    if answer is None:
        reason = f"The template takes over {limits.seconds} s or {limits.megabytes} MB to render."
        raise RefusedError("template", file, reason)
    found: dict[str, Any] = answer[file]
    return found
