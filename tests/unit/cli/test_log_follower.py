"""app/cli/log_follower.py: what is new in a log, whatever happens to the engine between two looks."""

from __future__ import annotations

from typing import Any

from app.cli.log_follower import LogFollower


def answer(
    life: int | None, printed: int, *lines: str, unfinished: bool = False, lives: dict[int, str | None] | None = None
) -> dict[str, Any]:
    """`lives`: the known ones; one that has ended with why, one that runs with None."""
    known = {life: None} if lives is None and life is not None else lives or {}
    return {
        "life": life,
        "lines": list(lines),
        "printed": printed,
        "unfinished": unfinished,
        "lives": [
            {"life": number, "reason": reason, "ended_ago_s": None if reason is None else 1.0}
            for number, reason in known.items()
        ],
    }


def told(follower: LogFollower, *answers: dict[str, Any]) -> list[str]:
    """Lines as they are, remarks in brackets."""
    return [f"[{news.text}]" if news.is_remark else news.text for each in answers for news in follower.take(each)]


def test_first_everything_then_what_is_new() -> None:
    follower = LogFollower()

    assert told(follower, answer(1, 2, "a", "b")) == ["a", "b"]
    assert told(follower, answer(1, 2, "a", "b")) == []
    assert told(follower, answer(1, 4, "a", "b", "c", "d")) == ["c", "d"]
    assert told(follower, answer(1, 5, "c", "d", "d")) == ["d"]


def test_of_a_long_log_only_what_was_asked_for_comes_first() -> None:
    follower = LogFollower()

    assert told(follower, answer(1, 500, "y", "z"), answer(1, 501, "z", "new")) == ["y", "z", "new"]


def test_a_line_comes_once_it_is_whole() -> None:
    follower = LogFollower()

    assert told(follower, answer(1, 1, "a", "half", unfinished=True)) == ["a"]
    assert told(follower, answer(1, 2, "a", "half a line")) == ["half a line"]


def test_what_came_too_fast_is_counted() -> None:
    follower = LogFollower()
    told(follower, answer(1, 1, "a"))

    assert told(follower, answer(1, 300, "y", "z")) == ["[297 lines came too fast to be kept]", "y", "z"]


def test_an_engine_that_starts_again_is_followed_into_its_next_start() -> None:
    follower = LogFollower()
    told(follower, answer(1, 1, "a"))
    ended = answer(1, 2, "a", "b", "cut", unfinished=True, lives={1: "exit code 1"})

    assert told(follower, ended) == ["b", "cut", "[start 1 ended: exit code 1]"]
    assert told(follower, ended) == []
    assert follower.life == 1
    assert told(follower, answer(1, 2, "a", "b", "cut", lives={1: "exit code 1", 2: None})) == ["[start 2:]"]
    assert follower.life == 2
    assert told(follower, answer(2, 1, "again", lives={1: "exit code 1", 2: None})) == ["again"]


def test_starts_that_came_and_went_between_two_looks_are_all_told() -> None:
    follower = LogFollower()
    told(follower, answer(1, 1, "a"))
    lives = {1: "killed", 2: "", 3: None}

    assert told(follower, answer(1, 1, "a", lives=lives)) == ["[start 1 ended: killed]", "[start 2:]"]
    assert told(follower, answer(2, 1, "b", lives=lives)) == ["b", "[start 2 ended: it was stopped]", "[start 3:]"]


def test_an_engine_that_never_started_is_waited_for() -> None:
    follower = LogFollower()

    assert told(follower, answer(None, 0)) == []
    assert follower.life is None
    assert told(follower, answer(1, 1, "a")) == ["a"]
