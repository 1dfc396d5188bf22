"""A study's TOML file: what it means, and what is refused before hours are spent on it."""

from pathlib import Path
from typing import Any

import pytest

from inoculate.config import Settings
from inoculate.errors import InputError
from inoculate.study.grid import read_grid

ATTACKED = '[[attacked]]\nattacks = ["badnets"]\ntasks = ["refusal"]\n'
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def written(folder: Path, defenses: str, attacked: str = ATTACKED, head: str = "") -> Path:
    """Write a grid and return its path."""
    path = folder / "grid.toml"
    path.write_text(f"{head}\ndefenses = {defenses}\n{attacked}", encoding="utf-8")
    return path


def test_a_grid_is_every_attacked_model_under_every_defense(tmp_path: Path) -> None:
    """Products are taken block by block, and all of one seed comes before the next."""
    blocks = (
        '[[attacked]]\nattacks = ["badnet", "vpi"]\ntasks = ["refusal"]\nseeds = [0, 1]\n'
        'threats = ["full", "adapter"]\nplanting = {epochs = 2.0}\n'
        '[[attacked]]\nattacks = ["composite"]\ntasks = ["negsentiment"]\nrates = [0.01]\n'
    )
    grid = read_grid(written(tmp_path, '["none", "inoculate"]', blocks))
    cases = grid.cases()
    assert [case.seed for case in cases] == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert cases[0].name == "builtin-badnets-refusal-full-0"
    assert cases[4].name == "builtin-composite-sentiment-0.01-full-0"
    assert cases[2].plan.adapter and not cases[1].plan.adapter
    assert cases[5].plan.settings.seed == 1 and cases[5].plan.settings.epochs == 2.0
    assert cases[4].plan.rate == 0.01


def test_an_entry_s_settings_stand_over_the_grid_s(tmp_path: Path) -> None:
    """A group is merged value by value, and what neither names keeps its default."""
    path = written(
        tmp_path,
        '["none", {name = "a", defense = "inoculate", settings = {repair = {epochs = 7}}}]',
        head="settings = {clean_rows = 50, repair = {epochs = 1, antibodies = 0}}",
    )
    grid = read_grid(path)
    settings = grid.settings_for(grid.defenses[1], seed=3)
    assert (settings.seed, settings.clean_rows) == (3, 50)
    assert (settings.repair.epochs, settings.repair.antibodies) == (7, 0)
    assert settings.hunt == Settings().hunt
    assert grid.defenses[1].curve == "a" and grid.defenses[0].defense == "none"


def test_one_entry_may_vary_a_setting(tmp_path: Path) -> None:
    """It stands for an entry of each value, in order, on one curve; its other settings stay."""
    varied = (
        '{name = "rate", defense = "fine-tuning", vary = "repair.learning_rate", '
        "values = [5e-5, 2e-4], settings = {repair = {epochs = 2}}}"
    )
    grid = read_grid(written(tmp_path, f'["none", {varied}]'))
    assert [entry.name for entry in grid.defenses] == ["none", "rate 5e-05", "rate 0.0002"]
    assert {entry.curve for entry in grid.defenses[1:]} == {"rate"}
    repairs = [grid.settings_for(entry, seed=0).repair for entry in grid.defenses[1:]]
    assert [repair.learning_rate for repair in repairs] == [5e-5, 2e-4]
    assert [repair.epochs for repair in repairs] == [2, 2]
    path = written(tmp_path, '["none", {name = "int4", vary = "clean_rows", values = [25, 50]}]')
    rows = read_grid(path)
    settings = [rows.settings_for(entry, seed=0) for entry in rows.defenses[1:]]
    assert [one.clean_rows for one in settings] == [25, 50]


DEFENSES = {
    '["none", {name = "int4", vary = "repair.epochs"}]': "needs a name and a list `values`",
    '["none", {name = "int4", vary = "repair.epoch", values = [1]}]': r"settings\.repair\.epoch",
    '["crow"]': "'none' is not among the defenses",
    '["none", "crwo"]': "Did you mean 'crow'",
    '["none", "none"]': "two defenses are called 'none'",
    '["none", {nam = "x"}]': "defenses.1.name",
    '["none", 3]': "defenses.1",
    "[]": "defenses",
    '["none", "random-mask-0"]': "takes the share that inoculate chose",
    '["none", {name = "x", defense = "inoculate", settings = {signature = {shar = 1}}}]': (
        r"'x': settings\.signature\.shar"
    ),
    '["none", {name = "x", defense = "inoculate", settings = {signature = {score = "best"}}}]': (
        "Unknown score 'best'"
    ),
    '["none", {name = "x", defense = "inoculate", settings = {variants = {count = 99}}}]': (
        "Cannot draw 99"
    ),
    '["none", {name = "x", defense = "inoculate", settings = {seed = 1}}]': "settings hold a seed",
    '["none", {name = "x", defense = "inoculate", clean = "mine"}]': "clean",
}


@pytest.mark.parametrize("defenses", list(DEFENSES))
def test_a_bad_defense_is_refused_in_one_sentence(defenses: str, tmp_path: Path) -> None:
    """The message names the place or the word, and stands on one line."""
    _refused(written(tmp_path, defenses), DEFENSES[defenses])


BLOCKS = {
    'attacks = ["badnet5"]': "Did you mean 'badnets'",
    'attacks = ["badnets", "badnet"]': "two attacked models are called",
    "attacks = []": r"attacked\.0\.attacks",
    'attacks = ["badnets"]\nrates = [0.7]': r"attacked\.0\.rates\.0",
    'attacks = ["badnets"]\nthreats = ["half"]': r"attacked\.0\.threats",
    'attacks = ["badnets"]\nplanting = {epoch = 1}': r"planting\.epoch",
    'attacks = ["badnets"]\nmodel = "elsewhere"': r"data\.poison and data\.prompts are missing",
    'attacks = ["badnets"]\ndata = {text = "gone.txt"}': r"there is no file .*gone\.txt",
    'attacks = ["badnets"]\ndata = {text = "{attack}.txt"}': r"there is no file .*badnets\.txt",
    'attacks = "badnets"\ndata = {text = "{attack}.txt"}': r"attacked\.0\.attacks",
    'attacks = [1]\ndata = {text = "{attack}.txt"}': r"attacked\.0\.attacks\.0",
    'attacks = ["badnets"]\nmodels = ["builtin"]': r"attacked\.0\.models",
}


@pytest.mark.parametrize("block", list(BLOCKS))
def test_a_bad_attacked_model_is_refused_in_one_sentence(block: str, tmp_path: Path) -> None:
    """The message names the place or the word, and stands on one line."""
    path = written(tmp_path, '["none"]', f'[[attacked]]\ntasks = ["refusal"]\n{block}\n')
    _refused(path, BLOCKS[block])


def test_files_are_looked_for_beside_the_grid_or_where_the_user_says(tmp_path: Path) -> None:
    """Relative paths start at the data folder, which is the grid's own by default."""
    (tmp_path / "else").mkdir()
    for folder in (tmp_path, tmp_path / "else"):
        (folder / "rows.jsonl").write_text("")
    path = written(tmp_path, '["none"]', f'{ATTACKED}data = {{clean = "rows.jsonl"}}\n')
    for data in (None, tmp_path / "else"):
        clean = read_grid(path, data).attacked[0].data.clean
        assert clean == (data or tmp_path) / "rows.jsonl"


def test_file_names_may_hold_the_attack_and_the_task(tmp_path: Path) -> None:
    """A block is then one for each of them, with its own files; files of all stay shared."""
    attacked = (
        '[[attacked]]\nattacks = ["badnets", "vpi"]\ntasks = ["refusal", "sentiment"]\n'
        'data = {poison = ["{attack}-{task}.jsonl"], text = "text.txt"}\n'
    )
    names = [f"{a}-{t}.jsonl" for t in ("refusal", "sentiment") for a in ("badnets", "vpi")]
    for name in (*names, "text.txt"):
        (tmp_path / name).write_text("")
    cases = read_grid(written(tmp_path, '["none"]', attacked)).cases()
    assert [case.block.data.poison for case in cases] == [(tmp_path / name,) for name in names]
    assert [f"{case.attack}-{case.task}.jsonl" for case in cases] == names
    assert {case.block.data.text for case in cases} == {tmp_path / "text.txt"}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_studies_of_the_project_are_sound(path: Path, monkeypatch: Any) -> None:
    """Every TOML file in benchmarks/ is a grid, its data files aside."""
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert read_grid(path).cases()


def _refused(path: Path, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read_grid(path)
    assert "\n" not in str(refused.value)
