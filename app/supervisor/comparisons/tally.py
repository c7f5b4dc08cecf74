"""What votes say: wins, losses and ties, and one order of all models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Final

from app.supervisor.comparisons.votes import CastVote

MOST: Final = 10_000  # votes; of more, the latest count
_DIGITS: Final = 4
_LEAST_WIDTH: Final = 1e-6


def tally(votes: Sequence[CastVote], most: int = MOST) -> dict[str, Any]:
    """As `GET /v1/compare/votes` answers, of the latest `most`. Blocks: thousands of votes take seconds."""
    from app.statistics.votes import Vote, bradley_terry  # numpy: only once there is something to tally

    counted = votes[-most:]
    duels = [(vote, *duel) for vote in counted for duel in _duels(vote)]
    standings = bradley_terry([Vote(first, second, score, vote.id) for vote, first, second, score in duels])
    return {
        "object": "compare.votes",
        "votes": len(counted),
        "models": [
            {
                "model": each.name,
                "wins": each.wins,
                "losses": each.losses,
                "ties": each.ties,
                "strength": round(each.strength, _DIGITS),
                **_interval(each.interval.low, each.interval.high),
            }
            for each in standings
        ],
        "pairs": _pairs(counted),
    }


def _interval(low: float, high: float) -> dict[str, float | None]:
    """None for an interval without width: where all votes are the same, drawing them again says nothing."""
    is_known = high - low > _LEAST_WIDTH
    return {"low": round(low, _DIGITS) if is_known else None, "high": round(high, _DIGITS) if is_known else None}


def _duels(vote: CastVote) -> Iterator[tuple[str, str, float]]:
    """First model, second model, and the first one's score. The losers among themselves have none."""
    if isinstance(vote.winner, int):
        winner = vote.models[vote.winner]
        yield from ((winner, other, 1.0) for other in vote.models if other != winner)
    else:
        yield from ((first, second, 0.5) for first, second in combinations(vote.models, 2))


def _pairs(votes: Sequence[CastVote]) -> list[dict[str, Any]]:
    """Of every two models that were shown together how it went, in the order of their names."""
    wins: Counter[tuple[str, str]] = Counter()
    ties: Counter[tuple[str, str]] = Counter()
    bad: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        for first, second, score in _duels(vote):
            if score == 1.0:
                wins[first, second] += 1
            else:
                (bad if vote.winner == "all_bad" else ties)[min(first, second), max(first, second)] += 1
    met = sorted({(min(two), max(two)) for two in (*wins, *ties, *bad)})
    return [
        {
            "models": [first, second],
            "wins": [wins[first, second], wins[second, first]],
            "ties": ties[first, second],
            "all_bad": bad[first, second],
        }
        for first, second in met
    ]
