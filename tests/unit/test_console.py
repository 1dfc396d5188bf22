"""What a model says reaches the terminal as text: nothing hidden, nothing obeyed, nothing lost."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from inoculate.cli.console import Stages, show_comparison, show_tests
from inoculate.evaluation.statistics import rate_of

HOSTILE = "\x1b[2J\x1b]0;title\x07[bold red]hi[/bold red][link=https://evil.test]x[/link]\u202e\x00"
SHOWN = r"\x1b[2J\x1b]0;title\x07[bold red]hi[/bold red][link=https://evil.test]x[/link]\u202e\x00"


def _stage(console: Console) -> None:
    Stages(console).stage(HOSTILE)


def _note(console: Console) -> None:
    Stages(console).note(HOSTILE)


def _bar(console: Console) -> None:
    with Stages(console) as stages:
        stages.stage("hunt")
        stages._name = HOSTILE
        stages.step(1, 2)
        console.print(stages._bar.get_renderable())


def _table(console: Console) -> None:
    show_comparison(console, [{"defense": HOSTILE, "asr": rate_of([True]).to_json()}])


def _examples(console: Console) -> None:
    example = dict.fromkeys(("prompt", "before", "after", "honest"), HOSTILE)
    show_tests(console, {"attack_failed": False, "tests": [], "examples": [example]})


def _tests(console: Console) -> None:
    test = {"against": HOSTILE, "p": 0.5, "significant": False}
    show_tests(console, {"attack_failed": False, "tests": [test], "examples": []})


@pytest.mark.parametrize("show", [_stage, _note, _bar, _table, _examples, _tests])
def test_hostile_text_is_shown_and_never_obeyed(show: Callable[[Console], None]) -> None:
    """Stages, notes, bars, tables, tests and answers show foreign text letter for letter."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=200, color_system=None, legacy_windows=False
    )
    show(console)
    printed = out.getvalue()
    assert SHOWN in printed
    assert not [sign for sign in ("\x1b[2J", "\x1b]", "\x07", "\u202e", "\x00") if sign in printed]


def test_the_cursor_comes_back_after_a_failure() -> None:
    """A bar hides it; work that ends in an error shows it again."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, legacy_windows=False)
    with pytest.raises(ValueError, match="stop"), Stages(console) as stages:
        stages.step(1, 2)
        raise ValueError("stop")
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_a_long_stage_gives_signs_of_life_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no terminal, how far a stage is stands there once in a while, not always."""
    out = io.StringIO()
    stages = Stages(Console(file=out, force_terminal=False))
    stages.stage("hunt")
    stages.step(1, 3)
    monkeypatch.setattr("inoculate.cli.console._SILENCE", 0.0)
    stages.step(2, 3)
    stages.step(3, 3)
    assert [line.partition("  [")[0] for line in out.getvalue().splitlines()] == [
        " 1. hunt",
        "    2 of 3",
    ]


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (80, 2), (40, 5)])
def test_a_table_too_wide_goes_on_in_another(width: int, tables: int) -> None:
    """On a narrow terminal every figure stands whole, and each table names its rows."""
    names = ("asr", "false_trigger", "triggered_utility", "utility")
    row = {name: rate_of([True] * 3 + [False] * 7).to_json() for name in names}
    out = io.StringIO()
    show_comparison(
        Console(file=out, width=width), [{"defense": "inoculate", **row, "seconds": 5.0}]
    )
    printed = out.getvalue()
    assert printed.count("inoculate") == tables
    assert printed.count("30.0% [6.7%, 65.2%]") == len(names)
    assert max(map(len, printed.splitlines())) <= width
