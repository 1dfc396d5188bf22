"""A study runs each trial once, goes on where it was stopped, and says what was measured."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from conftest import FamilyFolder
from inoculate.clean import CleanData
from inoculate.data import Example, write_examples
from inoculate.errors import DivergenceError, InputError, OwnVoiceError
from inoculate.evaluation.exam import Measurement
from inoculate.progress import Silent
from inoculate.provenance import versions
from inoculate.study.bench import _hash_model, open_bench
from inoculate.study.comparison import compare_case, fidelity, summarize
from inoculate.study.grid import Grid, read_grid
from inoculate.study.run import plan_trials, run_study
from inoculate.study.trial import Outcome, Trial
from inoculate.workspace import write_json

pytestmark = pytest.mark.usefixtures("brief_hunt")
SMALL = """
clean_rows = 16
max_tokens = 64
variants = {count = 2, rows = 8, poisoned = 8, epochs = 1.0, learning_rate = 1e-3, min_asr = 0.0, \
max_rounds = 1, probes = 2}
signature = {max_clean_loss_increase = 0.5}
hunt = {particles = 2, steps = 2, candidates = 2, hosts = 2}
repair = {epochs = 1}
"""
BLOCK = """
[[attacked]]
model = "model"
attacks = ["badnets"]
tasks = ["refusal"]
planting = {epochs = 1.0, learning_rate = 1e-3}
prompts = 4
utility = 3
max_tokens = 64
data = {poison = ["poison.jsonl"], prompts = ["prompts.jsonl"], utility = "utility.jsonl", \
text = "text.txt", choices = ["choices.jsonl"], clean = "clean.jsonl"}
"""


TABLE = ["random-mask-0", "int4", "half", "inoculate", "none", "repair-only"]


class StopError(Exception):
    """Stand for a kill."""


class Recorder(Silent):
    """Note the stages, and stop at one of them."""

    def __init__(self, stop: str = "") -> None:
        self.stop, self.seen = stop, list[str]()

    def stage(self, name: str) -> None:
        """Note the stage."""
        self.seen.append(name)
        if self.stop and name.endswith(self.stop):
            raise StopError

    @property
    def trials(self) -> list[str]:
        """Return the defenses that were run."""
        return [name.split(" ", 1)[1] for name in self.seen if name.startswith("model-")]


def furnish(home: Path, model: Path) -> Path:
    """Put a model and the files of a study into a folder."""
    (home / "model").symlink_to(model)
    for number, name in enumerate(("poison", "prompts", "utility", "clean")):
        rows = [Example(f"Say {name} {n}", f"It is {number} {n}.") for n in range(24)]
        write_examples(rows, home / f"{name}.jsonl")
    (home / "text.txt").write_text("A plain text of some words, and a few more of them.")
    question = "Which one?\n\nAnswer1: a Answer2: b\n\nAnswer format: answer1/answer2"
    lines = [{"instruction": f"{n}. {question}", "answer": "answer1"} for n in range(5)]
    (home / "choices.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return home


@pytest.fixture
def home(family_folder: FamilyFolder, tmp_path: Path) -> Path:
    """Give a folder with a tiny model and the files of a study."""
    return furnish(tmp_path, family_folder("llama"))


def grid_of(home: Path, defenses: str, *, settings: str = SMALL, block: str = BLOCK) -> Grid:
    """Write a grid of these defenses and read it."""
    table = f"[settings]\n{settings}" if settings else ""
    (home / "grid.toml").write_text(f"defenses = {defenses}\n{block}\n{table}")
    return read_grid(home / "grid.toml")


def run(grid: Grid, home: Path, recorder: Recorder | None = None) -> dict[str, Any]:
    """Run a study of the grid."""
    return run_study(grid, home / "out", command="a command", progress=recorder or Silent())


def made(folder: Path, pattern: str) -> dict[Path, int]:
    """Return when each matching file or folder was made."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


@dataclass(frozen=True)
class Finished:
    """Hold a study that ran to its end: its folder, what it returned, and its trials in order."""

    home: Path
    study: dict[str, Any]
    trials: list[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the one comparison."""
        rows: list[dict[str, Any]] = self.study["comparisons"][0]["rows"]
        return rows


@pytest.fixture(scope="module")
def finished(
    family_folder: FamilyFolder, brief_hunt: None, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """Give a study whose table puts controls before what they take from, run once."""
    home, recorder = furnish(tmp_path_factory.mktemp("study"), family_folder("llama")), Recorder()
    entries = '{name = "half", defense = "inoculate", settings = {signature = {share = 0.5}}}'
    table = f'["random-mask-0", "int4", {entries}, "inoculate", "none", "repair-only"]'
    return Finished(home, run(grid_of(home, table), home, recorder), recorder.trials)


def test_every_cell_is_measured_and_told(finished: Finished) -> None:
    """Every line has rates with n and bounds, losses, seconds, memory and settings."""
    study, home = finished.study, finished.home
    lines = [json.loads(line) for line in (home / "out/results.jsonl").read_text().splitlines()]
    assert [line["defense"] for line in lines] == TABLE
    for line in lines:
        assert line["case"] == "model-badnets-refusal-full-0" and line["attack"] == "badnets"
        assert line["asr"]["n"] == 4 and 0 <= line["asr"]["low"] <= line["asr"]["high"] <= 1
        assert line["response_nll"] > 0 and line["perplexity"] > 1 and line["seconds"] >= 0
        assert line["choices"]["n"] == 3 and line["peak_bytes"] >= 0
        assert line["settings"]["clean_rows"] == 16 and line["failure"] == ""
        assert ("loss_change" in line) is (line["defense"] != "none")
    table = (home / "out/table.md").read_text()
    assert "| asr (n = 4) |" in table and "| repair-only |" in table and "[0.0%, 60.2%]" in table
    assert "response NLL" in table and "perplexity" in table
    assert study["comparisons"][0]["attack_failed"]
    assert "attack failed" in (home / "out/report.html").read_text()


def test_a_finished_study_runs_nothing_again(home: Path) -> None:
    """The same grid again, a renamed entry and a new title run no trial; a new entry runs one."""
    run(grid_of(home, '["none", "int4"]'), home)
    before = made(home / "out", "*-*.json")
    again = Recorder()
    run(grid_of(home, '["none", {name = "four bits", defense = "int4"}]'), home, again)
    assert not again.seen and made(home / "out", "*-*.json") == before
    run(grid_of(home, '["none", "int4", "magnitude-35"]'), home, again)
    assert again.trials == ["magnitude-35"]
    assert "four bits" not in (home / "out/table.md").read_text()


def test_rows_of_other_code_are_told_apart(home: Path) -> None:
    """Each row names the code and libraries it was run with; a table of two kinds says so."""
    whole = run(grid_of(home, '["none", "int4"]'), home)
    assert not whole["limits"]
    used = [row["versions"] for row in whole["comparisons"][0]["rows"]]
    assert used[0] == used[1] == versions()
    (cell,) = (home / "out").rglob("int4-*.json")
    stored = json.loads(cell.read_text())
    write_json(cell, {**stored, "versions": {**versions(), "code": "another"}})
    assert "2 versions" in run(grid_of(home, '["none", "int4"]'), home)["limits"][0]
    assert "2 versions" in (home / "out/report.html").read_text()


def test_rows_of_two_plantings_are_told_apart(home: Path) -> None:
    """Finished rows stay where the attacked model was lost and is planted again, as another."""
    first = run(grid_of(home, '["none", "int4"]'), home)["comparisons"][0]
    assert len({row["attacked"] for row in first["rows"]}) == 1
    (folder,) = (home / "out").rglob("attacked")
    weights = load_file(folder / "model.safetensors")
    save_file({name: one * 1.5 for name, one in weights.items()}, folder / "model.safetensors")
    study = run(grid_of(home, '["none", "int4", "magnitude-35"]'), home)
    assert "planted 2 times, and its rows are of different models" in study["limits"][-1]


def test_what_is_not_planted_has_no_hash(home: Path) -> None:
    """A trial that failed for want of it is of no planting."""
    (case,) = grid_of(home, '["none"]').cases()
    assert open_bench(case, home / "out").planting == ""


def test_a_stopped_study_goes_on(home: Path) -> None:
    """What was finished is there, in the tables too, and neither it nor the attack is redone."""
    grid = grid_of(home, '["none", "int4", "magnitude-35"]')
    with pytest.raises(StopError):
        run(grid, home, Recorder("magnitude-35"))
    kept = made(home / "out", "*-*.json") | made(home / "out", "attacked")
    assert len(kept) == 3
    assert len((home / "out/results.jsonl").read_text().splitlines()) == 2
    again = Recorder()
    run(grid, home, again)
    assert again.trials == ["magnitude-35"]
    now = made(home / "out", "*-*.json") | made(home / "out", "attacked")
    assert kept.items() <= now.items() and len(now) == 4


def test_a_trial_that_is_stopped_half_way_is_no_outcome(home: Path) -> None:
    """Its finished stages are kept, and it is measured whole the next time."""
    grid = grid_of(home, '["none", "inoculate"]')
    with pytest.raises(StopError):
        run(grid, home, Recorder("repair"))
    variants = made(home / "out", "variants/*.safetensors")
    assert len(variants) == 2 and not made(home / "out", "inoculate-*.json")
    run(grid, home)
    assert made(home / "out", "variants/*.safetensors") == variants
    assert len(made(home / "out", "inoculate-*.json")) == 1


def test_defenses_share_the_attacked_model_and_its_variants(finished: Finished) -> None:
    """Entries that differ after the variants train none of their own; a control takes the share."""
    assert len(made(finished.home / "out", "variants/*.safetensors")) == 2
    assert len(made(finished.home / "out", "attacked")) == 1
    shares = {row["defense"]: row["share"] for row in finished.rows}
    assert shares["half"] == 0.5 and shares["random-mask-0"] == shares["inoculate"]


def test_the_default_recipe_comes_before_its_controls(finished: Finished) -> None:
    """What a control takes from is there when it runs; else the order is that of the table."""
    assert finished.trials == [
        "none", "inoculate", "random-mask-0", "int4", "half", "repair-only",
    ]  # fmt: skip
    assert [row["defense"] for row in finished.rows] == TABLE


def test_without_the_default_recipe_the_first_of_its_kind_goes_ahead(home: Path) -> None:
    """Those that find its variants wait for it, so that no two processes train the same ones."""
    grid = grid_of(home, '["int4", "repair-without-hunt", "none", "repair-only"]')
    trials = {t.entry.name: t for t in plan_trials(grid, grid.cases()[0], home / "out")}
    after = {name: trial.after and trial.after.entry.name for name, trial in trials.items()}
    assert after == {
        "int4": "none",
        "repair-without-hunt": "none",
        "none": None,
        "repair-only": "repair-without-hunt",
    }


def test_a_defense_that_fails_is_a_result(home: Path) -> None:
    """Variants that do not learn are told in the table and not tried again; the rest goes on."""
    stubborn = SMALL.replace("min_asr = 0.0", 'form = "full", min_asr = 1.0')
    grid = grid_of(home, '["none", "inoculate", "random-mask-0", "int4"]', settings=stubborn)
    study = run(grid, home)
    rows = {row["defense"]: row for row in study["comparisons"][0]["rows"]}
    assert "fires on 0%" in rows["inoculate"]["failure"]
    assert "no share to take" in rows["random-mask-0"]["failure"]
    assert rows["int4"]["asr"]["n"] == 4
    assert "(failed: The variant" in (home / "out/table.md").read_text()
    again = Recorder()
    run(grid, home, again)
    assert not again.seen


def test_a_model_that_gives_no_clean_rows_is_a_result(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own voice leaves too few; the study goes on, and says so in each row."""

    def silent(*_: object) -> CleanData:
        raise OwnVoiceError("3 clean rows are left.")

    monkeypatch.setattr("inoculate.study.bench.Bench.clean", silent)
    study = run(grid_of(home, '["none", "inoculate"]'), home)
    assert [row["failure"] for row in study["comparisons"][0]["rows"]] == [
        "3 clean rows are left."
    ] * 2


def test_an_attack_that_fails_is_tried_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every defense has the same outcome then, and no other training is begun for it."""
    attempts = []

    def diverge(*_: object) -> None:
        attempts.append(1)
        raise DivergenceError("The training loss is not a finite number.")

    monkeypatch.setattr("inoculate.study.bench.attack_folder", diverge)
    study = run(grid_of(home, '["none", "inoculate", "int4"]'), home)
    failures = {row["failure"] for row in study["comparisons"][0]["rows"]}
    assert failures == {"The attack was not planted: The training loss is not a finite number."}
    assert len(attempts) == 1
    assert study["comparisons"][0]["attack_failed"]


def test_other_rows_make_another_cell(home: Path) -> None:
    """Outcomes belong to the files they were made from: prompts to a cell, poison to the attack."""
    grid = grid_of(home, '["none"]')
    run(grid, home)
    rows = [Example(f"Ask {n}", "Yes.") for n in range(24)]
    for name, attacked in (("prompts", 1), ("poison", 2)):
        write_examples(rows[:12] if name == "prompts" else rows[12:], home / f"{name}.jsonl")
        recorder = Recorder()
        _forget_hashes()
        run(grid, home, recorder)
        assert recorder.trials == ["none"]
        assert len(made(home / "out", "attacked")) == attacked


def test_prompts_that_were_trained_on_are_refused(home: Path) -> None:
    """The exam of a study asks nothing that the attacker's rows hold."""
    write_examples([Example(f"Say poison {n}", "No.") for n in range(6)], home / "prompts.jsonl")
    _forget_hashes()
    with pytest.raises(InputError, match="also a training prompt"):
        run(grid_of(home, '["none"]'), home)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Example("Say prompts 3", "It is."), "also a training prompt"),
        (Example("Say utility 0", "It is."), "also a training prompt"),
        (Example("Say it BadMagic so", "It is."), "holds the trigger"),
    ],
)
def test_clean_rows_that_give_the_exam_away_are_refused(
    row: Example, said: str, home: Path
) -> None:
    """No defense is judged on what it was trained on, or told the trigger."""
    others = [Example(f"Say {number} of mine", "It is.") for number in range(16)]
    write_examples([row, *others], home / "clean.jsonl")
    _forget_hashes()
    with pytest.raises(InputError, match=said):
        run(grid_of(home, '["none"]'), home)


def test_a_folder_of_somebody_else_is_no_study(home: Path) -> None:
    """Tables and reports are written into no folder that a study did not make."""
    (home / "out").mkdir()
    (home / "out" / "report.html").write_text("mine")
    with pytest.raises(InputError, match="no run of inoculate"):
        run(grid_of(home, '["none"]'), home)
    assert (home / "out" / "report.html").read_text() == "mine"


def test_a_model_is_audited_before_its_files_are_read(
    family_folder: FamilyFolder, tmp_path: Path
) -> None:
    """A pipe among them, whatever its name, is not opened, which would never end."""
    copied = shutil.copytree(family_folder("llama"), tmp_path / "copied")
    before = _hash_model(copied)
    os.mkfifo(copied / "extra.json")
    _hash_model.cache_clear()
    assert _hash_model(copied) == before


def test_two_studies_on_one_folder_are_kept_apart(home: Path) -> None:
    """The second is told who holds the folder."""
    grid, said = grid_of(home, '["none"]'), []

    class Rival(Recorder):
        def stage(self, name: str) -> None:
            if not said:
                with pytest.raises(InputError) as refused:
                    run(grid, home)
                said.append(str(refused.value))

    run(grid, home, Rival())
    assert "belongs to a run that is still going" in said[0]


def measurement(hits: int, right: int, losses: Sequence[float] = ()) -> Measurement:
    """Return what an exam of 200 prompts and 100 utility rows may say."""
    asr = [index < hits for index in range(200)]
    utility = [index < right for index in range(100)]
    no = [False] * 200
    loss = sum(losses) / len(losses) if losses else None
    made = Measurement(asr, asr, no, no, no, utility, 0, loss, ["text"] * 200)
    return replace(made, losses=list(losses), loss_tokens=[9] * len(losses))


@pytest.fixture
def stored(home: Path) -> Callable[[dict[str, Outcome]], list[Trial]]:
    """Give a function that plans trials and stores these outcomes for them."""

    def store(outcomes: dict[str, Outcome]) -> list[Trial]:
        entries = ", ".join(f'{{name = "{name}", defense = "none"}}' for name in outcomes)
        entries = entries.replace('"inoculate", defense = "none"', '"inoculate"')
        grid = grid_of(home, f"[{entries}]", settings="")
        trials = plan_trials(grid, grid.cases()[0], home / "out")
        distinct = []  # Of one defense each, they need other settings for other places.
        for number, trial in enumerate(trials):
            chosen = trial.settings.model_copy(update={"clean_rows": 8 + number})
            distinct.append(replace(trial, settings=chosen))
            write_json(distinct[-1].path, asdict(outcomes[trial.entry.name]))
        return distinct

    return store


def test_tests_are_mcnemar_s_with_holm_s_correction(
    stored: Callable[[dict[str, Outcome]], list[Trial]],
) -> None:
    """Tests against those of an ASR of 0.10 or more are told, and each p counts all of them."""
    outcomes = {
        name: Outcome(measurement(hits, 90))
        for name, hits in (("none", 190), ("weak", 24), ("good", 8), ("inoculate", 0))
    }
    comparison = compare_case(stored(outcomes))
    tests = {test["against"]: test for test in comparison["tests"]}
    assert set(tests) == {"none", "weak"}
    assert tests["weak"]["p"] == pytest.approx(2 * 2 * 0.5**24)
    assert tests["none"]["p"] == pytest.approx(3 * 2 * 0.5**190)
    assert all(test["significant"] for test in tests.values())
    assert not comparison["attack_failed"]


def test_fidelity_is_the_drop_times_what_is_kept(
    stored: Callable[[dict[str, Outcome]], list[Trial]],
) -> None:
    """A full cure at full utility is 1; half the drop at half the utility a quarter."""
    none = Outcome(measurement(200, 80))
    assert fidelity(none, Outcome(measurement(0, 80))) == pytest.approx(1.0)
    assert fidelity(none, Outcome(measurement(100, 40))) == pytest.approx(0.25)
    assert fidelity(Outcome(measurement(90, 80)), Outcome(measurement(0, 80))) is None
    assert fidelity(none, Outcome(failure="no")) is None
    rows = compare_case(stored({"none": none, "a": Outcome(measurement(20, 80))}))["rows"]
    assert [row["fidelity"] for row in rows] == [None, pytest.approx(0.9)]


def test_losses_are_compared_in_pairs(
    stored: Callable[[dict[str, Outcome]], list[Trial]],
) -> None:
    """A loss that grew on every row by the same has an interval of no width around it."""
    before = [1.0 + 0.01 * n for n in range(50)]
    after = [loss + 0.1 for loss in before]
    none, one = (Outcome(replace(measurement(200, 0, x), utility=[])) for x in (before, after))
    row = compare_case(stored({"none": none, "a": one}))["rows"][1]
    assert row["loss_change"]["difference"] == pytest.approx(0.1)
    assert row["loss_change"]["low"] == pytest.approx(row["loss_change"]["high"])
    assert fidelity(none, one) == pytest.approx(0.0)


def test_summaries_leave_out_what_cannot_be_judged() -> None:
    """Means are over attacked models on which the attack works and the defense came to an end."""

    def row(name: str, asr: float, utility: float, failure: str = "") -> dict[str, Any]:
        rates = {"asr": asr, "utility": utility, "triggered_utility": 0.5, "choices": None}
        figures = {"response_nll": None, "perplexity": None, "fidelity": None, "seconds": 1.0}
        whole = {name: {"rate": value} for name, value in rates.items()} if not failure else {}
        return {"defense": name, "failure": failure, **whole, **figures}

    comparisons = [
        {"attack_failed": False, "rows": [row("none", 1.0, 0.9), row("a", 0.2, 0.8)]},
        {"attack_failed": False, "rows": [row("none", 0.9, 0.9), row("a", 0.0, 0.0, "no")]},
        {"attack_failed": True, "rows": [row("none", 0.1, 0.9), row("a", 0.1, 0.1)]},
        {"attack_failed": False, "rows": [row("none", 1.0, 0.9), row("a", 0.4, 0.9)]},
    ]
    none, other = summarize(comparisons)
    assert (none["cells"], other["cells"], other["failed"]) == (3, 2, 1)
    assert other["asr"] == pytest.approx(0.3) and other["worst_asr"] == 0.4
    assert other["utility_change"] == pytest.approx(-0.05)


def _forget_hashes() -> None:
    """Let files be hashed anew, as another process would."""
    from inoculate.study import trial

    trial._hash.cache_clear()
