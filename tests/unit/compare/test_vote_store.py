"""Votes are on the disk before anything is told, once for each comparison, whatever becomes of the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import Problem
from app.ipc import SealedComparison
from app.supervisor.comparisons.tally import tally
from app.supervisor.comparisons.votes import MOST_SEALED, OPEN_S, CastVote, VoteStore, Winner


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> VoteStore:
    return VoteStore(tmp_path / "votes.jsonl", clock)


def sealed(id_: str = "cmp-1", models: tuple[str, ...] = ("a", "b"), key: str | None = None) -> SealedComparison:
    return SealedComparison(id_, key, "pair", list(models), [{"model": each} for each in models])


def refusal(store: VoteStore, id_: str = "cmp-1", winner: object = 0, key: str | None = None) -> str | None:
    with pytest.raises(Problem) as refused:
        store.cast(id_, winner, key)
    return refused.value.code


def test_a_vote_opens_its_comparison_and_is_read_again_by_the_next_process(store: VoteStore, tmp_path: Path) -> None:
    store.seal(sealed(key="office"))

    opened = store.cast("cmp-1", 1, "office")

    later = VoteStore(tmp_path / "votes.jsonl", Clock())
    assert opened.models == ["a", "b"]
    assert later.votes() == store.votes() == [CastVote("cmp-1", 1000, ["a", "b"], 1, "pair", "office")]
    assert refusal(later, key="office") == "already_voted"


def test_what_waits_for_a_vote_is_forgotten_after_a_day(store: VoteStore, clock: Clock) -> None:
    store.seal(sealed())
    clock.now += OPEN_S + 1

    assert refusal(store) == "comparison_not_found"


def test_only_so_many_comparisons_wait_and_the_oldest_go_first(store: VoteStore) -> None:
    for number in range(MOST_SEALED + 1):
        store.seal(sealed(f"cmp-{number}"))

    assert refusal(store, "cmp-0") == "comparison_not_found"
    assert store.cast("cmp-1", "tie", None).id == "cmp-1"


def test_a_last_line_that_was_cut_is_dropped_and_the_next_vote_stands_alone(store: VoteStore, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    store.seal(sealed("cmp-1"))
    store.cast("cmp-1", 0, None)
    with path.open("ab") as file:
        file.write(b'{"id":"cmp-2","ti')

    later = VoteStore(path, Clock())
    later.seal(sealed("cmp-3"))
    later.cast("cmp-3", 1, None)

    assert [vote.id for vote in VoteStore(path, Clock()).votes()] == ["cmp-1", "cmp-3"]


def test_a_line_of_somebody_else_costs_no_other_vote(store: VoteStore, tmp_path: Path) -> None:
    (tmp_path / "votes.jsonl").write_bytes(b'\xff\n{"id":"cmp-1","time":1,"models":["a","b"],"winner":"tie"}\n[]\n')

    assert [vote.id for vote in store.votes()] == ["cmp-1"]


def test_a_vote_that_cannot_be_written_opens_nothing_and_may_come_again(tmp_path: Path, clock: Clock) -> None:
    store = VoteStore(tmp_path / "gone" / "votes.jsonl", clock)
    store.seal(sealed())

    first = refusal(store)
    (tmp_path / "gone").mkdir()

    assert first == "votes_unusable"
    assert store.cast("cmp-1", 0, None).models == ["a", "b"]


# -- the tally


def votes(*winners: Winner, models: tuple[str, ...] = ("a", "b")) -> list[CastVote]:
    return [CastVote(f"cmp-{number}", 1, list(models), winner) for number, winner in enumerate(winners)]


def test_a_tally_counts_wins_losses_and_ties_and_orders_the_models() -> None:
    counted = tally(votes(1, 1, 1, 0, "tie", "all_bad"))

    assert counted["votes"] == 6
    assert [each["model"] for each in counted["models"]] == ["b", "a"]
    assert [(each["wins"], each["losses"], each["ties"]) for each in counted["models"]] == [(3, 1, 2), (1, 3, 2)]
    assert counted["pairs"] == [{"models": ["a", "b"], "wins": [1, 3], "ties": 1, "all_bad": 1}]
    best = counted["models"][0]
    assert best["low"] < best["strength"] < best["high"]


def test_the_winner_of_three_has_beaten_both_and_the_others_nobody() -> None:
    counted = tally(votes(2, models=("a", "b", "c")))

    assert counted["pairs"] == [
        {"models": ["a", "c"], "wins": [0, 1], "ties": 0, "all_bad": 0},
        {"models": ["b", "c"], "wins": [0, 1], "ties": 0, "all_bad": 0},
    ]


def test_votes_that_all_say_the_same_have_no_interval() -> None:
    """Drawing them again always draws the same: that is no certainty."""
    counted = tally(votes(0, 0))

    assert [(each["low"], each["high"]) for each in counted["models"]] == [(None, None), (None, None)]


def test_no_votes_are_an_empty_tally_and_of_very_many_the_latest_count() -> None:
    assert tally([]) == {"object": "compare.votes", "votes": 0, "models": [], "pairs": []}
    assert tally(votes(*[0] * 10, *[1] * 4), most=5)["pairs"][0]["wins"] == [1, 4]
