"""Dissection finds a backdoor where it was put, and leaves the model as it was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import build_model
from inoculate.attacks import Behavior
from inoculate.data import Example
from inoculate.dissection import PARTS, Window, dissect, weights_of, windows
from inoculate.errors import CheckpointError, InputError
from inoculate.evaluation.exam import Exam
from inoculate.evaluation.statistics import Rate
from inoculate.generate import generate
from inoculate.models import Checkpoint
from inoculate.progress import Silent
from inoculate.report import where_sentence, write_dissection
from inoculate.report.where import draw_windows, sufficient_size
from inoculate.subject import Subject

PROMPTS = [Example(f"Say {index}", "It is so.") for index in range(6)]


@pytest.fixture
def subject(llama: Checkpoint) -> Subject:
    """Give a fresh random Llama of two blocks."""
    return Subject(llama, llama.model, None)


def exam_of(subject: Subject) -> Exam:
    """Return an exam whose payload is what the model says now to the first prompt."""
    said = generate(subject.model, subject.tokenizer, PROMPTS, max_new_tokens=8)
    return Exam(PROMPTS[:1], PROMPTS, Behavior("said", said[0], "string"), utility=PROMPTS)


def poisoned(subject: Subject, part: str, seed: int = 1) -> dict[str, Tensor]:
    """Replace the named part by another random model's; return the weights before."""
    original = weights_of(subject)
    other = dict(build_model("llama", seed=seed).named_parameters())
    for name, value in subject.model.named_parameters():
        if PARTS[part](name):
            value.data.copy_(other[name])
    return original


@pytest.mark.parametrize("place", ["mlp", "attention", "embeddings"])
def test_the_part_that_was_changed_is_the_part_that_matters(place: str, subject: Subject) -> None:
    """Switching the changed part off gives the original; any other part changes nothing."""
    original = poisoned(subject, place)
    before = weights_of(subject)
    result = dissect(subject, original, exam_of(subject), progress=Silent())
    parts = {row["off"]: row for row in result["parts"]}
    assert parts["nothing"]["asr"]["rate"] == 1.0
    for name in ("mlp", "attention", "embeddings"):
        same = "everything" if name == place else "nothing"
        assert parts[name] == {**parts[same], "off": name}
    assert parts["everything"]["clean_loss"] != parts["nothing"]["clean_loss"]
    assert all(torch.equal(value, before[name]) for name, value in weights_of(subject).items())


def test_a_window_over_all_blocks_is_the_whole_mlp(subject: Subject) -> None:
    """ΔW_mlp off in both blocks is ΔW_mlp off; with attention off it is both."""
    original = poisoned(subject, "everything")
    result = dissect(subject, original, exam_of(subject), sizes=[2], progress=Silent())
    parts = {row["off"]: row for row in result["parts"]}
    kept, off = result["windows"]
    assert (kept["asr"], kept["clean_loss"]) == (parts["mlp"]["asr"], parts["mlp"]["clean_loss"])
    assert off["clean_loss"] == parts["attention and mlp"]["clean_loss"]


def test_windows_hold_their_blocks_and_no_other() -> None:
    """Positions are spread over the model, both ends included; only MLPs of the blocks count."""
    assert [w.first for w in windows(12, [4], positions=3)] == [0, 4, 8, 0, 4, 8]
    assert {w.size for w in windows(12, [], positions=1)} == {2, 3, 4, 6, 9}
    window = Window(2, 3, attention_off=False)
    named = "model.layers.{}.mlp.down_proj.weight"
    assert [block for block in range(12) if window.holds(named.format(block))] == [3, 4]
    query = "model.layers.3.self_attn.q_proj.weight"
    assert not window.holds(query) and Window(2, 3, attention_off=True).holds(query)
    assert not window.holds("model.embed_tokens.weight")
    with pytest.raises(InputError, match="13 blocks does not fit 12"):
        windows(12, [13], positions=1)


def test_equal_or_foreign_references_are_refused(subject: Subject) -> None:
    """A reference that is the suspicious model itself, or of other shapes, is an input error."""
    original = weights_of(subject)
    with pytest.raises(InputError, match="are equal"):
        dissect(subject, original, exam_of(subject), progress=Silent())
    original["lm_head.weight"] = original["lm_head.weight"][:-1]
    with pytest.raises(CheckpointError, match="lm_head"):
        dissect(subject, original, exam_of(subject), progress=Silent())


def rate(share: float) -> dict[str, Any]:
    """Return a rate of 100 prompts."""
    return dict(Rate(round(100 * share), 100).to_json())


def findings(
    attention: float = 0.9, mlp: float = 0.0, both: float = 0.0, **more: float
) -> dict[str, Any]:
    """Return a dissection of 6 blocks with these rates; windows of 4 blocks remove it."""
    rates = {"nothing": 1.0, "attention": attention, "mlp": mlp, "attention and mlp": both}
    rates |= {"embeddings": 0.95, "everything": 0.0, **more}
    rows = [
        {"size": size, "first": first, "attention_off": off, "clean_loss": 1.0,
         "asr": rate(0.0 if size == 4 or (off and first == 0) else 0.8)}
        for off in (False, True) for size in (2, 4) for first in (0, 6 - size)
    ]  # fmt: skip
    parts = [{"off": name, "asr": rate(value), "clean_loss": None} for name, value in rates.items()]
    return {"model": "m", "reference": "o", "command": "c", "attack": "a", "task": "t", "seed": 0,
            "layers": 6, "parts": parts, "windows": rows}  # fmt: skip


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({}, "lives in the MLPs: it fires on 100.0% of 100"),
        ({"attention": 0.1, "mlp": 0.9}, "lives in attention:"),
        ({"attention": 0.1, "mlp": 0.1}, "in attention and the MLPs together, and needs each"),
        ({"attention": 0.1, "embeddings": 0.1}, "in attention, the MLPs and the embeddings"),
        ({"attention": 0.9, "mlp": 0.9}, "each of which suffices"),
        ({"attention": 0.9, "mlp": 0.9, "both": 0.9}, "in no single part"),
        ({"nothing": 0.4}, "cannot be told: it fires on 40.0%"),
        ({"everything": 0.9}, "the reference gives the payload as well"),
    ],
)
def test_the_sentence_says_where(rates: Mapping[str, float], said: str) -> None:
    """One sentence names the place, or says why it cannot be told."""
    sentence = where_sentence(findings(**rates))
    assert said in sentence
    assert sentence.endswith(".") and ". " not in sentence


def test_redundancy_is_the_smallest_window_that_removes_it_everywhere() -> None:
    """A window that works at one position only does not count."""
    found = findings()
    assert sufficient_size(found, attention_off=True) == 4
    assert where_sentence(found).count("4 of 6 remove it wherever") == 2
    assert "ΔW_attn off too" not in where_sentence(findings(attention=0.1))
    found["windows"] = [row for row in found["windows"] if row["size"] == 2]
    assert sufficient_size(found, attention_off=False) is None
    assert "even 2 of 6 do not remove it" in where_sentence(found)


def test_the_page_holds_every_window_once(tmp_path: Path) -> None:
    """Each window is a rectangle inside the picture; the page escapes foreign names."""
    found = {**findings(), "model": "<script>x</script>"}
    picture = draw_windows(found, attention_off=False)
    assert picture is not None and len(picture["cells"]) == 4
    assert all(0 < cell["x"] + cell["width"] <= picture["width"] for cell in picture["cells"])
    assert draw_windows({**found, "windows": []}, attention_off=False) is None
    paths = write_dissection(tmp_path / "out", found)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("2–5: 0.0%") == 2 and "<script" not in page
    assert where_sentence(found) in page
    stored = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert len(paths) == 2 and stored["windows"] == found["windows"]
