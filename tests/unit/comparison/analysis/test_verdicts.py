"""How often a verdict is false, and how often a true difference is found: resampled runs of a real model's answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from statistics import fmean

import pytest

from app.comparison.analysis.contrasts import Rivals, contrast, judged
from app.comparison.analysis.findings import Contrast
from app.comparison.analysis.noise import noise_floor
from app.comparison.scores.measures import MEASURES
from app.statistics.power import mcnemar_power
from tests.unit.comparison.analysis.recorded import Asked, Round, recorded, resampled

MEASURE = MEASURES["contains"]


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return recorded()


def overall(run: Round, seed: int) -> Contrast:
    """The contrast over all questions."""
    return judged([_row(run, None, seed)], MEASURES)[0]


def by_category(run: Round, seed: int) -> tuple[Contrast, ...]:
    """The contrasts of the categories, p values corrected for both."""
    return judged([_row(run, name, seed) for name in sorted(set(run.categories.values()))], MEASURES)


def _row(run: Round, category: str | None, seed: int) -> Contrast:
    def within(scores: Mapping[str, float]) -> dict[str, float]:
        return {key: value for key, value in scores.items() if category in (None, run.categories[key])}

    base, tuned = [within(each) for each in run.base], [within(each) for each in run.tuned]
    floors = [noise_floor("base", "contains", base, seed=seed), noise_floor("tuned", "contains", tuned, seed=seed)]
    rivals = Rivals("base", "tuned", base[0], tuned[0], [floor for floor in floors if floor is not None])
    return contrast(rivals, MEASURE, category=category, seed=seed, resamples=1000)


def runs(asked: list[Asked], count: int, times: int, planted: float = 0.0) -> Iterator[tuple[int, Round]]:
    chance = random.Random(count)
    for seed in range(times):
        yield seed, resampled(asked, count, chance, planted=planted)


def test_the_recorded_model_is_neither_always_right_nor_always_the_same(asked: list[Asked]) -> None:
    assert len(asked) == 80
    assert 0.3 < fmean(value for question in asked for value in question.right) < 0.6
    assert sum(1 for question in asked if 0 < sum(question.right) < 8) > 60


def test_a_model_against_itself_gets_a_verdict_in_at_most_5_percent_of_runs(asked: list[Asked]) -> None:
    """Neither over all questions nor in any category; and its noise floor is not 0."""
    false = 0
    for seed, run in runs(asked, 80, 200):
        whole = overall(run, seed)
        assert whole.noise_floor is not None
        assert whole.noise_floor > 0.05
        false += any(each.outcome != "no_difference" for each in (whole, *by_category(run, seed)))

    assert false / 200 <= 0.05


@pytest.mark.parametrize(("count", "least"), [(200, 0.8), (50, 0.15)])
def test_15_points_are_found_as_often_as_the_stated_power_says(asked: list[Asked], count: int, least: float) -> None:
    open_to_gain = [question for question in asked if sum(question.right)]
    wrong = 1 - fmean(value for question in open_to_gain for value in question.right)
    seen, apart = 0, []
    for seed, run in runs(open_to_gain, count, 100, planted=0.15 / wrong):
        whole = overall(run, seed)
        seen += whole.outcome == "better"
        apart.append((whole.wins + whole.losses) / whole.questions)

    assert seen / 100 >= least
    assert seen / 100 == pytest.approx(mcnemar_power(count, 0.15, fmean(apart)), abs=0.12)
