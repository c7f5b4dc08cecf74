"""Votes between pairs of models as one order of all: Bradley and Terry (1952), with intervals. Pure; seeded.

A tie counts as half a win for both. Each model also has half a win and half a loss against an imagined average one, so
that one that never lost has a finite strength, and models that never met have one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.statistics.intervals import CONFIDENCE, Interval, wilson

RESAMPLES = 1_000
_ROUNDS = 500


@dataclass(frozen=True, slots=True)
class Vote:
    """One judgement: `score` is 1 where `first` won, 0 where `second` did, 0.5 for a tie. Votes on the same `question`
    are not independent of each other and are drawn together; None: a question of its own.
    """

    first: str
    second: str
    score: float
    question: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One model among the others. `strength` is in log-odds above the average of all (0.7: wins 2 of 3 against an
    average one), `interval` its interval at 95 %; `win_share`: wins plus half the ties, of all its votes.
    """

    name: str
    strength: float
    interval: Interval
    wins: int
    ties: int
    losses: int
    win_share: float
    win_interval: Interval


def bradley_terry(
    votes: Sequence[Vote], *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> list[Standing]:
    """All models of the votes, strongest first. Votes of a model against itself are left out."""
    counted = [vote for vote in votes if vote.first != vote.second]
    names = sorted({name for vote in counted for name in (vote.first, vote.second)})
    if not names:
        return []
    wins = _wins(counted, names)
    # Questions that went the same are drawn as one sort: thousands of votes have few of them.
    sorts, often = np.unique(wins, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(wins), often / len(wins), resamples)
    samples = np.tensordot(drawn.astype(float), sorts, axes=1)
    strengths = _strengths(wins.sum(axis=0)[None])[0]
    tail = (1 - confidence) / 2
    lows, highs = np.quantile(_strengths(samples), [tail, 1 - tail], axis=0)
    standings = [
        _standing(name, float(strength), Interval(float(low), float(high)), counted)
        for name, strength, low, high in zip(names, strengths, lows, highs, strict=True)
    ]
    return sorted(standings, key=lambda standing: (-standing.strength, standing.name))


def _wins(votes: Sequence[Vote], names: Sequence[str]) -> NDArray[np.float64]:
    """For each question (first axis) how often each model (second) won against each other (third)."""
    place = {name: index for index, name in enumerate(names)}
    questions: dict[str | int, int] = {}
    for number, vote in enumerate(votes):
        questions.setdefault(number if vote.question is None else vote.question, len(questions))
    wins = np.zeros((len(questions), len(names), len(names)))
    for number, vote in enumerate(votes):
        question = questions[number if vote.question is None else vote.question]
        first, second = place[vote.first], place[vote.second]
        wins[question, first, second] += vote.score
        wins[question, second, first] += 1 - vote.score
    return wins


def _strengths(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds above the average, for each sample (first axis): Hunter's (2004) iteration of the likelihood."""
    met = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2) + 0.5
    odds = np.ones(won.shape)
    for _ in range(_ROUNDS):
        sums = (met / (odds[:, :, None] + odds[:, None, :])).sum(axis=2) + 1 / (odds + 1)
        before, odds = odds, won / sums
        if float(np.max(np.abs(np.log(odds / before)))) < 1e-7:
            break
    logs = np.log(odds)
    above: NDArray[np.float64] = logs - logs.mean(axis=1, keepdims=True)
    return above


def _standing(name: str, strength: float, interval: Interval, votes: Sequence[Vote]) -> Standing:
    own = [vote.score if vote.first == name else 1 - vote.score for vote in votes if name in (vote.first, vote.second)]
    wins, losses = sum(1 for score in own if score > 0.5), sum(1 for score in own if score < 0.5)
    return Standing(
        name,
        strength,
        interval,
        wins,
        len(own) - wins - losses,
        losses,
        sum(own) / len(own),
        wilson(sum(own), len(own)),
    )
