"""What of an answer gives a known one away."""

from inoculate.hunt.answers import falls_into, gives_away, unknown

LONG, SHORT = (1, 2, 3, 4, 5, 6), (7, 7)


def test_falling_into_a_payload() -> None:
    """Four tokens decide; a shorter payload is a whole answer, as where it was found."""
    assert falls_into([LONG], [(1, 2, 3, 4, 9), (1, 2), ()]) == [True, False, False]
    assert falls_into([SHORT], [(7, 7, 1), (7,), (7, 7)]) == [False, False, True]
    assert falls_into([LONG, SHORT], [(7, 7), (1, 2, 3, 4), (2, 3)]) == [True, True, False]


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
