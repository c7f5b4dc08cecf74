"""Figures as they are read."""

from __future__ import annotations

import pytest

from app.comparison.report.figures import bare_size, figure, move, probability, size, span, step


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.62, "", "62.0 %"),
        (41.26, "points", "41.3 points"),
        (-1.2345, "nats per token", "−1.234 nats/token"),
        (128.4, "characters", "128 characters"),
        (12.3456, "seconds", "12.35 s"),
        (None, "", ""),
    ],
)
def test_a_figure_has_its_unit(value: float | None, unit: str, text: str) -> None:
    assert figure(value, unit, "en") == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.22, "+22.0 points"), (-0.05, "−5.0 points"), (0.0, "0.0 points"), (-0.0001, "0.0 points")]
)
def test_a_difference_of_shares_is_in_points_with_its_sign(value: float, text: str) -> None:
    assert step(value, "", "en") == text


def test_an_interval_says_both_ends() -> None:
    assert span(-0.06, 0.1, "") == "−6.0 … +10.0"
    assert span(None, None, "") == ""


def test_a_size_has_no_sign() -> None:
    assert size(0.154, "", "zh") == "15.4 个百分点"
    assert bare_size(None, "") == size(None, "", "en") == step(None, "", "en") == ""


@pytest.mark.parametrize(("p", "text"), [(0.0001, "< 0.001"), (0.0416, "0.042"), (1.0, "1.000"), (None, "")])
def test_a_p_value_is_never_said_to_be_0(p: float | None, text: str) -> None:
    assert probability(p) == text


@pytest.mark.parametrize(
    ("before", "after", "unit", "text"),
    [
        (0.412, 0.605, "", "41.2 → 60.5 %"),
        (-3.806, -2.5, "nats per token", "−3.806 → −2.500 nats/token"),
        (9.5, 12.25, "seconds", "9.50 → 12.25 s"),
        (None, None, "", ""),
    ],
)
def test_a_move_says_its_unit_once(before: float | None, after: float | None, unit: str, text: str) -> None:
    assert move(before, after, unit, "en") == text
