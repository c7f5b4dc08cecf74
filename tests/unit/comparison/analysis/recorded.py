"""What a real model answered when it was asked the same eight times.

SmolLM2-135M-Instruct (Q4_1) on the embedded engine, temperature 0.7, top_p 1, seeds 0 to 7, at most 32 tokens: 40
capitals (57 % right) and 40 sums (34 %), of most of which it is right in some answers and wrong in others.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.score import score

_FILE = Path(__file__).parents[3] / "recorded" / "comparison" / "smollm2_answers.jsonl"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and, for each of the eight answers, whether it was right (1 or 0)."""

    category: str
    right: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """The scores of one resampled run by question: two models, each asked twice; and the questions' categories."""

    base: tuple[Mapping[str, float], Mapping[str, float]]
    tuned: tuple[Mapping[str, float], Mapping[str, float]]
    categories: Mapping[str, str]


class _Line(msgspec.Struct):
    id: str
    category: str
    question: str
    answer: str
    texts: tuple[str, ...]


def recorded() -> list[Asked]:
    """All questions, their answers scored by whether they contain the reference."""
    lines = [msgspec.json.decode(line, type=_Line) for line in _FILE.read_bytes().splitlines()]
    return [Asked(line.category, tuple(_right(line, text) for text in line.texts)) for line in lines]


def resampled(asked: Sequence[Asked], count: int, chance: random.Random, *, planted: float = 0.0) -> Round:
    """A run of `count` questions, drawn; each of its four answers is another of the recorded ones, so that the two
    models are the same one. `planted`: so many wrong answers of the second are right instead.
    """
    rounds: list[dict[str, float]] = [{}, {}, {}, {}]
    categories = {}
    for number in range(count):
        question = chance.choice(asked)
        gains = chance.random() < planted
        categories[str(number)] = question.category
        for place, value in enumerate(chance.sample(question.right, 4)):
            rounds[place][str(number)] = 1.0 if place > 1 and gains else value
    return Round((rounds[0], rounds[1]), (rounds[2], rounds[3]), categories)


def _right(line: _Line, text: str) -> float:
    asked = Question(line.id, ({"role": "user", "content": line.question},), line.answer)
    value = score(asked, ModelAnswer(line.id, "smollm2", text=text))["contains"]
    assert value is not None
    return value
