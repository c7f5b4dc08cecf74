"""What two texts do not have in common: by word, where there are no spaces (Chinese, Japanese) by character. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

_MOST = 4_000_000  # comparisons of two words; texts that need more are compared by line
# A character of a script without spaces, a word, white space, or one other character.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|\s+|."
)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class DiffPiece:
    """A piece of one text; `is_own`: the other text does not have it there."""

    text: str
    is_own: bool


def word_diff(first: str, second: str) -> tuple[list[DiffPiece], list[DiffPiece]]:
    """Both texts in pieces; put together again they are the texts as they were."""
    one, other = _WORD.findall(first), _WORD.findall(second)
    if len(one) * len(other) > _MOST:
        one, other = _LINE.findall(first), _LINE.findall(second)
    start = _common(one, other)
    end = _common(one[start:][::-1], other[start:][::-1])
    left, right = one[start : len(one) - end], other[start : len(other) - end]
    mine = [DiffPiece("".join(one[:start]), is_own=False)]
    theirs = [DiffPiece("".join(other[:start]), is_own=False)]
    if len(left) * len(right) > _MOST:
        mine.append(DiffPiece("".join(left), is_own=True))
        theirs.append(DiffPiece("".join(right), is_own=True))
    else:
        for tag, begin, stop, begins, stops in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
            mine.append(DiffPiece("".join(left[begin:stop]), tag != "equal"))
            theirs.append(DiffPiece("".join(right[begins:stops]), tag != "equal"))
    mine.append(DiffPiece("".join(one[len(one) - end :]), is_own=False))
    theirs.append(DiffPiece("".join(other[len(other) - end :]), is_own=False))
    return _joined(mine), _joined(theirs)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words at the beginning are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _joined(pieces: Sequence[DiffPiece]) -> list[DiffPiece]:
    """Without empty pieces, neighbours of one sort as one."""
    joined: list[DiffPiece] = []
    for piece in pieces:
        if not piece.text:
            continue
        if joined and joined[-1].is_own == piece.is_own:
            joined[-1] = DiffPiece(joined[-1].text + piece.text, piece.is_own)
        else:
            joined.append(piece)
    return joined
