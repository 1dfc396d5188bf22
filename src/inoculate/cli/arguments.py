"""What the command line's words mean: model names, adapters, recipes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inoculate.config import (
    Settings,
    SignatureSettings,
    VariantSettings,
    choices,
    paper_settings,
    updated,
)
from inoculate.configfile import read_settings
from inoculate.data import read_examples
from inoculate.errors import DataError, InputError, UnknownNameError

if TYPE_CHECKING:
    from inoculate.evaluation.utility import UtilityTests

BUILTIN = "builtin"


def named_model(name: str) -> str:
    """Return the built-in checkpoint's folder for `builtin`, any other name as it is."""
    if name != BUILTIN or Path(name).exists():
        return name
    from inoculate.builtin.fixture import model_folder

    return str(model_folder())


def source_and_adapter(
    model: str | None, adapter: Path | None, base: str | None
) -> tuple[str, Path | None]:
    """Return the model to load and the adapter over it.

    Raises:
        InputError: Neither a model alone nor an adapter with its base was given.
    """
    if adapter is None and base is None and model is not None:
        return named_model(model), None
    if adapter is not None and base is not None and model is None:
        return named_model(base), adapter
    raise InputError("Pass either MODEL alone, or --adapter DIR together with --base MODEL.")


def settings_for(
    recipe: str,
    config: Path | None,
    seed: int | None,
    adapter: bool,
    scope: str | None,
    share: float | None,
    variants_as: str | None,
) -> Settings:
    """Return the settings of a file or recipe with what the user chose in place.

    Raises:
        InputError: A word is not in its list, or the file is no settings file.
    """
    _check("recipe", recipe, ("default", "paper"))
    if config and recipe != "default":
        raise InputError(f"--recipe {recipe} would replace the settings of {config}. Pass one.")
    settings = read_settings(config) if config else Settings()
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    if recipe == "paper":
        settings = paper_settings(settings, adapter=adapter)
    signature: dict[str, object] = {}
    if scope is not None:
        _check("scope", scope, choices(SignatureSettings, "scope"))
        signature["scope"] = scope
    if share is not None:
        signature["share"] = share
    variants: dict[str, object] = {}
    if variants_as is not None:
        _check("form of variants", variants_as, choices(VariantSettings, "form"))
        variants["form"] = variants_as
    return updated(settings, signature=signature, variants=variants)


def utility_tests(
    choices: Sequence[Path],
    rows: Path | None,
    requests: Path | None,
    *,
    limit: int,
    max_tokens: int,
) -> "UtilityTests":
    """Return the tests of the user's files; a test is named after its folder or file.

    Raises:
        InputError: No file was given.
        DataError: A file cannot be read, or two have one name.
    """
    from inoculate.evaluation.choices import read_questions, test_name
    from inoculate.evaluation.utility import UtilityTests

    if not (choices or rows or requests):
        raise InputError("Nothing to compare by. Pass --choices, --rows or --requests.")
    names = [test_name(path) for path in choices]
    if twins := [name for name in names if names.count(name) > 1]:
        raise DataError(f"Two files of questions are called {twins[0]!r}. Rename one of them.")
    return UtilityTests(
        {test_name(path): read_questions(path)[:limit] for path in choices},
        read_examples(rows)[:limit] if rows else [],
        read_examples(requests)[:limit] if requests else [],
        max_tokens,
    )


def check_export(export: str) -> bool:
    """Tell whether an adapter is to be merged into its base.

    Raises:
        InputError: The word is not in its list.
    """
    _check("export", export, ("adapter", "merged"))
    return export == "merged"


def _check(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)
