"""A blind test: answers without names in random order, and what the votes come to. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.statistics.votes import Standing, Vote, bradley_terry

TIE = "tie"
ALL_BAD = "all_bad"


@dataclass(frozen=True, slots=True)
class BlindVote:
    """One vote: the models in the order in which their answers were shown, and the `winner`: a model, `tie`, or
    `all_bad`, which is the tie of answers of which none is good.
    """

    question: str
    models: tuple[str, ...]
    winner: str


class BlindQuestion(NamedTuple):
    """A question with the answers in the order in which they are shown."""

    question: Question
    answers: tuple[ModelAnswer, ...]


def blind_questions(
    questions: Sequence[Question],
    models: Sequence[str],
    answers: Mapping[tuple[str, str, int], ModelAnswer],
    votes: Iterable[BlindVote],
    seed: int,
) -> list[BlindQuestion]:
    """What is still to be voted on, in random order: all models have answered, and not all the same, which nobody could
    tell apart. The same seed gives the same order, so that a test can go on another day.
    """
    chance = random.Random(seed)  # noqa: S311 - hides names from a person, not from an attacker
    done = {vote.question for vote in votes}
    shown = []
    for question in questions:
        own = [answers.get((question.id, model, 0)) for model in models]
        chance.shuffle(own)
        good = tuple(each for each in own if each is not None and each.error is None)
        if len(good) == len(models) and len({each.text for each in good}) > 1:
            shown.append(BlindQuestion(question, good))
    chance.shuffle(shown)
    return [each for each in shown if each.question.id not in done]


def counted(votes: Iterable[BlindVote], models: Sequence[str]) -> list[Standing]:
    """How the models stand by the votes, best first. The latest vote on a question counts."""
    latest = {vote.question: vote for vote in votes}
    duels = []
    for vote in latest.values():
        for at, first in enumerate(models):
            duels += [
                Vote(first, second, _score(vote.winner, first, second), vote.question)
                for second in models[at + 1 :]
                if vote.winner in (first, second, TIE, ALL_BAD)
            ]
    return bradley_terry(duels)


def _score(winner: str, first: str, second: str) -> float:
    return 1.0 if winner == first else 0.0 if winner == second else 0.5
