"""Holm's correction."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.statistics.families import holm


def test_p_values_are_corrected_as_holm_does() -> None:
    # R 4: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_one_test_needs_no_correction_and_none_has_none() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_the_order_stays_and_nothing_is_above_1() -> None:
    adjusted = holm([0.2, 0.5, 0.9, 0.99])

    assert max(adjusted) == 1.0
    assert all(one <= other for one, other in pairwise(adjusted))
