"""What is known of an engine's earlier lives, and for how long."""

from __future__ import annotations

import os
import signal

from app.supervisor.fleet.past_lives import KEPT, LastFailure, PastLives
from backends.endpoint import State
from tests.rigs.fleet import Relays, managed, only, pid_of, running


def lived(past: PastLives, number: int, reason: str | None) -> None:
    past.began(number, lambda: [f"line of {number}"])
    past.ended(number, float(number), reason)


def test_the_last_lives_are_kept_with_their_lines_and_ends() -> None:
    past = PastLives()
    for number in range(1, KEPT + 3):
        lived(past, number, "it crashed")
    past.began(KEPT + 3, lambda: ["now"])

    log = past.log(None, ["now"])

    assert log is not None
    assert log.life is not None
    assert (log.life.number, log.lines, log.life.reason) == (KEPT + 3, ["now"], None)
    assert [life.number for life in log.lives] == list(range(4, KEPT + 4))
    assert past.log(1, []) is None


def test_a_life_is_named_by_its_number_or_counted_back() -> None:
    past = PastLives()
    for number in (3, 4, 7):
        lived(past, number, None)

    logs = {number: past.log(number, []) for number in (3, 7, -1, -2, -3, 5, 0)}
    lines = {number: list(log.lines) if log is not None else None for number, log in logs.items()}

    assert lines == {
        3: ["line of 3"],
        7: ["line of 7"],
        -1: ["line of 4"],
        -2: ["line of 3"],
        -3: None,
        5: None,
        0: None,
    }


def test_the_last_failure_stays_when_an_end_was_asked_for_after_it() -> None:
    past = PastLives()
    assert past.failure(0.0) is None
    lived(past, 1, "it crashed")
    lived(past, 2, None)

    assert past.failure(11.0) == LastFailure(1, "it crashed", 10.0)


def test_a_start_of_which_no_process_ever_was_is_a_life_too() -> None:
    past = PastLives()

    past.ended(1, 5.0, "its command is not there")

    log = past.log(1, [])
    assert log is not None
    assert list(log.lines) == []
    assert past.failure(5.0) == LastFailure(1, "its command is not there", 0.0)


async def test_the_log_of_a_dead_engine_and_its_reason_outlive_the_next_start() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        before = fleet.log_tail("gpu")
        os.kill(pid_of(fleet), signal.SIGKILL)
        await relays.until_state("gpu", State.READY, generation=2)

        log = fleet.log("gpu", -1)
        status = only(fleet)

    assert log is not None
    assert before
    assert list(log.lines) == before
    assert status.reason is None
    assert status.last_failure is not None
    assert (status.last_failure.life, status.restarts) == (1, 1)
    assert "killed" in status.last_failure.reason or "signal 9" in status.last_failure.reason


async def test_a_stop_is_no_failure() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        await fleet.restart("gpu")
        await relays.until_state("gpu", State.READY, generation=2)

        log = fleet.log("gpu", 1)

        assert log is not None
        assert log.life is not None
        assert log.life.ended_at is not None
        assert log.life.reason is None
        assert only(fleet).last_failure is None


async def test_a_reload_does_not_forget_earlier_lives() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        await fleet.reload({"gpu": managed("--children 1")})
        await relays.until_state("gpu", State.READY, generation=2)

        log = fleet.log("gpu", 1)

        assert log is not None
        assert log.lines


async def test_a_start_that_fails_says_of_each_life_why() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--exit-after-s 0 --exit-code 3 --load-s 0")) as fleet:
        await fleet.wanted("gpu")

        log = fleet.log("gpu")

    assert log is not None
    assert [(life.number, life.reason) for life in log.lives] == [
        (number, "it exited with code 3") for number in range(1, 6)
    ]
