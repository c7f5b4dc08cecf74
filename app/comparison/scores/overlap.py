"""How much of a reference an answer has: exact, contains, chrF, ROUGE-L; and how much an answer repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from sacrebleu.metrics.chrf import CHRF

from app.comparison.question import is_chinese
from app.comparison.scores.tokens import tokens

# Sequences that are looked for again: 4 words (seq-rep-4: Welleck et al., 2019); a Chinese word has 1.6 characters on
# average, and names of four are usual.
_WORDS: Final = 4
_CHARACTERS: Final = 6


def is_same(answer: str, reference: str) -> bool:
    """Whether both have the same pieces in the same order; a text without any is compared as it is."""
    pieces = tokens(reference)
    return tokens(answer) == pieces if pieces else answer.strip() == reference.strip()


def contains(answer: str, reference: str) -> bool:
    """Whether the reference's pieces occur in the answer one after the other: "5" is not in "15"."""
    pieces, wanted = tokens(answer), tokens(reference)
    if not wanted:
        return reference.strip() in answer
    starts = range(len(pieces) - len(wanted) + 1)
    return any(pieces[at] == wanted[0] and pieces[at : at + len(wanted)] == wanted for at in starts)


@cache
def _chrf() -> CHRF:
    return CHRF()  # chrF2 of characters alone, sequences of up to 6 (Popović, 2015), as sacrebleu sets it


def chrf(answer: str, reference: str) -> float:
    """chrF from 0 to 100 (sacrebleu's): of characters without spaces, needs no words and so is right for Chinese."""
    return float(_chrf().sentence_score(answer, [reference]).score)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L's F1 from 0 to 1 (Lin, 2004): of the longest common subsequence of words, of Chinese characters. Without
    stemming.
    """
    one, other = tokens(answer), tokens(reference)
    if not one or not other:
        return float(answer.strip() == reference.strip())
    return 2 * longest_common(one, other) / (len(one) + len(other))


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence. With one bit for each piece of `one` (Hyyrö, 2004), so that texts
    of thousands of pieces take milliseconds.
    """
    places: dict[str, int] = {}
    for at, piece in enumerate(one):
        places[piece] = places.get(piece, 0) | 1 << at
    every = (1 << len(one)) - 1
    unmatched = every
    for piece in other:
        matches = unmatched & places.get(piece, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & every
    return len(one) - unmatched.bit_count()


def repetition(answer: str) -> float | None:
    """The share of the answer's sequences (of 4 words, of 6 characters where it is Chinese) that were in it before,
    from 0 to 1; None of an answer without words.
    """
    pieces = tokens(answer)
    size = _CHARACTERS if is_chinese(answer) else _WORDS
    if not pieces:
        return None
    runs = [tuple(pieces[at : at + size]) for at in range(len(pieces) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
