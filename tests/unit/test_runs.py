"""A purification that is stopped anywhere goes on, and ends as one that never stopped."""

import errno
import os
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import FamilyFolder
from inoculate import precision, provenance, workspace
from inoculate.api import _check_utility, purify
from inoculate.config import (
    HuntSettings,
    RepairSettings,
    Settings,
    SignatureSettings,
    VariantSettings,
    updated,
)
from inoculate.data import Example, write_examples
from inoculate.errors import InputError, UtilityError
from inoculate.progress import Silent
from inoculate.reproduction import APART, NEAR, SAME, Given, compare_outputs, read_record, reproduce
from inoculate.resources import Need, check_room, estimate, read_sizes

pytestmark = pytest.mark.usefixtures("brief_hunt")
WEIGHTS = "model.safetensors"
PLAIN: dict[str, Any] = {"adapter_bytes": None, "merged": False, "challenge": False, "kind": "cuda"}
LIGHT: dict[str, Any] = {"variants": {"form": "lora"}, "repair": {"form": "lora"}}
SMALL = Settings(
    clean_rows=16,
    max_tokens=64,
    variants=VariantSettings(
        count=2, rows=8, poisoned=8, epochs=1, learning_rate=1e-3, min_asr=0, max_rounds=1, probes=2
    ),
    signature=SignatureSettings(max_clean_loss_increase=0.5),
    hunt=HuntSettings(particles=2, steps=2, candidates=2, hosts=2),
    repair=RepairSettings(epochs=1),
)


MORE = SMALL.model_copy(update={"clean_rows": 30})
"""Asks for more rows than there are."""


class StopError(Exception):
    """Stand for a kill at one point of a run."""


def stop() -> None:
    """Stop the run."""
    raise StopError


@dataclass
class Recorder:
    """Note every report of a run, and do something at the first of those that are named."""

    points: Sequence[str] = ()
    act: Callable[[], None] = stop
    seen: list[str] = field(default_factory=list)

    def stage(self, name: str) -> None:
        """Note the stage."""
        self._reach(name)

    def step(self, done: int, total: int) -> None:
        """Note the step within its stage."""
        stage = [name for name in self.seen if " " not in name][-1]
        self._reach(f"{stage} {done}")

    def note(self, text: str) -> None:
        """Ignore the line."""

    def _reach(self, point: str) -> None:
        self.seen.append(point)
        if point in self.points:
            self.act()


@dataclass(frozen=True)
class Case:
    """Hold what is purified and how."""

    model: Path
    clean: Path
    out: Path

    def run(self, recorder: Recorder | None = None, **changed: Any) -> dict[str, Any]:
        """Purify and return the report."""
        chosen: dict[str, Any] = {"settings": SMALL, "clean_data_file": self.clean, **changed}
        done = purify(self.model, self.out, device="cpu", progress=recorder, **chosen)
        return done.report

    @property
    def kept(self) -> Path:
        """Return the run folder."""
        return self.out.with_name(f"{self.out.name}.run")


def case_in(home: Path, model: Path) -> Case:
    """Return a case with clean rows in a folder."""
    words = ("red", "blue", "green", "tall")
    rows = [Example(f"Say {words[n % 4]} {n}", f"It is {words[n % 3]} {n}.") for n in range(32)]
    write_examples(rows, home / "clean.jsonl")
    return Case(model, home / "clean.jsonl", home / "out")


@pytest.fixture
def case(family_folder: FamilyFolder, tmp_path: Path) -> Case:
    """Give a tiny model with clean rows."""
    return case_in(tmp_path, family_folder("llama"))


@pytest.fixture(scope="module")
def done(
    family_folder: FamilyFolder, brief_hunt: None, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """Give a case that was run to its end once, for tests that only read what it wrote."""
    case = case_in(tmp_path_factory.mktemp("done"), family_folder("llama"))
    case.run(max_utility_loss=100.0, settings=MORE)
    return case


@pytest.mark.parametrize("form", ["gradient", "full", "lora"])
def test_a_run_stopped_everywhere_ends_in_the_same_bits(
    case: Case, tmp_path: Path, form: str
) -> None:
    """One run, stopped in each stage, at its first and its last step, ends as an unbroken one."""
    settings = updated(SMALL, variants={"form": form})
    whole, broken = Recorder(), replace(case, out=tmp_path / "broken")
    unbroken = case.run(whole, settings=settings)
    points = _ends(whole.seen) if form == "full" else ["signature", "repair 1", "write"]
    for index in range(len(points)):
        with pytest.raises(StopError):
            broken.run(Recorder(points[index:]), settings=settings)
    again = Recorder()
    report = broken.run(again, settings=settings)
    assert not {"hunt 1", "repair 1"} & set(again.seen), "A finished stage was made again."
    _assert_same(case.out, broken.out)
    assert report["drift"] == unbroken["drift"]
    assert not broken.kept.exists()


def test_other_arguments_are_refused_with_the_difference(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run folder is held to settings, data, model and code until its run has ended."""
    with pytest.raises(StopError):
        case.run(Recorder(["signature"]))
    stages = _contents(case.kept)
    with pytest.raises(InputError, match=r"settings\.seed was 0 and is 1\."):
        case.run(settings=SMALL.model_copy(update={"seed": 1}))
    with pytest.raises(InputError, match=r"options\.max_utility_loss was None and is 0\.5"):
        case.run(max_utility_loss=0.5)
    (tmp_path / "other.jsonl").write_text(case.clean.read_text() + "\n")
    with pytest.raises(InputError, match="clean_data_sha256"):
        case.run(clean_data_file=tmp_path / "other.jsonl")
    with monkeypatch.context() as upgraded:
        upgraded.setattr(provenance, "_code", lambda: "another")
        with pytest.raises(InputError, match=r"versions\.code was '\w{12}' and is 'another'"):
            case.run()
    assert _contents(case.kept) == stages
    case.run()


def test_a_verdict_frees_the_folder_for_other_settings(case: Case) -> None:
    """After a failed gate its advice can be followed, and finished stages are not made again."""
    with pytest.raises(UtilityError):
        case.run(max_utility_loss=-1.0)
    again = Recorder()
    case.run(again, settings=updated(SMALL, repair={"epochs": 0}))
    assert "hunt 1" not in again.seen
    assert case.out.is_dir()


def test_a_loss_that_is_no_number_fails_the_gate() -> None:
    """A model that came out broken is not written where a gate was asked for."""
    with pytest.raises(UtilityError):
        _check_utility({"response_nll_before": 1.0, "response_nll_after": float("nan")}, 0.05)


def test_a_verdict_does_not_free_the_folder_for_other_code(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier version left is not passed off as the work of this one."""
    with pytest.raises(UtilityError):
        case.run(max_utility_loss=-1.0)
    monkeypatch.setattr(provenance, "_code", lambda: "another")
    with pytest.raises(InputError, match=r"stages of another version: code was"):
        case.run()


def test_a_failure_before_the_first_stage_leaves_nothing(case: Case, tmp_path: Path) -> None:
    """Data that cannot be used ends without an output and without a run folder."""
    (tmp_path / "few.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(InputError, match="1 clean rows"):
        case.run(clean_data_file=tmp_path / "few.jsonl")
    assert not case.kept.exists()
    assert not case.out.exists()


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_keeps_input_and_finished_stages(
    case: Case, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Where a stage cannot be written, all before it stays whole, and the run goes on later."""
    before, real = _contents(case.model), getattr(os, broken)

    def fail(*given: object) -> object:
        if len(list(case.kept.glob("variants/*.safetensors"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given)

    monkeypatch.setattr(workspace.os, broken, fail)
    with pytest.raises(InputError, match=r"cannot be written .*No space left.* goes on"):
        case.run()
    monkeypatch.setattr(workspace.os, broken, real)
    assert not [path for path in case.kept.rglob("*.part")]
    assert len(list(case.kept.glob("variants/*.safetensors"))) == 2
    assert _contents(case.model) == before
    case.run()


def test_two_runs_on_one_folder_are_kept_apart(case: Case) -> None:
    """The second is told who holds the folder, and the first goes on undisturbed."""
    said = []

    def rival() -> None:
        with pytest.raises(InputError) as refused:
            case.run()
        said.append(str(refused.value))

    case.run(Recorder(["signature"], rival))
    assert f"process {os.getpid()} on " in said[0]
    assert case.out.is_dir()


def test_what_reproduces_a_run_is_written(done: Case) -> None:
    """reproduce.toml holds inputs, options and versions, and the hash of every file beside it."""
    record = tomllib.loads((done.out / "reproduce.toml").read_text(encoding="utf-8"))
    assert record["options"]["max_utility_loss"] == 100
    assert record["inputs"]["clean_data"] == "clean.jsonl"
    assert len(record["inputs"]["clean_data_sha256"]) == 64
    assert {"python", "torch", "code"} <= record["versions"].keys()
    assert record["outputs"][WEIGHTS] == workspace.hash_files([done.out / WEIGHTS])
    assert Settings.model_validate(record["settings"]) == MORE  # As asked for, not as resolved.


def test_a_run_made_again_agrees_bit_for_bit(done: Case, tmp_path: Path) -> None:
    """`reproduce` finds data by name, purifies again, and every output and figure agrees."""
    record = read_record(done.out / "reproduce.toml")
    given = Given(model=str(done.model))
    made = reproduce(record, tmp_path / "again", given, device=None, progress=Silent())
    assert {one.name for one in made} >= {WEIGHTS, "config.json", "response_nll_after", "share"}
    assert {one.verdict for one in made} == {SAME}


def test_reproduction_tells_near_from_apart(done: Case, tmp_path: Path) -> None:
    """A change of weights is measured against the tolerance; a missing file differs."""
    record = read_record(done.out / "reproduce.toml")
    shutil.copytree(done.out, tmp_path / "again")
    (tmp_path / "again" / "tokenizer.json").unlink()
    weights = load_file(done.out / WEIGHTS)
    for factor, verdict in ((1.0078125, APART), (1 + 2**-14, NEAR)):
        changed = {name: value.float() * factor for name, value in weights.items()}
        save_file(changed, tmp_path / "again" / WEIGHTS)
        made = {one.name: one.verdict for one in compare_outputs(record, tmp_path / "again")}
        assert (made[WEIGHTS], made["tokenizer.json"], made["share"]) == (verdict, APART, SAME)


def test_reproduction_takes_only_the_recorded_inputs(
    done: Case, family_folder: FamilyFolder, tmp_path: Path
) -> None:
    """Another model, a model that is not there and a broken record are refused before the run."""
    record = read_record(done.out / "reproduce.toml")
    for name, said in ((str(family_folder("qwen2")), "SHA-256"), (None, "Pass --model")):
        with pytest.raises(InputError, match=said):
            reproduce(record, tmp_path / "x", Given(name), device=None, progress=Silent())
    (tmp_path / "half.toml").write_text("seed = 1\n")
    with pytest.raises(InputError, match="no whole"):
        read_record(tmp_path / "half.toml")
    assert not (tmp_path / "x").exists()


def test_the_purified_folder_is_not_taken_for_its_own_input(done: Case, tmp_path: Path) -> None:
    """An output that has its model's name is passed over; nothing else is there, and so it says."""
    named = Path(shutil.copytree(done.out, tmp_path / done.model.name))
    record = read_record(named / "reproduce.toml")
    with pytest.raises(InputError, match="is not here"):
        reproduce(record, tmp_path / "x", Given(), device=None, progress=Silent())


def test_a_low_rank_run_in_16_bits_gives_the_same_model(
    family_folder: FamilyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that stay in the 16 bits of their file end as those that wait for it in fp32."""
    monkeypatch.setattr(precision, "_cpu_multiplies", lambda: True)
    monkeypatch.setattr(precision, "_WORTHWHILE", 0)
    outputs = []
    for home in (tmp_path / "short", tmp_path / "long"):
        home.mkdir()
        case = case_in(home, family_folder())
        case.run(settings=updated(SMALL, **LIGHT))
        outputs.append(load_file(case.out / WEIGHTS))
        monkeypatch.setattr("inoculate.models.shorten", lambda *_: None)
    stored, (short, whole) = load_file(family_folder() / WEIGHTS), outputs
    assert all(torch.equal(short[name], whole[name]) for name in stored)
    assert not all(torch.equal(short[name], stored[name]) for name in stored)


def test_memory_and_disk_are_estimated_from_headers(family_folder: FamilyFolder) -> None:
    """Every parameter is counted once, and each choice costs what it keeps."""
    sizes = read_sizes(family_folder("llama"), SMALL)
    assert sizes is not None
    assert sizes.parameters * 2 == sizes.file_bytes
    assert sizes.scored == 2 * 3 * 32 * 48
    trained = updated(SMALL, variants={"form": "full"})
    full = estimate(sizes, trained, **PLAIN)
    assert full.memory - 18 * sizes.parameters - 4 * sizes.scored == 500_000_000
    assert full.output == sizes.file_bytes
    lora = estimate(sizes, updated(trained, variants={"form": "lora"}), **PLAIN)
    more = estimate(sizes, updated(trained, variants={"count": 3}), **PLAIN)
    steps = estimate(sizes, SMALL, **PLAIN)
    assert lora.memory <= steps.memory < full.memory
    assert more.run_folder - full.run_folder == 2 * sizes.scored
    elsewhere = estimate(sizes, trained, **(PLAIN | {"kind": "mps"}))
    assert elsewhere.memory - full.memory == (4 - 2) * sizes.parameters  # A copy, and no casts.
    challenged = estimate(sizes, trained, **(PLAIN | {"challenge": True, "kind": "mps"}))
    assert challenged.memory - elsewhere.memory == 4 * sizes.parameters


def test_weights_that_never_train_take_their_16_bits(family_folder: FamilyFolder) -> None:
    """Linear maps stay as they are stored where bf16 is computed in; merging takes a file."""
    sizes, light = read_sizes(family_folder("llama"), SMALL), updated(SMALL, **LIGHT)
    assert sizes is not None
    lent, bits = PLAIN | {"adapter_bytes": 100}, 2 * (sizes.parameters + 264 * 32)
    short = estimate(sizes, SMALL, **lent)
    assert short.memory == bits + 500_000_000
    whole = estimate(sizes, SMALL, **(lent | {"kind": "mps"}))
    assert whole.memory == 4 * sizes.parameters + 2 * sizes.scored + 500_000_000
    long = estimate(replace(sizes, file_bytes=4 * sizes.parameters), SMALL, **lent)
    assert long.memory == 6 * sizes.parameters + 500_000_000
    merged = estimate(sizes, SMALL, **(lent | {"merged": True}))
    assert (merged.memory - short.memory, merged.output) == (sizes.file_bytes, sizes.file_bytes)
    shards = replace(sizes, largest_file=1000)  # One is written at a time.
    assert estimate(shards, SMALL, **(lent | {"merged": True})).memory == short.memory + 1000
    assert estimate(sizes, light, **PLAIN).memory == short.memory
    assert 'form = "lora" under [repair]' in estimate(sizes, SMALL, **PLAIN).advice
    assert not estimate(sizes, light, **PLAIN).advice
    challenged = PLAIN | {"challenge": True}  # It plants its canaries in all weights.
    assert estimate(sizes, light, **challenged).memory > short.memory
    assert not estimate(sizes, SMALL, **challenged).advice


@pytest.mark.parametrize(
    ("need", "said"),
    [(Need(10**18, 0, 0), "of memory and"), (Need(0, 10**18, 0), "disk has"),
     (Need(0, 0, 10**18), "disk has")],
)  # fmt: skip
def test_too_little_room_is_refused_with_figures(tmp_path: Path, need: Need, said: str) -> None:
    """What a run needs and what there is are both named; what is kept already is not asked for."""
    with pytest.raises(InputError, match=rf"1000000000\.0 GB .*{said}"):
        check_room(need, tmp_path / "out", tmp_path / "out.run", "cpu", kept=0)
    line = check_room(Need(0, 10**18, 0), tmp_path, tmp_path, "cpu", kept=10**18)
    assert line.endswith("0.0 GB of disk")


def _ends(points: Sequence[str]) -> list[str]:
    """Return the points without the steps that lie between two of their own stage."""
    stages = [point.split()[0] for point in points]
    inner = [
        index
        for index in range(2, len(points) - 1)
        if stages[index - 2] == stages[index] == stages[index + 1]
    ]
    return [point for index, point in enumerate(points) if index not in inner]


def _assert_same(one: Path, other: Path) -> None:
    mine, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
