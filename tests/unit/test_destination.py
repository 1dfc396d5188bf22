"""Outputs and data that cannot be used are refused before anything is written."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from conftest import FamilyFolder
from inoculate import api
from inoculate.data import read_examples
from inoculate.destination import (
    LOCK,
    check_destination,
    one_run,
    refuse_existing,
    refuse_foreign,
    whole_folder,
)
from inoculate.errors import DataError, InputError
from inoculate.subject import Subject, open_subject

Usage = namedtuple("Usage", "total used free")


def test_an_output_must_be_new(tmp_path: Path) -> None:
    """A folder, a file and a dangling link that exist already are left alone."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in (".", "file", "link"):
        with pytest.raises(InputError, match="exists already"):
            refuse_existing(tmp_path / name)
    with pytest.raises(InputError, match="is no folder"):
        refuse_existing(tmp_path / "absent" / "out")


def test_an_output_inside_the_input_is_refused(tmp_path: Path) -> None:
    """The suspicious folder is never written to, by whatever path it is named."""
    inside = tmp_path / "model" / "deeper"
    inside.mkdir(parents=True)
    (tmp_path / "alias").symlink_to(inside)
    for path in (inside / "out", tmp_path / "alias" / "out"):
        with pytest.raises(InputError, match="lies inside"):
            check_destination(path, [tmp_path / "else", tmp_path / "model"], like=tmp_path)
    check_destination(tmp_path / "model-out", [tmp_path / "model"], like=tmp_path / "model")


def test_a_folder_without_the_right_to_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only place is told before the work begins."""
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(InputError, match="cannot be written to"):
        refuse_existing(tmp_path / "out")
    tmp_path.chmod(0o700)


def test_a_full_disk_is_refused(
    family_folder: FamilyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output needs as much room as the weights of its input."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 99, 1))
    with pytest.raises(InputError, match="GB free"):
        check_destination(tmp_path / "out", [], like=family_folder("llama"))


def test_a_disk_that_fills_up_leaves_nothing(
    family_folder: FamilyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writing fails halfway the error says so and no part stays."""

    def save(subject: Subject, destination: Path, *, merged: bool) -> None:
        destination.mkdir()
        (destination / "half").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Subject, "save", save)
    subject = open_subject(family_folder("llama"), device="cpu")
    with pytest.raises(InputError, match="No space left"):
        api._write(subject, tmp_path / "out", {}, merged=False)
    assert not list(tmp_path.iterdir())


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    """The second run is refused while the first goes on, and welcome after it."""
    folder = tmp_path / "run"
    with one_run(folder, keep=True):
        with pytest.raises(InputError, match="still going"), one_run(folder, keep=True):
            pass
        assert (folder / LOCK).exists()
        (folder / "stage").write_text("x")
    assert {path.name for path in folder.iterdir()} == {LOCK, "stage"}
    with one_run(folder, keep=False):
        pass
    assert not folder.exists()


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder of that name may hold work of the user's own; an empty one is taken."""
    folder = tmp_path / "out.run"
    folder.mkdir()
    refuse_foreign(folder)
    (folder / "notes").mkdir()
    with pytest.raises(InputError, match="no run of inoculate"):
        refuse_foreign(folder)
    with one_run(folder, keep=True):
        pass
    refuse_foreign(folder)


def test_a_folder_beside_the_output_is_not_written_over(tmp_path: Path) -> None:
    """What is written first goes to a name that no user gives."""
    (tmp_path / "out.part").mkdir()
    with whole_folder(tmp_path / "out") as part:
        part.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.part"}


def test_whoever_may_read_the_folder_may_read_its_files(tmp_path: Path) -> None:
    """Weights that a library wrote for their owner alone are as open as what lies beside them."""
    with whole_folder(tmp_path / "out") as part:
        part.mkdir(mode=0o755)
        (part / "weights").touch(mode=0o600)
    assert (tmp_path / "out" / "weights").stat().st_mode & 0o777 == 0o644


def test_a_run_that_fails_keeps_its_stages_and_nothing_else(tmp_path: Path) -> None:
    """A failure before the first stage leaves no folder, one after it leaves the stage."""
    for stages in ([], ["stage"]):
        with pytest.raises(ValueError, match="stop"), one_run(tmp_path / "run", keep=False):
            for name in stages:
                (tmp_path / "run" / name).write_text("x")
            raise ValueError("stop")
        found = [path.name for path in tmp_path.glob("run/*") if path.name != LOCK]
        assert found == stages
        assert (tmp_path / "run").exists() == bool(stages)


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"", "holds nothing"),
        (b"[]", "no rows"),
        (rb'{"instruction": "cut \ud83d", "output": "x"}', "cut within a character"),
        (b"[" * 100_000, "not JSON"),
        (b'{"instruction": 1, "output": "x"}', "row 1"),
        (b'{"prompt": "x"}', "row 1"),
        (b'{"instruction": "a", "output": "b"}\n\n{"instruction', "line 3, is not JSON"),
        (b"9" * 10_000, "not JSON"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, content: bytes, phrase: str) -> None:
    """Data that is no text, no JSON, empty or of other keys is refused with its file."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=phrase) as caught:
        read_examples(path)
    assert str(path) in str(caught.value)


def test_giant_and_odd_data_files_are_not_read(tmp_path: Path) -> None:
    """A line of a gigabyte and a pipe are refused before they are opened."""
    with (tmp_path / "big.jsonl").open("wb") as file:
        file.truncate(1_000_000_000)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, said in (("big.jsonl", "256 MB"), ("pipe.jsonl", "is no file")):
        with pytest.raises(DataError, match=said):
            read_examples(tmp_path / name)
