"""Votes as an order: known strengths, and cases that have no finite one."""

from __future__ import annotations

import math
import random

import pytest

from app.statistics.votes import Vote, bradley_terry


def cast(strengths: dict[str, float], count: int, seed: int = 1) -> list[Vote]:
    """Votes between models of known strengths."""
    chance, names = random.Random(seed), sorted(strengths)
    votes = []
    for _ in range(count):
        first, second = chance.sample(names, 2)
        likely = 1 / (1 + math.exp(strengths[second] - strengths[first]))
        votes.append(Vote(first, second, float(chance.random() < likely)))
    return votes


def test_strengths_are_found_again() -> None:
    standings = bradley_terry(cast({"a": 1.0, "b": 0.0, "c": -1.0}, 3000))

    assert [standing.name for standing in standings] == ["a", "b", "c"]
    assert [standing.strength for standing in standings] == pytest.approx([1.0, 0.0, -1.0], abs=0.15)
    assert all(standing.interval.low < standing.strength < standing.interval.high for standing in standings)


def test_two_equal_models_have_intervals_that_overlap() -> None:
    best, other = bradley_terry(cast({"a": 0.0, "b": 0.0}, 200))

    assert best.interval.low < other.interval.high
    assert best.win_interval.low < 0.5 < best.win_interval.high


def test_one_that_never_lost_has_a_finite_strength() -> None:
    best, other = bradley_terry([Vote("a", "b", 1.0)] * 10)

    assert (best.name, best.wins, best.ties, best.losses, best.win_share) == ("a", 10, 0, 0, 1.0)
    assert 0 < best.strength < 5
    assert other.strength == pytest.approx(-best.strength)


def test_a_tie_is_half_a_win_for_both() -> None:
    standings = bradley_terry([Vote("a", "b", 0.5)] * 6)

    assert [standing.strength for standing in standings] == pytest.approx([0.0, 0.0])
    assert [(standing.ties, standing.win_share) for standing in standings] == [(6, 0.5), (6, 0.5)]


def test_models_that_never_met_have_one_order() -> None:
    standings = bradley_terry([*[Vote("a", "b", 1.0)] * 9, *[Vote("c", "d", 1.0)] * 2])

    assert [standing.name for standing in standings] == ["a", "c", "d", "b"]


def test_votes_on_one_question_are_drawn_together() -> None:
    scores = [1.0] * 30 + [0.0] * 20
    apart = bradley_terry([Vote("a", "b", value) for value in scores])[0]
    joined = bradley_terry([Vote("a", "b", value, f"q{index // 10}") for index, value in enumerate(scores)])[0]

    assert joined.strength == pytest.approx(apart.strength)
    assert joined.interval.low < apart.interval.low
    assert joined.interval.high > apart.interval.high


def test_no_votes_are_no_order_and_a_vote_against_oneself_is_none() -> None:
    assert bradley_terry([]) == []
    assert bradley_terry([Vote("a", "a", 1.0)]) == []


def test_the_same_seed_gives_the_same_intervals() -> None:
    votes = cast({"a": 0.5, "b": 0.0}, 40)

    assert bradley_terry(votes, seed=1) == bradley_terry(votes, seed=1)
    assert bradley_terry(votes, seed=1) != bradley_terry(votes, seed=2)
