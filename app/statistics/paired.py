"""Two models on the same questions: the interval of the paired difference, and tests of "there is none".

What the questions have in common (one is hard for both) falls out of a paired difference; a test that takes the two
samples for independent ones throws that away. All drawing is seeded: the same values and seed give the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from app.statistics.intervals import CONFIDENCE, Interval

RESAMPLES = 10_000
_FEW = 14  # values whose signs are all tried out instead of drawn: 2 ** 14 ways
_AT_ONCE = 4_000_000  # numbers drawn at once, so that memory is bounded


def paired_interval(
    differences: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """The interval of the mean difference, one value for each question: percentile bootstrap over questions, widened as
    Hesterberg (2015, "What teachers should know about the bootstrap") says, since the plain one is too narrow for small
    samples. At least two values.
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count < 2:
        raise ValueError(f"an interval needs 2 differences, there are {count}")
    reach = math.sqrt(count / (count - 1)) * student_quantile((1 + confidence) / 2, count - 1)
    tail = NormalDist().cdf(-reach)
    low, high = np.quantile(_drawn_means(values, np.random.default_rng(seed), resamples), [tail, 1 - tail])
    return Interval(float(low), float(high))


def mcnemar(better: int, worse: int) -> float:
    """McNemar's exact test: how likely at least such an imbalance is among questions that only one of two models has
    right (`better`: only the second), if neither is right more often. Two-sided. 1 where there are none.
    """
    return _binomial_p(better, worse)


def sign_test(wins: int, losses: int) -> float:
    """The same for votes; ties say nothing."""
    return _binomial_p(wins, losses)


def sign_flip(differences: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """The permutation test of paired values: how likely a mean at least so far from 0 is, if each difference could as
    well have had the other sign. Two-sided; exact for up to 14 differences that are not 0, drawn for more.
    """
    values = np.abs(np.asarray([value for value in differences if value], dtype=float))
    if not len(values):
        return 1.0
    # What differs by rounding only is as far from 0.
    least = abs(math.fsum(differences)) * (1 - 1e-9)
    if len(values) <= _FEW:
        ways = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float(np.mean(np.abs((2 * ways - 1) @ values) >= least))
    extreme = int(np.count_nonzero(np.abs(_flipped_sums(values, np.random.default_rng(seed), resamples)) >= least))
    return (extreme + 1) / (resamples + 1)


def student_quantile(share: float, freedom: int) -> float:
    """Student's t: below which value a `share` of it lies. Exact for 1 and 2 degrees of freedom; from there
    Cornish and Fisher's series (Abramowitz & Stegun 26.7.5), within 0.5 % for 3 and better for more.
    """
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) / math.sqrt(2 * share * (1 - share))
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def _drawn_means(values: NDArray[np.float64], chance: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """The means of `resamples` samples, drawn with replacement."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 4 <= len(values):
        return chance.multinomial(len(values), counts / len(values), resamples) @ distinct / len(values)
    at_once = max(1, _AT_ONCE // len(values))
    sizes = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    return np.concatenate([values[chance.integers(0, len(values), (size, len(values)))].mean(axis=1) for size in sizes])


def _flipped_sums(values: NDArray[np.float64], chance: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """The sums of the values with `resamples` times other signs."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 4 <= len(values):
        return (2 * chance.binomial(counts, 0.5, (resamples, len(counts))) - counts) @ distinct
    at_once = max(1, _AT_ONCE // len(values))
    sizes = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    return np.concatenate([(2.0 * chance.integers(0, 2, (size, len(values))) - 1) @ values for size in sizes])


def _binomial_p(one: int, other: int) -> float:
    """Two-sided exact binomial test of "both are as likely"."""
    trials, fewer = one + other, min(one, other)
    ways = term = 1
    for successes in range(fewer):
        term = term * (trials - successes) // (successes + 1)
        ways += term
    return min(1.0, 2 * ways / (1 << trials))
