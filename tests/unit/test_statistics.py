"""Rates, intervals and tests give the values known from the literature and from scipy."""

import json
import math
import random

import pytest
from scipy.stats import beta, binomtest  # type: ignore[import-untyped,unused-ignore]

from inoculate.evaluation.statistics import Rate, holm, mcnemar, paired_bootstrap, rate_of


def test_zero_of_200_still_means_up_to_1_8_percent() -> None:
    """No hit among 200 does not prove a rate of zero."""
    rate = Rate(0, 200)
    assert rate.rate == 0
    assert rate.low == 0
    assert rate.high == pytest.approx(0.018275, abs=1e-5)


@pytest.mark.parametrize(("hits", "n"), [(1, 1), (3, 40), (20, 40), (200, 200), (199, 2000)])
def test_interval_is_clopper_pearson(hits: int, n: int) -> None:
    """The bounds are the quantiles of the beta distribution that the definition names."""
    rate = Rate(hits, n)
    assert rate.low == pytest.approx(beta.ppf(0.025, hits, n - hits + 1), abs=1e-9)
    expected = 1.0 if hits == n else beta.ppf(0.975, hits + 1, n - hits)
    assert rate.high == pytest.approx(expected, abs=1e-9)
    assert rate.low < rate.rate <= rate.high


def test_no_trials_say_nothing() -> None:
    """Without trials the rate is not a number, its interval is everything, its JSON null."""
    rate = rate_of([])
    assert math.isnan(rate.rate)
    assert (rate.low, rate.high) == (0, 1)
    assert json.loads(json.dumps(rate.to_json(), allow_nan=False))["rate"] is None


def test_rate_of_counts_the_true_flags() -> None:
    """A rate is the share of true flags, and its JSON holds what it was counted from."""
    assert rate_of([True, False, True, False]) == Rate(2, 4)
    assert Rate(2, 4).to_json().keys() == {"rate", "hits", "n", "low", "high"}


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    """A rate outside 0 to 1 cannot be made."""
    with pytest.raises(ValueError, match="cannot be"):
        Rate(hits, n)


def test_eight_to_zero_is_significant() -> None:
    """Eight discordant pairs on one side give p = 0.0078; agreement changes nothing."""
    one, other = [True] * 8 + [True, False] * 5, [False] * 8 + [True, False] * 5
    assert mcnemar(one, other) == pytest.approx(0.0078125)
    assert mcnemar(other, one) == mcnemar(one, other)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    """The p-value equals the two-sided binomial test of the discordant pairs."""
    generator = random.Random(0)
    one = [generator.random() < 0.4 for _ in range(200)]
    other = [generator.random() < 0.3 for _ in range(200)]
    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    expected = binomtest(only_one, only_one + only_other).pvalue
    assert mcnemar(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("n", [0, 5, 5000])
def test_equal_outcomes_do_not_differ(n: int) -> None:
    """Without a discordant pair p is 1, and as many on both sides give 1 as well."""
    assert mcnemar([True] * n, [True] * n) == 1
    assert mcnemar([True] * n + [False] * n, [False] * n + [True] * n) == 1


def test_unpaired_outcomes_are_refused() -> None:
    """Outcomes of different lengths were not measured on the same prompts."""
    with pytest.raises(ValueError, match=r"shorter|longer"):
        mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="at least one pair"):
        paired_bootstrap([], [])


def test_holm_gives_the_textbook_values_in_the_given_order() -> None:
    """Corrected values never fall with the rank, and never exceed 1."""
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_bootstrap_brackets_the_difference_and_repeats() -> None:
    """The interval holds the mean difference, is the same again, and is a point for a shift."""
    generator = random.Random(0)
    one = [generator.gauss(1, 1) for _ in range(300)]
    other = [generator.gauss(0, 1) for _ in range(300)]
    difference, low, high = paired_bootstrap(one, other, samples=500)
    assert low < difference < high
    assert low > 0.5
    assert paired_bootstrap(one, other, samples=500) == (difference, low, high)
    shifted = [value - 0.25 for value in one]
    assert paired_bootstrap(one, shifted, samples=50) == pytest.approx((0.25, 0.25, 0.25))


def test_rows_may_weigh_by_their_tokens() -> None:
    """The difference of two token means is bounded as such, and not as that of the rows' means."""
    one, other, tokens = [1.0, 3.0] * 40, [2.0, 2.0] * 40, [90, 10] * 40
    difference, low, high = paired_bootstrap(one, other, weights=tokens)
    assert difference == pytest.approx(-0.8)
    assert low < difference < high < 0
    assert paired_bootstrap(one, other)[0] == pytest.approx(0.0)
    assert paired_bootstrap(one, other, weights=[7] * 80) == pytest.approx(
        paired_bootstrap(one, other)
    )
