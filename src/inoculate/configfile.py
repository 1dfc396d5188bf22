"""Settings as a TOML file whose comments are the settings' own documentation."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from inoculate.config import Settings
from inoculate.errors import InputError

Model = TypeVar("Model", bound=BaseModel)

_LEGEND = "# In brackets: where the default comes from; `log:` names entries of docs/log.md.\n"


def to_toml(settings: Settings) -> str:
    """Return every setting with its docstring as a comment; None is commented out."""
    groups = {n: v for n, v in settings if isinstance(v, BaseModel)}
    lines = [_LEGEND, *_lines(settings, skip=set(groups))]
    for name, group in groups.items():
        lines += ["", f"# {group.__doc__}", f"[{name}]", *_lines(group, skip=set())]
    return "\n".join(lines) + "\n"


def read_settings(path: Path) -> Settings:
    """Read settings from a TOML file; what it leaves out keeps its default.

    Raises:
        InputError: The file cannot be read, or holds an unknown name or a bad value.
    """
    return read_toml(path, Settings)


def read_toml(path: Path, kind: type[Model], *, context: Any = None) -> Model:
    """Read a TOML file as a pydantic model.

    Args:
        context: Passed to the model's validators.

    Raises:
        InputError: The file cannot be read, or holds an unknown name or a bad value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return kind.model_validate(content, context=context)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist. Pass an existing file.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}.") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error, kind)}.") from error


def first_problem(error: ValidationError, kind: type[BaseModel]) -> str:
    """Return the place and the reason of the first mistake, without a full stop."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = str(first["msg"]).removeprefix("Value error, ").removesuffix(".")
    if first["type"] == "extra_forbidden":
        reason = "there is no such entry" + _hint(kind, [str(part) for part in first["loc"]])
    return f"{place}: {reason}" if place else reason


def _hint(kind: type[BaseModel], place: list[str]) -> str:
    """Return the nearest name in the group where there is no such entry, if one is near."""
    *groups, name = place
    for group in groups:
        field = kind.model_fields.get(group)
        if field is None or not isinstance(field.annotation, type):
            return ""
        kind = field.annotation
    near = difflib.get_close_matches(name, kind.model_fields, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _lines(group: BaseModel, *, skip: set[str]) -> list[str]:
    lines = []
    for name, field in type(group).model_fields.items():
        if name in skip:
            continue
        comment = " ".join((field.description or "").split())
        lines += [f"# {comment}", _assignment(name, getattr(group, name))]
    return lines


def _assignment(name: str, value: Any) -> str:
    return f"# {name} =" if value is None else tomli_w.dumps({name: value}).strip()
