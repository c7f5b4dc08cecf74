"""Which measure decides, where nobody has said so. Pure: it looks at the questions, never at the answers."""

from __future__ import annotations

from collections.abc import Sequence

from app.comparison.question import Question, is_chinese

_SHORT_WORDS = 8  # a reference of so few words can be expected to stand in a right answer as it is
_SHORT_CHARACTERS = 20  # the same, of Chinese


def default_primary(questions: Sequence[Question]) -> str:
    """The measure that fits most of the questions: `choice` for closed ones, `contains` for short reference answers,
    `chrf` for long ones; `length` where there are no reference answers at all.
    """
    answered = [question for question in questions if question.answer is not None]
    closed = sum(1 for question in answered if question.form != "open")
    texts = [question.answer for question in answered if question.form == "open" and question.answer is not None]
    if not answered:
        return "length"
    if closed * 2 >= len(answered):
        return "choice"
    return "contains" if sum(map(_is_short, texts)) * 2 > len(texts) else "chrf"


def _is_short(text: str) -> bool:
    if is_chinese(text):
        return len(text) <= _SHORT_CHARACTERS
    return len(text.split()) <= _SHORT_WORDS
