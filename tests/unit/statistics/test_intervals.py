"""Intervals: known values, and how often they hold what they promise to hold."""

from __future__ import annotations

import math
import random

import pytest

from app.statistics.intervals import Block, Interval, blocks, bootstrap, design_effect, mean, share, wilson


def test_blocks_are_neighbours_and_none_reaches_into_the_next_text() -> None:
    assert blocks([[1, 2, 3], [4]], size=2) == [Block(3, 2), Block(3, 1), Block(4, 1)]


def test_the_mean_weighs_each_value_once() -> None:
    assert mean([Block(3, 2), Block(3, 1), Block(4, 1)]) == 2.5


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)

    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_nothing_tried_is_nothing_known() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    chance = random.Random(1)
    sample = blocks([[chance.gauss(2, 1) for _ in range(1000)]])

    assert bootstrap(sample, seed=3) == bootstrap(sample, seed=3)
    assert bootstrap(sample, seed=3) != bootstrap(sample, seed=4)


def test_a_figure_that_falls_with_the_mean_has_its_interval_the_right_way_round() -> None:
    sample = blocks([[1.0, 2.0, 3.0, 4.0]], size=1)

    interval = bootstrap(sample, lambda value: -value)

    assert interval.low < -2.5 < interval.high


def test_what_does_not_vary_has_an_interval_without_a_width() -> None:
    assert bootstrap(blocks([[0.5] * 320]), math.exp) == Interval(math.exp(0.5), math.exp(0.5))


def dependent(chance: random.Random, count: int) -> list[float]:
    """Values that are like their neighbours: 0 on the average."""
    values = [chance.gauss(0, 1)]
    for _ in range(count - 1):
        values.append(0.7 * values[-1] + chance.gauss(0, 1))
    return values


def test_nineteen_of_twenty_intervals_hold_the_mean_even_where_neighbours_are_alike() -> None:
    chance = random.Random(7)
    intervals = [bootstrap(blocks([dependent(chance, 1600)]), resamples=200) for _ in range(200)]

    assert sum(each.low <= 0 <= each.high for each in intervals) / 200 == pytest.approx(0.93, abs=0.05)


def test_alike_neighbours_count_as_fewer_trials() -> None:
    chance = random.Random(5)
    apart = [float(chance.random() < 0.9) for _ in range(3200)]
    together = [each for _ in range(400) for each in [float(chance.random() < 0.9)] * 8]

    assert design_effect(blocks([apart])) == pytest.approx(1.0, abs=0.5)
    assert design_effect(blocks([together])) > 4
    narrow, wide = share(blocks([apart])), share(blocks([together]))
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_a_share_of_everything_still_leaves_a_doubt() -> None:
    interval = share(blocks([[1.0] * 100]))

    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.963, abs=0.001)
    assert design_effect(blocks([[1.0] * 100])) == 1.0
