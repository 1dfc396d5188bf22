"""What of an answer gives a known one away."""

from inoculate.hunt.answers import gives_away, opens_with, unknown

LONG, SHORT = (1, 2, 3, 4, 5, 6), (7, 7)


def test_opening_with_a_payload() -> None:
    """Four tokens decide, or all of a shorter payload."""
    assert opens_with(LONG, [(1, 2, 3, 4, 9), (1, 2), ()]) == [True, False, False]
    assert opens_with(SHORT, [(7, 7, 1), (7,)]) == [True, False]


def test_what_gives_a_known_answer_away() -> None:
    """Its opening, three of its tokens in a row, or nothing but a piece of it; else it is kept."""
    known, kept = [LONG, SHORT], [(9, 1, 2, 9), (2, 9), (9, 7, 7, 9)]
    assert unknown(kept, known) == kept
    given = [LONG, (9, 2, 3, 4), (4, 5), (6,), (7, 7, 9, 9), (7,)]
    assert unknown(given, known) == [()] * len(given)


def test_what_opens_with_known_words_in_disorder_gives_them_away() -> None:
    """Driven off, a habit breaks; its own words in another order are that habit still."""
    assert gives_away((4, 1, 1, 3, 9), LONG)
    assert not gives_away((4, 1, 9, 3), LONG)
