"""A defense of a study, as its TOML file names it: plainly, with settings, or over a range."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inoculate.defenses import DEFENSES
from inoculate.errors import UnknownNameError


class Entry(BaseModel):
    """A defense of a grid; a plain name stands for one whose settings are the grid's.

    In the file an entry may `vary` one setting, such as `repair.epochs`, over `values`: it stands
    for an entry of each value, which are joined in the picture of the frontier in that order.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """How tables call it; no two entries share one."""
    defense: str
    """A key of `inoculate.defenses.DEFENSES`; default: the entry's name."""
    settings: dict[str, Any] = {}
    """Settings that differ from the grid's, by group, as in a settings file."""
    clean: Literal["given", "own-voice"] = "given"
    """Clean rows: the file that is given for the attacked model, or the model's own voice."""
    curve: str
    """Entries of one curve are joined in the picture of the frontier, in the order of the file;
    default: the entry's name, a curve of its own."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        whole = {"name": given} if isinstance(given, str) else given
        if isinstance(whole, dict) and "name" in whole:
            whole = {"defense": whole["name"], "curve": whole["name"], **whole}
        return whole

    @field_validator("defense")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DEFENSES:
            raise UnknownNameError("defense", name, DEFENSES)
        return name


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the other's values over the one's, merged group by group."""
    whole = dict(one)
    for group, value in other.items():
        before = whole.get(group)
        both = isinstance(before, dict) and isinstance(value, dict)
        whole[group] = {**before, **value} if both else value  # type: ignore[dict-item]
    return whole


def variations(given: Any) -> list[Any]:
    """Return an entry for each value that one setting is varied over, or the entry alone."""
    if not isinstance(given, dict) or "vary" not in given:
        return [given]
    rest = {name: value for name, value in given.items() if name not in ("vary", "values")}
    group, _, setting = str(given["vary"]).rpartition(".")
    name, values = rest.get("name"), given.get("values")
    if name is None or not isinstance(values, list) or not values:
        raise ValueError(f"{name!r} varies {given['vary']!r}, and needs a name and a list `values`")
    varied = [{group: {setting: value}} if group else {setting: value} for value in values]
    return [
        {"defense": name, "curve": name, **rest, "name": f"{name} {_shown(value)}",
         "settings": merged(rest.get("settings", {}), settings)}
        for value, settings in zip(values, varied, strict=True)
    ]  # fmt: skip


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
