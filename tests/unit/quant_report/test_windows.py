"""Cutting a text: each token is predicted once, and sees enough before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.quant_report.windows import Window, runs, windows


def test_a_short_text_is_one_window() -> None:
    assert windows([[5, 6, 7]], [], size=8, stride=4) == [Window(0, (5, 6, 7), 1)]


def test_a_long_text_is_overlapping_windows() -> None:
    assert windows([range(11)], [], size=6, stride=3) == [
        Window(0, (0, 1, 2, 3, 4, 5), 1),
        Window(0, (3, 4, 5, 6, 7, 8), 3),
        Window(0, (5, 6, 7, 8, 9, 10), 4),
    ]


def test_what_stands_before_every_text_stands_before_every_window() -> None:
    cut = windows([[1, *range(10, 20)]], [1], size=6, stride=2)

    assert [window.tokens[0] for window in cut] == [1] * len(cut)
    assert [token for window in cut for token in window.predicted] == list(range(10, 20))


def test_a_text_of_one_token_has_nothing_to_predict() -> None:
    assert windows([[7], [1]], [1], size=8, stride=4) == []


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.integers(4, 20),
    st.integers(1, 10),
    st.booleans(),
)
def test_each_token_is_predicted_once_with_enough_before_it(
    lengths: list[int], size: int, stride: int, has_start: bool
) -> None:
    stride = min(stride, size // 2)
    start = [0] if has_start else []
    passages = [[*start, *range(1, length + 1)] for length in lengths]

    cut = windows(passages, start, size, stride)

    for index, passage in enumerate(passages):
        own = [window for window in cut if window.passage == index]
        assert [token for window in own for token in window.predicted] == passage[1:]
        for window in own[1:]:
            assert len(window.tokens) <= size
            assert window.first >= min(size - stride, len(window.tokens) - stride)
            at = window.tokens[window.first] - 1 + len(start)
            assert passage[at - window.first + len(start) : at] == list(window.tokens[len(start) : window.first])


@pytest.mark.parametrize("passages", [[range(40)], [range(9), range(30), range(2)]])
def test_values_of_all_windows_are_put_back_into_passages(passages: list[range]) -> None:
    cut = windows(passages, [], size=8, stride=4)
    values = [float(token) for window in cut for token in window.predicted]

    assert runs(cut, values) == [[float(token) for token in passage[1:]] for passage in passages]
