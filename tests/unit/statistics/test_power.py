"""What so many questions can show, held against what they show when it is tried."""

from __future__ import annotations

import random

import pytest

from app.statistics.paired import mcnemar, paired_interval
from app.statistics.power import detectable_mean, detectable_share, mcnemar_power


@pytest.mark.parametrize(("questions", "discordant"), [(50, 0.2), (200, 0.5)])
def test_the_power_is_how_often_the_test_finds_it(questions: int, discordant: float) -> None:
    chance, seen = random.Random(7), 0
    for _ in range(1000):
        drawn = [chance.random() for _ in range(questions)]
        better = sum(1 for value in drawn if value < (discordant + 0.15) / 2)
        worse = sum(1 for value in drawn if value > 1 - (discordant - 0.15) / 2)
        seen += better > worse and mcnemar(better, worse) < 0.05

    assert mcnemar_power(questions, 0.15, discordant) == pytest.approx(seen / 1000, abs=0.04)


def test_more_questions_show_more() -> None:
    assert mcnemar_power(50, 0.15, 0.3) < mcnemar_power(200, 0.15, 0.3) < mcnemar_power(5000, 0.15, 0.3) <= 1.0


def test_without_disagreement_nothing_is_found() -> None:
    assert mcnemar_power(50, 0.0, 0.0) == 0.0


def test_a_difference_larger_than_the_disagreement_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.3 is not between 0 and the discordant share, 0\.2"):
        mcnemar_power(50, 0.3, 0.2)


def test_the_smallest_detectable_share_has_a_power_of_80_percent() -> None:
    differences = [1.0] * 10 + [-1.0] * 10 + [0.0] * 80

    smallest = detectable_share(differences)

    assert smallest is not None
    assert mcnemar_power(100, smallest, max(0.2, smallest)) >= 0.8
    assert mcnemar_power(100, smallest - 0.01, 0.2) < 0.8


def test_questions_without_any_disagreement_can_still_show_only_so_much() -> None:
    assert detectable_share([0.0] * 50) == pytest.approx(0.154, abs=0.002)


def test_five_questions_show_nothing() -> None:
    assert detectable_share([1.0, 0.0, 0.0, 0.0, -1.0]) is None
    assert detectable_share([]) is None


def test_the_smallest_detectable_mean_is_found_in_80_percent_of_samples() -> None:
    chance = random.Random(9)
    smallest = detectable_mean([chance.gauss(0, 3) for _ in range(5000)])
    assert smallest is not None
    size = smallest * (5000 / 60) ** 0.5

    found_it = 0
    for seed in range(200):
        interval = paired_interval([chance.gauss(size, 3) for _ in range(60)], seed=seed, resamples=1000)
        found_it += interval.low > 0

    assert found_it / 200 == pytest.approx(0.8, abs=0.08)


def test_values_without_a_spread_do_not_tell_what_they_could_show() -> None:
    assert detectable_mean([0.0, 0.0, 0.0]) is None
    assert detectable_mean([1.0]) is None
