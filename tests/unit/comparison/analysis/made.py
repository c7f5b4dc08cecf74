"""Questions and answers of models whose rate of right answers is known."""

from __future__ import annotations

import random
from collections.abc import Sequence

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question


def questions(count: int, categories: Sequence[str | None] = (None,)) -> list[Question]:
    """Open questions with one-word answers, the categories in turn."""
    return [
        Question(
            f"q{number}",
            ({"role": "user", "content": f"What is number {number}?"},),
            "Pellingford",
            category=categories[number % len(categories)],
        )
        for number in range(count)
    ]


def answers(asked: Sequence[Question], model: str, right: Sequence[bool], repeat: int = 0) -> list[ModelAnswer]:
    """An answer to each question, right or wrong."""
    return [
        ModelAnswer(question.id, model, repeat, "It is Pellingford." if is_right else "Nobody knows.", seconds=1.0)
        for question, is_right in zip(asked, right, strict=True)
    ]


def drawn(chance: random.Random, rates: Sequence[float]) -> list[bool]:
    """Right with the given probability, question by question."""
    return [chance.random() < rate for rate in rates]
