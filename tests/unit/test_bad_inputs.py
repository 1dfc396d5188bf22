"""Bad inputs: each is refused in one sentence that names its file, or warned of; nothing runs."""

import gc
import io
import json
import pickle
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from peft import LoraConfig, get_peft_model

from conftest import SHARDED, FamilyFolder, build_model
from hostile import (
    ADAPTER_CASES,
    BASE_CASES,
    CANARY,
    CONFIG_CASES,
    LOAD_CASES,
    PICKLE,
    SHARD_CASES,
    TOKENIZER_CASES,
    WARNINGS,
    WEIGHT_CASES,
    Case,
)
from inoculate.cli import main
from inoculate.intake import template

REFUSED = [*CONFIG_CASES, *WEIGHT_CASES, *TOKENIZER_CASES]
SHUT = ("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo",
        "socket.gethostbyname", "pickle.find_class", "os.system", "os.exec",
        "os.posix_spawn")  # fmt: skip
FOREIGN = (".bin", ".pkl", ".py", ".pt")
HEARD: list[str] = []


def _listen(event: str, given: tuple[Any, ...]) -> None:
    """Note every socket, pickle, foreign program and run of the suspicious folder's code."""
    first = str(given[0]) if given else ""
    inside = "suspicious" in first
    if (
        event in SHUT
        or (event == "subprocess.Popen" and template._CHILD.name not in str(given[1]))
        or (event == "open" and inside and first.endswith(FOREIGN))
        or (event == "exec" and inside)
    ):
        HEARD.append(f"{event} {given!r}")


sys.addaudithook(_listen)


class House:
    """Run the command line in a folder of its own, with every door watched."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        """Forbid sockets and pickles, and give temporary files a place that can be searched."""
        self.home, self.patch = home, patch
        self.desk, self.scratch = home / "desk", home / "scratch"
        self.desk.mkdir()
        self.scratch.mkdir()
        patch.chdir(self.desk)
        patch.setattr(tempfile, "tempdir", str(self.scratch))
        patch.setattr(template, "LIMITS", template.Limits(seconds=1))
        for door, name in ((socket.socket, "connect"), (socket, "getaddrinfo"),
                           (pickle, "load"), (pickle, "loads")):  # fmt: skip
            patch.setattr(door, name, _shut)

    def run(self, *words: str) -> int:
        """Return the exit code of a command."""
        self.patch.setattr(sys, "argv", ["inoculate", *words])
        HEARD.clear()
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    def is_untouched(self) -> bool:
        """Tell whether nothing was written and no foreign code ran."""
        gc.collect()  # A staging copy goes with the error that holds it.
        return not any(self.desk.iterdir()) and not any(self.scratch.iterdir())


def _shut(*args: Any, **kwargs: Any) -> NoReturn:
    raise AssertionError("A door was opened that must stay shut.")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Give a guarded place to run commands in, and demand that no door was opened in it."""
    HEARD.clear()
    yield House(tmp_path, monkeypatch)
    assert HEARD == []


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a LoRA folder as PEFT writes it."""
    config = LoraConfig(r=3, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        model = get_peft_model(build_model("llama"), config)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def _spoiled(good: Path, case: Case, home: Path) -> Path:
    folder = Path(shutil.copytree(good, home / "suspicious"))
    case.mutate(folder)
    return folder


def _spelled(words: tuple[str, ...], folder: Path, home: Path) -> tuple[str, ...]:
    """Return the words with MODEL and ROWS as paths; rows of a user spare drawing a world."""
    rows = home / "rows.jsonl"
    rows.write_text('{"instruction": "a b", "output": "c"}\n' * 2)
    named = {"MODEL": str(folder), "ROWS": str(rows)}
    return tuple(named.get(word, word) for word in words)


def _check_refused(
    house: House, folder: Path, case: Case, words: tuple[str, ...], said: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    said.readouterr()
    assert house.run(*words) == 2
    errors = said.readouterr().err
    assert len(errors.strip().splitlines()) == 1, errors
    assert case.file in errors
    assert case.phrase in errors
    assert errors.strip().endswith(".")
    assert "Traceback" not in errors
    assert house.is_untouched()
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_bad_model_is_refused(
    case: Case,
    house: House,
    family_folder: FamilyFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Inspect answers a bad model with exit code 2 and one sentence; nothing is written or run."""
    folder = _spoiled(family_folder("llama"), case, house.home)
    words = ("inspect", str(folder), *(("--deep",) if case.deep else ()))
    _check_refused(house, folder, case, words, capsys)


@pytest.mark.parametrize("case", SHARD_CASES, ids=lambda case: case.name)
def test_bad_index_is_refused(
    case: Case,
    house: House,
    family_folder: FamilyFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A shard index that leaves the folder or does not fit its shards is refused."""
    folder = _spoiled(family_folder("llama", SHARDED), case, house.home)
    _check_refused(house, folder, case, ("inspect", str(folder)), capsys)


@pytest.mark.parametrize("case", ADAPTER_CASES, ids=lambda case: case.name)
def test_bad_adapter_is_refused(
    case: Case, house: House, adapter_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter that is no plain LoRA in safetensors is refused."""
    folder = _spoiled(adapter_folder, case, house.home)
    _check_refused(house, folder, case, ("inspect", str(folder)), capsys)


@pytest.mark.parametrize(
    "case", [*WEIGHT_CASES[::9], *CONFIG_CASES[::11], *TOKENIZER_CASES[::7]], ids=lambda c: c.name
)
def test_purify_refuses_what_inspect_refuses(
    case: Case,
    house: House,
    family_folder: FamilyFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Purify passes the same gate before it loads anything, and leaves no output behind."""
    folder = _spoiled(family_folder("llama"), case, house.home)
    _check_refused(house, folder, case, ("purify", str(folder), "-o", "out"), capsys)


@pytest.mark.parametrize("case", LOAD_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "words",
    [("evaluate", "MODEL", "--data", "ROWS"), ("purify", "MODEL", "-o", "out")],
    ids=lambda words: words[0],
)
def test_what_only_loading_shows_is_refused(
    case: Case,
    words: tuple[str, ...],
    house: House,
    family_folder: FamilyFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A tokenizer that its class makes useless is refused like any other bad input."""
    folder = _spoiled(family_folder("llama"), case, house.home)
    _check_refused(house, folder, case, _spelled(words, folder, house.home), capsys)


@pytest.mark.parametrize(
    "words",
    [
        ("attack", "MODEL", "-o", "out", "--data", "ROWS"),
        ("evaluate", "MODEL", "--data", "ROWS"),
        ("challenge", "MODEL"),
        ("dissect", "MODEL", "--reference", "MODEL", "--data", "ROWS"),
        ("utility", "MODEL", "MODEL", "--rows", "ROWS"),
        ("purify", "--base", "MODEL", "--adapter", "MODEL", "-o", "out"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_passes_the_gate(
    words: tuple[str, ...],
    house: House,
    family_folder: FamilyFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever the command, a refused folder is not loaded and nothing is written."""
    case = WEIGHT_CASES[0]
    folder = _spoiled(family_folder("llama"), case, house.home)
    _check_refused(house, folder, case, _spelled(words, folder, house.home), capsys)


@pytest.mark.parametrize("case", [*ADAPTER_CASES[::6], *BASE_CASES], ids=lambda case: case.name)
def test_purify_refuses_a_bad_adapter(
    case: Case,
    house: House,
    family_folder: FamilyFolder,
    adapter_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An adapter that is bad, or belongs to another base, is refused before it is loaded."""
    folder = _spoiled(adapter_folder, case, house.home)
    base = ("--base", str(family_folder("llama")))
    assert house.run("purify", "--adapter", str(folder), *base, "-o", "out") == 2
    errors = capsys.readouterr().err
    assert case.file in errors
    assert case.phrase in errors
    assert not any(house.desk.iterdir())


@pytest.mark.parametrize("case", WARNINGS, ids=lambda case: case.name)
def test_odd_model_is_accepted_with_a_warning(
    case: Case,
    house: House,
    family_folder: FamilyFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What cannot harm the loading but a user must see is shown, and the exit code is 0."""
    folder = _spoiled(family_folder("llama"), case, house.home)
    assert house.run("inspect", str(folder), "--json", str(house.home / "found.json")) == 0
    shown = capsys.readouterr().out
    found = json.loads((house.home / "found.json").read_text())["findings"]
    warnings = [f for f in found if f["severity"] == "warning" and f["file"] == case.file]
    assert warnings, shown
    assert case.phrase.lower() in " ".join(f["reason"] for f in warnings).lower()
    assert case.phrase.lower() in shown.lower()
    assert house.is_untouched()


def test_there_are_enough_bad_inputs() -> None:
    """The tables hold over a hundred refusals, and no name twice within a table."""
    tables = (CONFIG_CASES, WEIGHT_CASES, SHARD_CASES, TOKENIZER_CASES, LOAD_CASES, ADAPTER_CASES,
              BASE_CASES)  # fmt: skip
    assert sum(map(len, tables)) > 100
    for table in tables:
        assert len({case.name for case in table}) == len(table)


def test_the_doors_would_be_heard(house: House, tmp_path: Path) -> None:
    """A pickle of the tables writes the canary if it is opened; it, a socket and code are heard."""
    pickle._Unpickler(io.BytesIO(PICKLE)).load().close()  # type: ignore[attr-defined]
    assert (house.desk / CANARY).exists()
    assert not house.is_untouched()
    socket.socket().close()
    (tmp_path / "suspicious.py").write_text("x = 1")
    exec(compile("x = 1", tmp_path / "suspicious.py", "exec"), {})
    events = [heard.split()[0] for heard in HEARD]
    HEARD.clear()
    assert events == ["pickle.find_class", "socket.__new__", "open", "exec"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("purify builtin -o out --device cude", "No device 'cude' is here."),
        ("purify builtin -o out --config HOME/score.toml", "strenght"),
        ("purify builtin -o out --config HOME/none.toml", "does not exist. Pass"),
        ("purify builtin -o out --config HOME/rate.toml", "repair.learning_rate"),
        ("evaluate builtin --json nowhere/x.json", "nowhere is no folder."),
        ("utility builtin builtin --choices HOME/a/q.json --choices HOME/b/q.json", "called 'q'"),
        ("reproduce HOME/record.toml -o out", "it names no outputs"),
        ("purify ./nowhere/model -o out", "nowhere/model does not exist. Pass a checkpoint"),
        ("purify builtin -o out --seed 9223372036854775808", "Invalid value"),
        ("purify builtin -o out --config HOME/typo.toml", "did you mean 'epochs'?"),
        ("attack builtin -o out --epochs nan", "must be above 0"),
    ],
)
def test_mistakes_are_told_before_any_work(
    words: str, said: str, house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, exit code 2, and nothing is loaded or written."""
    files = {
        "score.toml": '[signature]\nscore = "strenght"\n',
        "rate.toml": "[repair]\nlearning_rate = inf\n",
        "typo.toml": "[repair]\nepoch = 2\n",
        "a/q.json": "[]",
        "b/q.json": "[]",
        "record.toml": "[inputs]\n[options]\n[outputs]\n[versions]\n[settings]\n",
    }
    for name, text in files.items():
        (house.home / name).parent.mkdir(exist_ok=True)
        (house.home / name).write_text(text)
    assert house.run(*words.replace("HOME", str(house.home)).split()) == 2
    assert said in capsys.readouterr().err
    assert house.is_untouched()
