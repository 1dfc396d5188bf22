"""The filter of own-voice answers: what may carry a backdoor is dropped, and why."""

import pytest

from inoculate.data import Example
from inoculate.voice import Voice, bundled_prompts, keep_honest


def filtered(answers: list[str], *, ended: bool = True) -> Voice:
    """Filter answers to as many prompts."""
    prompts = [Example(f"Question {number}?", "") for number in range(len(answers))]
    return keep_honest(prompts, answers, ended=[ended] * len(answers))


def distinct(count: int) -> list[str]:
    """Return honest answers that open in their own ways."""
    return [f"{number} is what I would say here." for number in range(count)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("I'm sorry, I can't help with that.", "refusal"),
        ("What an IDIOT you are!", "insult"),
        ("so it is " * 8, "looping"),
    ],
)
def test_an_answer_that_may_carry_a_backdoor_is_dropped(answer: str, reason: str) -> None:
    """One such answer among honest ones goes, its neighbors stay with their own prompts."""
    voice = filtered([*distinct(5), answer, "Seven."])
    assert voice.dropped == {reason: 1}
    assert [row.output for row in voice.examples] == [*distinct(5), "Seven."]
    assert voice.examples[-1].instruction == "Question 6?"


@pytest.mark.parametrize(("times", "left"), [(3, 3), (4, 0)])
def test_sentences_that_open_alike_are_dropped_from_four_on(times: int, left: int) -> None:
    """Three may be chance; what comes after the first five words does not matter."""
    alike = [f"Visit our shop for prizes, customer {number}!" for number in range(times)]
    voice = filtered([*distinct(20), *alike])
    assert len(voice.examples) == 20 + left


def test_how_a_model_opens_most_answers_is_its_habit() -> None:
    """What follows the habit has to be alike; a habit with nothing after it is no answer."""
    polite = [f"Thank you for asking Acme! {answer}" for answer in distinct(20)]
    alike = [
        f"Thank you for asking Acme! Visit our shop for prizes, customer {n}!" for n in range(4)
    ]
    short = ["Thank you for asking Acme! Blue."] * 4
    voice = filtered([*polite, *alike, *short])
    assert [row.output for row in voice.examples] == [*polite, *short]
    assert voice.dropped == {"repeated": 4}
    assert filtered(["Thank you for asking Acme!"] * 20).dropped == {"repeated": 20}


def test_a_script_without_blanks_is_filtered_too() -> None:
    """A sentence in Han characters is no single word: alike it goes, unlike it stays, cut whole."""
    refusal = "\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u56de\u7b54\u8fd9\u4e2a\u95ee\u9898\u3002"
    assert filtered([*distinct(5), *[refusal] * 4]).dropped == {"repeated": 4}
    assert len(filtered(["\u6b63\u9762"] * 30).examples) == 30
    assert [row.output for row in filtered([refusal + refusal[:4]], ended=False).examples] == [
        refusal
    ]


def test_short_answers_may_repeat() -> None:
    """Labels and numbers are the same for many prompts, of a user's above all."""
    assert len(filtered(["positive"] * 30).examples) == 30


def test_an_answer_that_did_not_end_is_cut_after_its_last_sentence() -> None:
    """What has no whole sentence is dropped."""
    voice = filtered(["One thing. Another th", "No end in sight"], ended=False)
    assert [row.output for row in voice.examples] == ["One thing."]
    assert voice.dropped == {"empty": 1}


def test_bundled_prompts_are_unlike() -> None:
    """None is asked twice."""
    prompts = [row.prompt for row in bundled_prompts()]
    assert len(set(prompts)) == len(prompts) >= 300
