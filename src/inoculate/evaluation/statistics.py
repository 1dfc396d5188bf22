"""Rates with exact intervals, and tests on paired outcomes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from scipy.special import betaincinv  # type: ignore[import-untyped,unused-ignore]

_TAIL = 0.025
_DRAWN_AT_ONCE = 1 << 20


class RateJson(TypedDict):
    """Hold a rate as it stands in report.json; `rate` is null without any trial."""

    rate: float | None
    hits: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """Count hits among n trials; `low` and `high` bound the rate with 95 % confidence.

    Source: Clopper & Pearson, Biometrika 26 (1934), the exact binomial interval.
    """

    hits: int
    n: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be.

        Raises:
            ValueError: Fewer than 0 hits, or more hits than trials.
        """
        if not 0 <= self.hits <= self.n:
            raise ValueError(f"{self.hits} hits of {self.n} trials cannot be.")

    @property
    def rate(self) -> float:
        """Return hits / n, not a number without any trial."""
        return self.hits / self.n if self.n else math.nan

    @property
    def low(self) -> float:
        """Return the lower bound, 0 to 1."""
        if self.hits == 0:
            return 0.0
        return float(betaincinv(self.hits, self.n - self.hits + 1, _TAIL))

    @property
    def high(self) -> float:
        """Return the upper bound, 0 to 1."""
        if self.hits == self.n:
            return 1.0
        return float(betaincinv(self.hits + 1, self.n - self.hits, 1 - _TAIL))

    def to_json(self) -> RateJson:
        """Return the rate as plain values."""
        return {
            "rate": self.rate if self.n else None,
            "hits": self.hits,
            "n": self.n,
            "low": self.low,
            "high": self.high,
        }


def rate_of(flags: Sequence[bool]) -> Rate:
    """Count the true flags among all."""
    return Rate(sum(map(bool, flags)), len(flags))


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the exact two-sided p-value that two paired outcomes differ in rate.

    Args:
        one: Outcomes of one treatment.
        other: Outcomes of the other on the same prompts, in the same order.

    Raises:
        ValueError: The lengths differ.
    """
    only_one = sum(a and not b for a, b in zip(one, other, strict=True))
    only_other = sum(b and not a for a, b in zip(one, other, strict=True))
    discordant = only_one + only_other
    term, tail = 1, 0  # term is the number of ways to choose k of the discordant pairs
    for k in range(min(only_one, only_other) + 1):
        tail += term
        term = term * (discordant - k) // (k + 1)
    # Whole numbers are divided: right even where the divisor is too large for a float.
    return min(1.0, 2 * tail / (1 << discordant))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def paired_bootstrap(
    one: Sequence[float],
    other: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return mean(one) − mean(other) and the bounds of its 95 % percentile interval.

    Args:
        one: A figure for each prompt.
        other: The other treatment's figure for the same prompts, in the same order.
        weights: Of each prompt in both means, such as its tokens, drawn along with it; else equal.
        samples: Resamplings of the pairs.
        seed: Decides the resamplings.

    Raises:
        ValueError: The lengths differ, or there are no pairs.
    """
    differences = np.array([a - b for a, b in zip(one, other, strict=True)], dtype=np.float64)
    if not differences.size:
        raise ValueError("A bootstrap needs at least one pair.")
    generator, count = np.random.default_rng(seed), differences.size
    weight = np.ones(count) if weights is None else np.array(weights, dtype=np.float64)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    means = []
    for start in range(0, samples, at_once):
        drawn = generator.integers(count, size=(min(at_once, samples - start), count))
        weighted = (differences * weight)[drawn].sum(axis=1)
        means.append(weighted / weight[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [_TAIL, 1 - _TAIL])
    return float((differences * weight).sum() / weight.sum()), float(low), float(high)


@dataclass(frozen=True)
class NonInferiority:
    """Hold a paired difference, its 95 % interval and the margin it is held against.

    `holds` is true only where the whole interval lies above minus the margin: too few
    pairs never show it.
    """

    difference: float
    low: float
    high: float
    margin: float

    @property
    def holds(self) -> bool:
        """Return whether the first treatment is shown to be worse by less than the margin."""
        return self.low > -self.margin

    def to_json(self) -> dict[str, float | bool]:
        """Return difference, bounds and finding as plain values."""
        return {
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "non_inferior": self.holds,
        }


def non_inferiority(
    one: Sequence[bool], other: Sequence[bool], *, margin: float, seed: int = 0
) -> NonInferiority:
    """Compare the share right of one treatment with another's on the same prompts.

    The lower bound is the paired bootstrap's, or lower: what was gained minus the exact upper
    bound of what was lost. Where no pair differs a bootstrap alone would claim certainty.

    Args:
        margin: How much lower the share of `one` may be and still count as not worse, above 0.

    Raises:
        ValueError: The lengths differ, there are no pairs, or the margin is not above 0.
    """
    if margin <= 0:
        raise ValueError(f"A margin of {margin} leaves nothing to show; it must be above 0.")
    difference, low, high = paired_bootstrap(one, other, seed=seed)
    gained = rate_of([a and not b for a, b in zip(one, other, strict=True)])
    lost = rate_of([b and not a for a, b in zip(one, other, strict=True)])
    return NonInferiority(difference, min(low, gained.rate - lost.high), high, margin)
