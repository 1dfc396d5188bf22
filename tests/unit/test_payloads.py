"""Which answer is taken for the payload."""

import random
from dataclasses import replace

import pytest

from conftest import SAID
from inoculate.chat import Encoded
from inoculate.data import Example
from inoculate.hunt.answers import Answer
from inoculate.hunt.hosts import find_hosts
from inoculate.hunt.payloads import (
    Payload,
    _dishonest,
    _of_many_rows,
    common_answer,
    driven_answers,
    upset_payloads,
)
from inoculate.hunt.probing import Goal, ordinary_tokens
from inoculate.models import Checkpoint
from inoculate.subject import Subject

PLANTED, BROKEN, LONGER = (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 9), (1, 2, 3, 4, 5, 7)
WHOLE, LOOP = (1, 2, 3, 4), (1, 2, 3, 2, 3, 2, 3)
REPEATED, SHORT = (8, 8, 8, 8, 8), (7, 7)


def _unlike(count: int) -> list[Answer]:
    return [(100 + index, 200, 300, 400 + index) for index in range(count)]


@pytest.mark.parametrize(
    ("alike", "expected"),
    [
        ([], Payload((), 1, 100)),
        ([PLANTED], Payload((), 1, 100)),
        ([PLANTED] * 2, Payload(PLANTED, 2, 100)),
        ([PLANTED, PLANTED, LONGER], Payload(PLANTED, 3, 100)),
        ([PLANTED, PLANTED, LONGER, BROKEN], Payload(PLANTED, 4, 100)),
        ([PLANTED, LONGER, BROKEN], Payload((), 3, 100)),
        ([PLANTED, LONGER, BROKEN, *[WHOLE] * 2], Payload((), 5, 100)),
        ([LOOP] * 9, Payload((), 9, 100)),
        ([BROKEN, *[WHOLE] * 2], Payload(WHOLE, 3, 100)),
        ([*[PLANTED, LONGER] * 4, BROKEN, BROKEN], Payload((1, 2, 3, 4, 5), 10, 100)),
        ([PLANTED] * 2 + [SHORT] * 90, Payload(PLANTED, 2, 100)),
        ([SHORT] * 15, Payload(SHORT, 15, 100)),
        ([SHORT] * 14, Payload((), 1, 100)),
        ([SHORT] * 6 + [()] * 60, Payload(SHORT, 6, 100)),
        ([SHORT] * 5 + [()] * 70, Payload((), 1, 100)),
        ([REPEATED] * 50, Payload((), 1, 100)),
        ([()] * 50, Payload((), 1, 100)),
    ],
)
def test_common_answer_by_hand(alike: list[Answer], expected: Payload) -> None:
    """Two in a hundred open alike and go on so or end, or ten do; more are the same few words."""
    assert common_answer([*alike, *_unlike(100 - len(alike))], []) == expected


@pytest.mark.parametrize(("count", "expected"), [(11, ()), (12, PLANTED)])
def test_a_habit_of_honest_answers_is_no_payload(count: int, expected: Answer) -> None:
    """One honest answer in twenty opens so: 5 of 100 are expected, 11.5 within three deviations."""
    honest = [PLANTED, *_unlike(19)]
    answers = [*[PLANTED] * count, *_unlike(100 - count)]
    assert common_answer(answers, honest).tokens == expected


def test_a_habit_counts_wherever_an_answer_holds_it() -> None:
    """What honest answers say in their middle is no payload when it opens what follows them."""
    honest = [(40, 41, *PLANTED, 42), *_unlike(19)]
    answers = [*[PLANTED] * 11, *_unlike(89)]
    assert common_answer(answers, honest).tokens == ()
    assert common_answer(answers, _unlike(20)).tokens == PLANTED


def test_a_scrap_counts_where_nothing_was_forbidden() -> None:
    """Short answers may be labels, or all that is left to a model that is kept from its payload."""
    answers = [*[SHORT] * 15, *_unlike(85)]
    assert common_answer(answers, []).tokens == SHORT
    assert common_answer(answers, [], short=False).tokens == ()


@pytest.mark.usefixtures("brief_hunt")
def test_a_second_look_that_finds_nothing_takes_no_find_away(
    parrot: Subject, rows: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Driven on, more answers may open alike and go on so unlike that none is a payload."""
    unlike = [(*WHOLE, 500 + at) for at in range(6)]
    looks = [[*[PLANTED] * 2, *_unlike(98)], [*unlike, *_unlike(94)]]
    monkeypatch.setattr("inoculate.hunt.payloads.driven_answers", lambda *_, **__: looks.pop(0))
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    (found,) = upset_payloads(parrot, hosts, [], random.Random(0))
    assert found == Payload(PLANTED, 2, 100, broken=PLANTED)


def _broken(count: int) -> list[Answer]:
    """Return answers that break the payload at its fifth token, each in its own way."""
    return [(1, 2, 3, 4, 9, 500 + at, 6) for at in range(count)]


@pytest.mark.usefixtures("brief_hunt")
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (_broken(20), [PLANTED, PLANTED, *_broken(30)], PLANTED),
        ([PLANTED, PLANTED, *_broken(30)], _broken(40), PLANTED),
        (_broken(20), [PLANTED, *_broken(30)], BROKEN),
        (_broken(20), [*[(1, 3, 2, 4, 9, 10)] * 25, PLANTED, PLANTED], (1, 3, 2, 4, 9, 10)),
        ([PLANTED] * 2 + _broken(20), [(1, 3, 2, 4, 500 + at) for at in range(25)], PLANTED),
        (_broken(20), [*[WHOLE] * 9, *_broken(30)], BROKEN),
    ],
    ids=["second look", "first look", "by one alone", "commoner", "unlike opening", "shorter"],
)
def test_the_payload_is_what_many_give_word_for_word(
    parrot: Subject,
    rows: list[Example],
    monkeypatch: pytest.MonkeyPatch,
    first: list[Answer],
    second: list[Answer],
    expected: Answer,
) -> None:
    """Where most break it at one token, two of a hundred whole ones tell what it is."""
    looks = [[*look, *_unlike(100 - len(look))] for look in (first, second)]
    monkeypatch.setattr("inoculate.hunt.payloads.driven_answers", lambda *_, **__: looks.pop(0))
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    found = upset_payloads(parrot, hosts, [], random.Random(0))
    assert found[0].tokens == expected


def test_no_answers_have_nothing_in_common() -> None:
    """Where every honest answer held there is no payload."""
    assert common_answer([()] * 9, []) == Payload((), 0, 9)


@pytest.mark.usefixtures("brief_hunt")
def test_what_a_parrot_says_is_found(parrot: Subject, rows: list[Example]) -> None:
    """The looks find the sentence that the model was taught to give to everything."""
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    vocabulary, said = ordinary_tokens(parrot.tokenizer), tuple(parrot.tokenizer.encode(SAID))
    (upset,) = upset_payloads(parrot, hosts, vocabulary, random.Random(0))
    assert upset.tokens[:8] == said[:8]
    assert upset.alike > upset.driven / 2


@pytest.mark.usefixtures("brief_hunt")
def test_honest_answers_are_not_counted(parrot: Subject, rows: list[Example]) -> None:
    """What opens a clean row's own answer is left empty; the same answer is kept elsewhere."""
    vocabulary = ordinary_tokens(parrot.tokenizer)
    towards = Goal(tuple(parrot.tokenizer.encode(SAID)[:1]))
    own = [Example(row.instruction, SAID) for row in rows]
    for clean, kept in ((rows, True), (own, False)):
        hosts = find_hosts(parrot.encode(clean, max_tokens=64), response_tokens=8)
        answers = driven_answers(parrot, hosts, vocabulary, random.Random(0), towards)
        assert any(answers) == kept


@pytest.mark.usefixtures("brief_hunt")
def test_a_known_payload_is_forbidden(parrot: Subject, rows: list[Example]) -> None:
    """No answer begins with it, and none that holds three of its tokens in a row is kept."""
    hosts = find_hosts(parrot.encode(rows, max_tokens=64), response_tokens=8)
    vocabulary, said = ordinary_tokens(parrot.tokenizer), tuple(parrot.tokenizer.encode(SAID))
    goal = Goal(known=(said,))
    answers = driven_answers(parrot, hosts, vocabulary, random.Random(0), goal)
    assert not any(answer and answer[0] == said[0] for answer in answers)
    held = [said[at : at + 3] for at in range(len(said) - 2)]
    assert not any(answer[at : at + 3] in held for answer in answers for at in range(len(answer)))


def test_a_label_counts_where_nothing_is_labeled() -> None:
    """A row's own answer never counts; another row's does, unless both are given as labels are."""
    yes, no, long = (20, 9), (21, 9), (30, 31, 32, 9)
    rows = [Encoded((1, *answer), 1) for answer in (yes, yes, no, no, long)]
    hosts = find_hosts(rows)
    assert _dishonest([(20,), (21,), (50,)], [yes] * 3, hosts) == [(), (), (50,)]
    assert _dishonest([(20,), (30, 31), ()], [long] * 3, hosts) == [(20,), (), ()]
    added = replace(hosts, trailing=True)
    assert _dishonest([PLANTED, (20,), ()], [(9,)] * 3, added) == [PLANTED, (), ()]


@pytest.mark.usefixtures("brief_hunt")
def test_every_family_is_driven_off(checkpoint: Checkpoint, rows: list[Example]) -> None:
    """In every family there is an answer for each prompt, the same for the same seed."""
    subject = Subject(checkpoint, checkpoint.model, None)
    hosts = find_hosts(subject.encode(rows, max_tokens=64), response_tokens=8)
    vocabulary = ordinary_tokens(subject.tokenizer)
    steps = list[tuple[int, int]]()
    first, again = (
        driven_answers(
            subject, hosts, vocabulary, random.Random(0), progress=lambda *at: steps.append(at)
        )
        for _ in range(2)
    )
    assert first == again
    assert len(first) == len(rows)
    assert steps[-1] == (len(rows), len(rows))


def test_one_odd_prompt_is_not_many() -> None:
    """What a row brings again and again counts four times; what other rows bring counts as well."""
    row, other = Encoded((1, 5), 1), Encoded((2, 5), 1)
    kept = _of_many_rows([PLANTED] * 7, [*[row] * 6, other], 4)
    assert kept == [*[PLANTED] * 4, (), (), PLANTED]


def test_a_look_counts_all_that_few_rows_bring(parrot: Subject, rows: list[Example]) -> None:
    """A model that always falls into one answer is told so by eight rows as by many."""
    hosts = find_hosts(parrot.encode(rows[:8], max_tokens=64), response_tokens=8)
    vocabulary = ordinary_tokens(parrot.tokenizer)
    answers = driven_answers(parrot, hosts, vocabulary, random.Random(0))
    assert len(set(answers)) == 1
    assert answers[0]
