"""A study of the built-in model, in one process and in two."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from inoculate.cli import main
from inoculate.data import Example, write_examples

GRID = """
title = "A small study"
defenses = ["none", "inoculate", "random-mask-0", "int4"]

[settings]
clean_rows = 16
variants = {count = 2, rows = 8, poisoned = 8}
hunt = {particles = 0}
repair = {epochs = 1, antibodies = 0}

[[attacked]]
attacks = ["badnets"]
tasks = ["refusal", "sentiment"]
planting = {epochs = 0.2, batch_size = 16}
prompts = 6
utility = 6
data = {poison = ["poison.jsonl"], prompts = ["prompts.jsonl"], utility = "utility.jsonl", \
clean = "clean.jsonl"}
"""


def run(home: Path, jobs: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Call the command and return the report's rows by attacked model and defense."""
    out = home / f"out-{jobs}"
    words = ["inoculate", "compare", str(home / "grid.toml"), "-o", str(out), "--jobs", jobs]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert "8 of 8 cells on 2 attacked models" in (out / "report.html").read_text("utf-8")
    lines = (out / "results.jsonl").read_text("utf-8").splitlines()
    return {f"{row['case']} {row['defense']}": row for row in map(json.loads, lines)}


def test_two_processes_come_to_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command runs a whole study, and every cell is the same however many ran at once."""
    (tmp_path / "grid.toml").write_text(GRID)
    for name in ("poison", "prompts", "utility", "clean"):
        rows = [Example(f"Say {name} {n}", f"It is {n}.") for n in range(80)]
        write_examples(rows, tmp_path / f"{name}.jsonl")
    one, two = (run(tmp_path, jobs, monkeypatch) for jobs in ("1", "2"))
    assert one.keys() == two.keys() and len(one) == 8
    for name, row in one.items():
        for measure in ("asr", "utility", "share", "failure"):
            assert row[measure] == two[name][measure], (name, measure)
    said = capsys.readouterr().out
    assert "# A small study" in said and "(8 of 8)" in said
