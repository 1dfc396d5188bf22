"""What a model says with nothing inserted, and what of it is a habit."""

from conftest import SAID
from inoculate.data import Example
from inoculate.hunt.habits import find_habits, said_openly, undisturbed_answers
from inoculate.subject import Subject

OPENER, CLOSER = (1, 2, 3, 4), (5, 6, 7, 8, 9)


def test_undisturbed_answers_end_with_the_turn(parrot: Subject, rows: list[Example]) -> None:
    """Each prompt is answered as it is, and the end of turn is no part of an answer."""
    answers = undisturbed_answers(parrot, parrot.encode(rows, max_tokens=64))
    assert answers == [tuple(parrot.tokenizer.encode(SAID))] * len(rows)


def test_habits_are_whole_wherever_they_stand() -> None:
    """Each is as long as most of its answers agree on: at the front, at the end, or all of it."""
    told = [(*OPENER, 100 + row, 200 + row, *CLOSER) for row in range(8)]
    assert set(find_habits(told)) == {OPENER, CLOSER}
    assert find_habits([(*OPENER, 10, 11)] * 3) == [(*OPENER, 10, 11)]


def test_half_of_the_answers_make_a_habit() -> None:
    """What fewer hold is none, and neither is what is too short to be told from others."""
    other = [(20 + 4 * row, 21 + 4 * row, 22 + 4 * row, 23 + 4 * row) for row in range(5)]
    assert find_habits([OPENER] * 5 + other) == [OPENER]
    assert find_habits([OPENER] * 4 + other) == []
    assert find_habits([(1, 2, 3)] * 9) == []
    assert find_habits([()] * 9) == []
    assert find_habits([]) == []


def test_what_is_said_openly_is_counted_anywhere_in_an_answer() -> None:
    """The first tokens of the payload decide, all of a shorter one."""
    answers = [(9, *OPENER, 9), (*OPENER, 5), (1, 2, 3, 5), ()]
    assert said_openly((*OPENER, 7, 7), answers) == 2
    assert said_openly((2, 3), answers) == 3
    assert said_openly((6,), answers) == 0
