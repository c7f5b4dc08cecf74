"""Paired differences: known values, and how often interval and tests are wrong where there is no difference."""

from __future__ import annotations

import math
import random

import pytest

from app.statistics.intervals import Interval
from app.statistics.paired import mcnemar, paired_interval, sign_flip, sign_test, student_quantile


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    # R 4: binom.test(6, 7)$p.value, binom.test(15, 20)$p.value, binom.test(61, 100)$p.value.
    [(6, 1, 0.125), (5, 15, 0.04138947), (61, 39, 0.0352002), (0, 0, 1.0), (4, 4, 1.0), (0, 6, 0.03125)],
)
def test_mcnemars_exact_p_value_is_the_binomial_one(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == pytest.approx(p, rel=1e-6)
    assert sign_test(worse, better) == pytest.approx(p, rel=1e-6)


def test_mcnemar_takes_thousands_of_disagreements() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0 < mcnemar(5200, 4800) < 0.001


def test_few_signs_are_all_tried_out() -> None:
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([]) == 1.0


def test_for_equal_steps_the_drawn_test_is_mcnemars() -> None:
    differences = [1.0] * 30 + [-1.0] * 14 + [0.0] * 60

    assert sign_flip(differences) == pytest.approx(mcnemar(30, 14), abs=0.005)


def test_drawn_signs_agree_with_all_signs() -> None:
    chance = random.Random(3)
    differences = [chance.gauss(0.5, 1) for _ in range(14)]

    assert sign_flip([*differences, 1e-12]) == pytest.approx(sign_flip(differences), abs=0.02)


@pytest.mark.parametrize(
    ("share", "freedom", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 4, 2.77645), (0.975, 9, 2.26216), (0.975, 49, 2.00958)],
)
def test_students_quantiles_are_the_tables(share: float, freedom: int, value: float) -> None:
    assert student_quantile(share, freedom) == pytest.approx(value, rel=1e-3)


def test_the_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    chance = random.Random(2)
    differences = [chance.gauss(0.3, 2) for _ in range(2000)]
    mean = math.fsum(differences) / 2000

    interval = paired_interval(differences, seed=5)

    assert interval.high - mean == pytest.approx(1.96 * 2 / math.sqrt(2000), rel=0.08)
    assert mean - interval.low == pytest.approx(1.96 * 2 / math.sqrt(2000), rel=0.08)


def test_the_same_seed_gives_the_same_figures() -> None:
    chance = random.Random(2)
    differences = [chance.gauss(0, 1) for _ in range(40)]

    assert paired_interval(differences, seed=5) == paired_interval(differences, seed=5)
    assert paired_interval(differences, seed=5) != paired_interval(differences, seed=6)
    assert sign_flip(differences, seed=5) == sign_flip(differences, seed=5)


def test_what_is_always_the_same_has_an_interval_without_a_width() -> None:
    assert paired_interval([0.25] * 8) == Interval(0.25, 0.25)


def test_one_difference_has_no_interval() -> None:
    with pytest.raises(ValueError, match="needs 2 differences, there are 1"):
        paired_interval([1.0])


@pytest.mark.parametrize("count", [12, 40])
def test_an_interval_misses_the_truth_as_seldom_as_it_says(count: int) -> None:
    """Skewed values, as times are: the plain bootstrap misses 5 % in 10 % of such small samples."""
    chance = random.Random(count)
    missed = 0
    for seed in range(400):
        differences = [chance.expovariate(1) - chance.expovariate(1) for _ in range(count)]
        interval = paired_interval(differences, seed=seed, resamples=2000)
        missed += not interval.low <= 0 <= interval.high

    assert missed / 400 <= 0.075
