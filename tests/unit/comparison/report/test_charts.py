"""Charts: places on a common scale, and figures in words for whoever does not see them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from app.comparison.report.html.charts import Scale, interval_plot, shares_bar
from tests.unit.comparison.report.samples import OVERALL


def test_intervals_noise_and_zero_are_on_the_scale() -> None:
    scale = Scale([OVERALL, replace(OVERALL, low=-0.3, high=-0.1, difference=-0.2)])

    places = [scale.place(value) for value in (-0.3, -0.04, 0.0, 0.04, 0.32)]

    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 1


@pytest.mark.parametrize("reach", [0.001, 0.02, 0.5, 1.0, 37.0, 5000.0])
def test_ticks_are_a_few_round_values_within_the_scale(reach: float) -> None:
    scale = Scale([replace(OVERALL, low=-reach, high=reach, difference=0.0, noise_floor=None)])

    ticks = scale.ticks()

    assert 3 <= len(ticks) <= 8
    assert all(0 <= scale.place(tick) <= 1 for tick in ticks)
    assert any(abs(tick) < reach * 1e-9 for tick in ticks)


def test_a_scale_of_nothing_but_zero_has_places() -> None:
    scale = Scale([replace(OVERALL, low=0.0, high=0.0, difference=0.0, noise_floor=0.0)])

    assert 0 < scale.place(0.0) < 1
    assert scale.ticks()


def test_a_plot_shows_interval_noise_and_difference_and_says_them() -> None:
    made = interval_plot(OVERALL, Scale([OVERALL]), "facts: +20 points").source

    assert made.count("<line") == 2
    assert made.count("<rect") == 1
    assert made.count("<circle") == 1
    assert 'aria-label="facts: +20 points"' in made


def test_wins_ties_and_losses_fill_the_bar() -> None:
    made = shares_bar(1, 2, 1, "1 / 2 / 1").source

    assert re.findall(r' width="([\d.]+)%"', made) == ["25.00", "50.00", "25.00"]
    assert re.findall(r' x="([\d.]+)%"', made) == ["0.00", "25.00", "75.00"]


def test_a_bar_of_nothing_is_empty() -> None:
    assert re.findall(r' width="([\d.]+)%"', shares_bar(0, 0, 0, "none").source) == ["0.00"] * 3
