"""A text that is longer than a model is asked to see at once, in overlapping windows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens from index `first` on are predicted from all before them; `passage`: index of the text they are of."""

    passage: int
    tokens: tuple[int, ...]
    first: int

    @property
    def predicted(self) -> tuple[int, ...]:
        """The tokens that are predicted."""
        return self.tokens[self.first :]


def windows(passages: Sequence[Sequence[int]], start: Sequence[int], size: int, stride: int) -> list[Window]:
    """Windows of at most `size` tokens in which each token of each passage but its first is predicted exactly once.

    Each window but a passage's first predicts at most `stride` tokens, so it sees at least `size - stride` before them
    (one fewer for each token of `start`). `start`: tokens that the tokenizer puts before every text (BOS); they stand
    before later windows too, as a model that was trained with them is lost without. No window holds two passages.
    """
    cut: list[Window] = []
    for index, passage in enumerate(passages):
        tokens = tuple(passage)
        end = min(size, len(tokens))
        cut.append(Window(index, tokens[:end], max(1, len(start))))
        while end < len(tokens):
            done, end = end, min(end + stride, len(tokens))
            begin = max(0, end - size + len(start))
            cut.append(Window(index, (*start, *tokens[begin:end]), len(start) + done - begin))
    return [window for window in cut if window.predicted]


def runs(cut: Sequence[Window], values: Sequence[float]) -> list[list[float]]:
    """The values of all predicted tokens, in the windows' order, as one list for each passage."""
    lists: dict[int, list[float]] = {}
    at = 0
    for window in cut:
        count = len(window.predicted)
        lists.setdefault(window.passage, []).extend(values[at : at + count])
        at += count
    return list(lists.values())
