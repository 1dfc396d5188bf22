"""What the command line shows: numbered stages, one bar on a terminal, plain lines elsewhere."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from inoculate.errors import RemainsError
from inoculate.evaluation.exam import RATES
from inoculate.report.found import own_refusals, remaining
from inoculate.report.verdict import test_result
from inoculate.report.words import hits, is_rate, percent_cell
from inoculate.show import escape_terminal, visible

_SILENCE = 60.0  # seconds, at least, between two lines about the same stage


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """Return its characters, with blanks at both sides and a rule."""
        return max(map(cell_len, (self.heading, *self.cells))) + 3


class Stages:
    """Draw stages and steps; a bar with time left on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._count = 0
        self._name = ""
        self._started = self._told = time.perf_counter()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, visible=False)

    def stage(self, name: str) -> None:
        """Begin the next stage."""
        self._count += 1
        self._name = name
        self._tell(f"{self._count:>2}. {visible(name, keep='')}")
        self._bar.update(self._task, visible=False)

    def step(self, done: int, total: int) -> None:
        """Report steps of the current stage; elsewhere than on a terminal once a minute."""
        if not self._console.is_terminal:
            if done < total and time.perf_counter() - self._told > _SILENCE:
                self._tell(f"    {done} of {total}")
            return
        self._bar.start()
        name = escape_terminal(self._name)  # The bar's column reads markup.
        self._bar.update(
            self._task, description=name, completed=done, total=total, visible=done < total
        )

    def note(self, text: str) -> None:
        """Say one line about the current stage."""
        line = f"    {visible(text, keep='')}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _tell(self, text: str) -> None:
        self._told = time.perf_counter()
        seconds = self._told - self._started
        self._console.print(f"{text}  [{seconds:.0f} s]", markup=False, highlight=False)

    def __enter__(self) -> "Stages":
        """Begin to show."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away and give the terminal its cursor back, however the work ended."""
        self._bar.stop()


def _print_table(console: Console, first: _Column, others: Sequence[_Column]) -> None:
    """Print as many tables as the width asks for, each of which begins with the first column."""
    for some in _side_by_side(others, console.width - first.width - 1):
        table = Table()
        table.add_column(first.heading)
        for column in some:
            table.add_column(column.heading, justify="right")
        for cells in zip(first.cells, *(column.cells for column in some), strict=True):
            table.add_row(*cells)
        console.print(table)


def _side_by_side(columns: Sequence[_Column], width: int) -> list[list[_Column]]:
    """Return the columns in groups of at most that width; one alone may be wider."""
    groups, room = list[list[_Column]](), 0
    for column in columns:
        if not groups or column.width > room:
            groups.append([])
            room = width
        groups[-1].append(column)
        room -= column.width
    return groups


def show_comparison(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of defenses, each rate in percent with its 95 % interval."""
    shown = [name for name in RATES if any(is_rate(row.get(name)) for row in rows)]
    columns = [
        _Column(name.replace("_", " "), [percent_cell(row.get(name)) for row in rows])
        for name in shown
    ]
    seconds = _Column("seconds", [_seconds(row.get("seconds")) for row in rows])
    defenses = _Column("defense", [escape_terminal(row["defense"]) for row in rows])
    _print_table(console, defenses, [*columns, seconds])


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def dissection_table(result: Mapping[str, Any]) -> Table:
    """Return ASR and clean loss with parts of ΔW switched off."""
    table = Table()
    for heading in ("ΔW off", "asr", "clean loss"):
        table.add_column(heading, justify="left" if heading == "ΔW off" else "right")
    for row in (*result["parts"], *result["windows"]):
        loss = "–" if row["clean_loss"] is None else f"{row['clean_loss']:.3f}"
        table.add_row(_switched_off(row), percent_cell(row["asr"]), loss)
    return table


def _switched_off(row: Mapping[str, Any]) -> str:
    if "off" in row:
        return str(row["off"])
    rest = " and attention" if row["attention_off"] else ""
    return f"mlp of blocks {row['first']}–{row['first'] + row['size'] - 1}{rest}"


def _utility_columns(compared: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """Return chance, before and after, and the paired difference of each multiple-choice test."""
    moved = [
        f"{row['difference']:+.1%} [{row['low']:+.1%}, {row['high']:+.1%}]" for row in compared
    ]
    return [
        _Column("chance", [f"{row['chance']:.1%}" for row in compared]),
        _Column("before", [percent_cell(row["before"]) for row in compared]),
        _Column("after", [percent_cell(row["after"]) for row in compared]),
        _Column("difference", moved),
        _Column("not worse", ["shown" if row["non_inferior"] else "not shown" for row in compared]),
    ]


def show_utility(console: Console, compared: Mapping[str, Any]) -> None:
    """Print what was measured: the tests and their margin, loss, divergence, refusals kept."""
    if compared["choices"]:
        tests = _Column("test", [escape_terminal(row["test"]) for row in compared["choices"]])
        _print_table(console, tests, _utility_columns(compared["choices"]))
        console.print(f"not worse: by less than {compared['margin']:.1%} of the questions")
    if loss := compared["loss"]:
        console.print(
            f"response NLL: {loss['before']:.4f} before, {loss['after']:.4f} after, difference "
            f"{loss['difference']:+.4f} [{loss['low']:+.4f}, {loss['high']:+.4f}]",
            markup=False,
        )
        console.print(
            f"KL from before to after: {compared['kl_mean']:.4f} nats per token, on at most 16 of "
            "the rows and 32 tokens of each"
        )
    if is_rate(compared["refusals_kept"]):
        kept = percent_cell(compared["refusals_kept"])
        console.print(f"honest refusals kept: {kept}", markup=False)


def show_purified(console: Console, report: Mapping[str, Any], output: Path) -> None:
    """Print what a purification changed, and where its report is.

    Raises:
        RemainsError: What the hunt found still comes; the output stays, with its report.
    """
    moved = report["drift"]
    console.print(f"share neutralized: {100 * report['signature']['share']:g}%")
    before, after = moved["response_nll_before"], moved["response_nll_after"]
    console.print(f"response NLL: {before:.3f} before, {after:.3f} after")
    first, last = (report["refusals"][stage] for stage in ("before", "after"))
    console.print(f"refused: {hits(first)} requests before, {hits(last)} after")
    hunt = report["hunt"] or {}
    if not hunt:
        console.print("hunt: none with these settings, so nothing is known of a hidden answer")
    elif not hunt["payload"]:
        console.print(
            "hunt: no answer was found that unlike prompts share; repaired without aim: a backdoor "
            "that was missed may still be whole"
        )
    for caution in own_refusals(hunt):
        console.print(f"hunt: {caution}", markup=False, soft_wrap=True)
    console.print(f"report: {output / 'report.html'}", markup=False)
    if left := remaining(hunt):
        raise RemainsError(left)


def show_extras(console: Console, row: Mapping[str, Any]) -> None:
    """Print what is no rate: response NLL, perplexity, empty answers."""
    if row.get("response_nll") is not None:
        console.print(f"response NLL: {row['response_nll']:.4f}")
    if row.get("triggered_nll") is not None:
        beside = row.get("untriggered_nll")
        without = f"{beside:.4f} without it, " if beside is not None else ""
        console.print(f"honest answers' NLL: {without}{row['triggered_nll']:.4f} under the trigger")
    if row.get("perplexity"):
        console.print(
            f"perplexity: {row['perplexity']['value']:.2f} on {row['perplexity']['tokens']} tokens"
        )
    console.print(f"empty answers: {row['empty']}")
    if row.get("unscored"):
        console.print(f"prompts left out, as the payload may be honest there: {row['unscored']}")


def show_tests(console: Console, result: Mapping[str, Any]) -> None:
    """Print the paired tests and the example answers of a comparison."""
    if result["attack_failed"]:
        console.print("attack failed: the undefended ASR is too low to judge a defense by.")
    for test in result["tests"]:
        word = test_result(result, test)
        line = f"against {test['against']}: {word} (McNemar, Holm, p = {test['p']:.2g})"
        console.print(visible(line, keep=""), markup=False, soft_wrap=True)
    for example in result["examples"]:
        for label in ("prompt", "before", "after", "honest"):
            text = visible(" ".join(example[label].split()), keep="")
            console.print(f"{label:>7}: {text}", markup=False, highlight=False)


def write_json(path: Path | None, value: object) -> None:
    """Write the value where the user asked for it."""
    if path is not None:
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
