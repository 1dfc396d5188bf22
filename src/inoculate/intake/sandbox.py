"""The child process that parses, lints and renders chat templates under hard limits.

It is run by its path, in isolated mode, and imports nothing of the package but the lint beside
it. It reads one JSON request from standard input and answers with one JSON line.
"""

import json
import os
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

PROBE = "What is the capital of France?"
ANSWER = "The capital is Paris."
_USER = {"role": "user", "content": PROBE}
_ASSISTANT = {"role": "assistant", "content": ANSWER}
_SYSTEM = {"role": "system", "content": "Answer briefly."}
# These must render; templates may refuse a system message or an odd order.
_NEEDED = 2
CONVERSATIONS: tuple[tuple[list[dict[str, str]], bool], ...] = (
    ([_USER], True),
    ([_USER, _ASSISTANT], False),
    ([_SYSTEM, _USER, _ASSISTANT, _USER], True),
)


class GenerationTag(Extension):
    """Read `{% generation %}`, which transformers adds to Jinja, as its plain content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def examine(templates: dict[str, str], tokens: dict[str, str], longest: int) -> dict[str, Any]:
    """Return each template's error, branches and whether the user's words come through."""
    return {name: _examine_one(text, tokens, longest) for name, text in templates.items()}


def _examine_one(text: str, tokens: dict[str, str], longest: int) -> dict[str, Any]:
    environment = _environment()
    try:
        tree = environment.parse(text)
        branches = _beside("template_lint").branches(tree, text)
        template = environment.from_string(text)
        ours: dict[str, Any] = _beside("rendering").OPTIONS
        rendered = [
            _render(template, turns, prompt, {**tokens, **options}, needed=index < _NEEDED)
            for options in (ours, {})  # Other tools give none.
            for index, (turns, prompt) in enumerate(CONVERSATIONS)
        ]
    except (MemoryError, RecursionError) as error:
        return {"error": f"it needs too much memory ({type(error).__name__})"}
    except Exception as error:  # Whatever a hostile template raises.
        return {"error": f"{type(error).__name__}: {str(error)[:120]}"}
    if max(map(len, rendered)) > longest:
        return {"error": f"it writes more than {longest} characters for three short messages"}
    return {"branches": branches, "keeps_words": PROBE in rendered[0]}


def _render(
    template: Any,
    turns: list[dict[str, str]],
    prompt: bool,
    given: dict[str, Any],
    *,
    needed: bool,
) -> str:
    try:
        return str(
            template.render(
                messages=[dict(turn) for turn in turns],
                add_generation_prompt=prompt,
                tools=None,
                documents=None,
                **given,
            )
        )
    except TemplateError:
        if needed:
            raise
        return ""


def _environment() -> ImmutableSandboxedEnvironment:
    """Return the environment in which transformers renders."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, **options: Any) -> str:
    known = ("ensure_ascii", "indent", "separators", "sort_keys")
    chosen = {key: options[key] for key in known if key in options}
    return json.dumps(value, **{"ensure_ascii": False, **chosen})


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _beside(module: str) -> Any:
    """Import a module from beside this file, which isolated mode keeps off the path.

    The packages above it are named, so that its imports are found, and not run.
    """
    here = Path(__file__).resolve().parent
    for name, folder in (("inoculate", here.parent), ("inoculate.intake", here)):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(name, package)
    return import_module(f"inoculate.intake.{module}")


def _limit(seconds: int, megabytes: int) -> None:
    if os.name != "posix":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):
            continue


if __name__ == "__main__":
    request = json.load(sys.stdin)
    _limit(request["seconds"], request["megabytes"])
    answer = examine(request["templates"], request["tokens"], request["longest"])
    sys.stdout.write(json.dumps(answer))
