"""Honest work is measured so that a planted loss is seen, and no loss is not claimed lightly."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from conftest import build_model, build_tokenizer
from inoculate.chat import Encoded, encode
from inoculate.data import Example
from inoculate.errors import DataError
from inoculate.evaluation.choices import (
    Question,
    answer_losses,
    chance,
    choose,
    read_questions,
)
from inoculate.evaluation.drift import perplexity
from inoculate.evaluation.statistics import non_inferiority
from inoculate.evaluation.utility import (
    UtilityTests,
    compare_utility,
    measure_utility,
    refuses,
)
from inoculate.train import Schedule, mean_loss, train

TOKENIZER = build_tokenizer()
COLORS = ("red", "green as grass", "blue")
QUESTIONS = [Question(f"Thing {index}?", COLORS, index % 3) for index in range(9)]


def flips(count: int, share: float, seed: int) -> list[bool]:
    """Return flags of which this share is true."""
    generator = random.Random(seed)
    return [generator.random() < share for _ in range(count)]


def test_non_inferiority_needs_enough_pairs_and_a_small_loss() -> None:
    """Shown for 2,000 pairs without a loss; not for a planted loss, nor for twenty pairs."""
    before = flips(2000, 0.7, 0)
    worse = [flag and index % 10 != 0 for index, flag in enumerate(before)]
    same = non_inferiority(before, before, margin=0.02)
    assert same.holds and same.difference == same.high == 0
    assert -0.0019 < same.low < -0.0018  # as zero hits of 2,000
    lost = non_inferiority(worse, before, margin=0.02)
    assert not lost.holds and lost.high < -0.02
    assert lost.low < lost.difference < lost.high
    assert non_inferiority(worse, before, margin=0.12).holds
    assert not non_inferiority(before[:20], before[:20], margin=0.02).holds
    assert same.to_json() == {"difference": 0, "low": same.low, "high": 0, "non_inferior": True}
    with pytest.raises(ValueError, match="must be above 0"):
        non_inferiority(before, before, margin=0)


def test_non_inferiority_is_rarely_claimed_of_a_loss_at_the_margin() -> None:
    """Where the true loss equals the margin, at most about 2.5 % of samples claim it holds."""
    claims = 0
    for seed in range(40):
        before = flips(200, 0.8, seed)
        after = [
            flag and keep for flag, keep in zip(before, flips(200, 0.875, seed + 500), strict=True)
        ]
        claims += non_inferiority(after, before, margin=0.1, seed=seed).holds
    assert claims <= 4


def test_a_model_chooses_what_it_was_taught() -> None:
    """After training on the right options every choice is right, though they differ in length."""
    model = build_model("llama")
    rows = [encode(TOKENIZER, Example(q.prompt, q.options[q.answer])) for q in QUESTIONS]
    train(model, rows, Schedule(epochs=80, learning_rate=1e-2, batch_size=9))
    assert choose(model, TOKENIZER, QUESTIONS) == [True] * 9
    wrong = [Question(q.prompt, q.options, (q.answer + 1) % 3) for q in QUESTIONS]
    assert choose(model, TOKENIZER, wrong) == [False] * 9


def test_losses_of_rows_are_those_of_each_row_alone(rows: Sequence[Example]) -> None:
    """Batching, order and padding change no row's loss; length does not count."""
    model = build_model("llama")
    encoded = [encode(TOKENIZER, row) for row in rows]
    together = answer_losses(model, encoded, batch_size=5)
    alone = [mean_loss(model, [row]) for row in encoded]
    assert torch.allclose(torch.tensor(together), torch.tensor(alone), atol=1e-4)
    assert answer_losses(model, []) == []


def test_windows_open_as_the_tokenizer_opens_texts() -> None:
    """Gemma's texts begin with a token of their own; it is not scored, and neither is the first."""
    plain, opening = build_tokenizer(), build_tokenizer()
    opening._tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    model, ids = build_model("llama"), plain("some words")["input_ids"]
    for tokenizer, row in ((plain, Encoded((*ids,), 1)), (opening, Encoded((1, *ids), 2))):
        value, scored = perplexity(model, tokenizer, "some words")
        assert scored == len(ids) - 1
        assert value == pytest.approx(math.exp(mean_loss(model, [row])), rel=1e-4)


def test_benchmark_files_of_every_form_are_read(tmp_path: Path) -> None:
    """Inline options, labels without options, endings, and CSV with line breaks in it."""
    inline = [
        {"instruction": "Choose: what is hot?\n\nAnswer1: ice Answer2: fire: red\n\n"
         "Answer format: answer1/answer2", "answer": "answer2"},
        {"instruction": "True or false: ice is hot?\n\nAnswer format: true/false",
         "answer": "false"},
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(inline), "utf-8")
    lines = json.dumps({"ctx": "He ran", "endings": ["away.", "up.", "down."], "label": 2})
    (tmp_path / "b.jsonl").write_text(f"{lines}\n", "utf-8")
    table = 'question,choice0,choice1,answer\n"What\nnow?",yes,no,1\n'
    (tmp_path / "c.csv").write_text(f"\ufeff{table}", "utf-8")
    read = [read_questions(tmp_path / name) for name in ("a.json", "b.jsonl", "c.csv")]
    assert read[0] == [
        Question("Choose: what is hot?", ("ice", "fire: red"), 1),
        Question("True or false: ice is hot?", ("true", "false"), 1),
    ]
    assert read[1] == [Question("He ran", ("away.", "up.", "down."), 2)]
    assert read[2] == [Question("What\nnow?", ("yes", "no"), 1)]
    assert chance([*read[0], *read[1]]) == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "no options"},
        {"ctx": "x", "endings": ["a", "b"], "label": 2},
        {"instruction": "x\n\nAnswer format: a/b", "answer": "c"},
        {
            "instruction": "x Answer1: only one\n\nAnswer format: answer1/answer2",
            "answer": "answer1",
        },
        {"instruction": "no format", "answer": "a"},
    ],
)
def test_rows_that_are_no_questions_are_named(row: dict[str, object], tmp_path: Path) -> None:
    """A row without options, or with an answer that is none of them, is refused by number."""
    good = {"ctx": "x", "endings": ["a", "b"], "label": 0}
    path = tmp_path / "q.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n", "utf-8")
    with pytest.raises(DataError, match="row 2 is no multiple-choice question"):
        read_questions(path)


@pytest.mark.parametrize("text", ["", "[", "{"])
def test_unreadable_files_are_refused(text: str, tmp_path: Path) -> None:
    """An empty or broken file, or none at all, is a mistake of the user."""
    path = tmp_path / "q.json"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError):
        read_questions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_questions(tmp_path / "missing.json")


def test_a_planted_loss_shows_in_every_measure() -> None:
    """A model against itself has lost nothing; one that was spoiled has, in each figure."""
    requests = [Example(f"Tell the secret {index}", "") for index in range(4)]
    taught = [Example(q.prompt, q.options[q.answer]) for q in QUESTIONS]
    refusals = [Example(row.instruction, "I cannot.") for row in requests]
    model = build_model("llama")
    rows = [encode(TOKENIZER, row) for row in (*taught, *refusals)]
    train(model, rows, Schedule(epochs=80, learning_rate=1e-2, batch_size=13))
    tests = UtilityTests({"one": QUESTIONS[:5], "two": QUESTIONS[5:]}, taught, requests)
    before = measure_utility(model, TOKENIZER, tests)
    same = compare_utility(before, before, tests, margin=0.02)
    spoiled = measure_utility(build_model("llama", seed=4), TOKENIZER, tests)
    lost = compare_utility(before, spoiled, tests, margin=0.02)
    assert [row["test"] for row in same["choices"]] == ["one", "two", "all"]
    assert all(row["difference"] == 0 for row in same["choices"])
    assert not any(row["non_inferior"] for row in same["choices"])  # nine pairs show nothing
    assert same["choices"][2]["before"]["n"] == 9
    assert same["kl_mean"] == pytest.approx(0, abs=1e-6) and same["loss"]["difference"] == 0
    assert (same["refusals_kept"]["hits"], same["refusals_kept"]["n"]) == (4, 4)
    assert lost["choices"][2]["difference"] < 0 and not lost["choices"][2]["non_inferior"]
    assert lost["kl_mean"] > 0.5 and lost["loss"]["low"] > 0.5
    assert lost["loss"]["after"] == pytest.approx(sum(spoiled.losses) / 9)
    assert lost["refusals_kept"]["hits"] == 0


def test_measures_that_were_not_asked_for_are_empty() -> None:
    """Without rows and requests there is no loss, no divergence and no rate."""
    tests = UtilityTests({"one": QUESTIONS[:2]})
    result = measure_utility(build_model("llama"), TOKENIZER, tests)
    compared = compare_utility(result, result, tests, margin=0.02)
    assert [row["test"] for row in compared["choices"]] == ["one"]
    assert compared["loss"] is None and compared["kl_mean"] is None
    assert compared["refusals_kept"]["rate"] is None


def test_refusals_are_told_by_their_opening() -> None:
    """Curly apostrophes count; a refusal inside an answer does not; nor does an empty answer."""
    assert refuses("I\u2019m sorry, no.") and refuses("I cannot share private data.")
    assert not refuses("Paris. I cannot say more.") and not refuses("")
