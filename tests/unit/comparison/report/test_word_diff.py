"""Word diffs: by word, Chinese by character; the texts stay what they are."""

from __future__ import annotations

import random

import pytest

from app.comparison.report.word_diff import DiffPiece, word_diff


def own(pieces: list[DiffPiece]) -> list[str]:
    return [piece.text for piece in pieces if piece.is_own]


@pytest.mark.parametrize(
    ("first", "second", "gone", "new"),
    [
        ("The capital is Paris.", "The capital is Pellingford.", ["Paris"], ["Pellingford"]),
        ("首都是巴黎。", "首都是北京。", ["巴黎"], ["北京"]),
        ("我用Python写代码", "我用Rust写代码", ["Python"], ["Rust"]),
        ("the same", "the same", [], []),
        ("", "new text", [], ["new text"]),
        ("old text", "", ["old text"], []),
        ("a b c d", "a x c d", ["b"], ["x"]),
    ],
)
def test_what_differs_is_marked(first: str, second: str, gone: list[str], new: list[str]) -> None:
    mine, theirs = word_diff(first, second)

    assert (own(mine), own(theirs)) == (gone, new)


def test_put_together_the_texts_are_as_they_were() -> None:
    chance = random.Random(5)
    for _ in range(200):
        one, other = ("".join(chance.choices("ab \n,中文字か𠀀é\u202e\x00", k=chance.randrange(40))) for _ in range(2))

        mine, theirs = word_diff(one, other)

        assert "".join(piece.text for piece in mine) == one
        assert "".join(piece.text for piece in theirs) == other


def test_long_texts_are_compared_by_line_and_very_long_ones_as_a_whole() -> None:
    lines = [f"line {number} has a few words of its own\n" for number in range(600)]
    changed = [*lines[:300], "another line\n", *lines[301:]]

    assert own(word_diff("".join(lines), "".join(changed))[1]) == ["another line\n"]

    many = "".join(f"{number}\n" for number in range(5000))
    rest = "".join(f"{number}\n" for number in range(9000, 4000, -1))
    assert own(word_diff(many, rest)[0]) == [many]
