"""The last lines of an engine's output, however they come."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.process.log_tail import TAIL_BYTES, TAIL_LINES, LogTail

LINES = ["loading", "the key is s3cret!", "ready: é", ""]


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6))
def test_output_is_the_same_lines_wherever_it_is_cut(cuts: list[int]) -> None:
    text = "\r\n".join(LINES).encode()
    tail = LogTail(secrets=("s3cret!",))

    places = [0, *sorted(cuts), len(text)]
    for start, end in itertools.pairwise(places):
        tail.feed(text[start:end])

    assert tail.lines() == ["loading", "the key is ***", "ready: é"]


def test_half_a_secret_at_the_end_is_not_shown() -> None:
    tail = LogTail(secrets=("s3cret!",))

    tail.feed(b"the key is s3cre")

    assert tail.lines() == ["the key is "]


def test_an_unfinished_last_line_is_shown() -> None:
    tail = LogTail()

    tail.feed(b"one\ntw")

    assert tail.lines() == ["one", "tw"]


@pytest.mark.parametrize("flood", [b"x\n" * 10_000, b"y" * 1_000_000, (b"z" * 5000 + b"\n") * 300], ids=len)
def test_a_flood_keeps_its_last_lines_only(flood: bytes) -> None:
    tail = LogTail(secrets=("s3cret!",))

    for start in range(0, len(flood), 65_536):
        tail.feed(flood[start : start + 65_536])

    assert len(tail.lines()) <= TAIL_LINES + 1
    assert sum(map(len, tail.lines())) <= TAIL_BYTES + 4096


@pytest.mark.parametrize("before", range(4085, 4100))
def test_a_secret_where_a_long_line_is_cut_is_not_shown_in_part(before: int) -> None:
    tail = LogTail(secrets=("s3cret!",))

    tail.feed(b"x" * before + b"s3cret!" + b"y" * 5000 + b"\n")

    assert "s3" not in tail.lines()[0]


def test_what_was_printed_long_before_is_no_last_word() -> None:
    now = 0.0
    tail = LogTail(now=lambda: now)

    tail.feed(b"old\n")
    now = 100.0
    tail.feed(b"new\nunfini")

    assert tail.lines() == ["old", "new", "unfini"]
    assert tail.lines(30.0) == ["new", "unfini"]


def test_what_is_not_kept_is_counted_too() -> None:
    tail = LogTail()
    tail.feed(b"".join(b"%d\n" % number for number in range(TAIL_LINES + 10)))

    assert tail.printed() == (TAIL_LINES + 10, False)
    tail.feed(b"begun")
    assert tail.printed() == (TAIL_LINES + 10, True)
    tail.feed(b", done\n")
    assert tail.printed() == (TAIL_LINES + 11, False)
