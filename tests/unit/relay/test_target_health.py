"""What a relay makes of the requests to one target: what counts as a failure, and who is worse than the others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from app.relay.balancing.target_health import SAMPLES, SHARE_OF, Outlier, TargetHealth


@dataclass(eq=False)
class Request:
    """A request that was sent."""

    has_begun: bool = False


def healthy(name: str = "a") -> TargetHealth:
    return TargetHealth((name, "m"), 1, 0.0)


def sent_and(health: TargetHealth, outcome: str, at: float = 1.0, took_s: float = 0.1, stream: bool = True) -> bool:
    """One request that ended so."""
    request = Request()
    health.sent(request, ("chat", stream), at)
    return health.ended(request, outcome, at + took_s if stream else None, at + took_s)


OUTCOMES = {
    "engine_failed": True,
    "engine_disconnected": True,
    "engine_timeout": True,
    "engine_broken_answer": True,
    "engine_unreachable": True,
    "engine_not_ready": True,  # it was sent there, so the engine itself said it
    "engine_rejected": False,  # the client's own mistake
    "engine_saturated": False,
    "ok": False,
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_only_what_is_the_engines_own_counts_as_a_failure(outcome: str) -> None:
    health = healthy()

    assert sent_and(health, outcome) is OUTCOMES[outcome]
    assert health.failed_in_row == int(OUTCOMES[outcome])


def test_a_request_that_waited_for_its_engine_and_was_never_sent_says_nothing_of_it() -> None:
    health = healthy()

    assert not health.ended(Request(), "engine_not_ready", None, 1.0)
    assert health.failed_in_row == 0


def test_a_client_that_leaves_leaves_nothing_behind() -> None:
    health, request = healthy(), Request()
    health.sent(request, ("chat", True), 1.0)

    health.left(request)

    assert not health.is_waited_for
    assert health.silent([], 1000.0) is None


# outcomes one after the other → the reason why it fails, None: it does not
HISTORIES = {
    "xxxx": None,
    "xxxxx": "failures",
    "xxxx.xxxx": None,
    "xx.x.xx.x.xx.x.xx.x.xx.x.xx.x.": "share",
    "x...x...x...x...x...x...x...x...x...": None,
    "r" * 30: None,
}


@pytest.mark.parametrize("history", HISTORIES)
def test_it_fails_by_a_row_of_failures_or_by_their_share(history: str) -> None:
    health = healthy()
    words = {"x": "engine_failed", ".": "ok", "r": "engine_rejected"}

    for at, each in enumerate(history):
        sent_and(health, words[each], at=1.0 + at / 10)
    finding = health.failing(5, 5.0)

    assert (finding.reason if finding is not None else None) == HISTORIES[history]


def test_failures_of_long_ago_are_no_share_of_the_latest() -> None:
    health = healthy()
    for at in range(2 * SHARE_OF):
        sent_and(health, ("ok", "engine_failed")[at % 2], at=at / 10)

    assert health.failing(5, 10.0) is not None
    assert health.failing(5, 100.0) is None


def test_what_was_sent_before_it_began_anew_says_nothing_of_it() -> None:
    health, old = healthy(), Request()
    health.sent(old, ("chat", True), 1.0)

    health.begin(2.0, failed_in_row=4)

    assert not health.ended(old, "engine_timeout", None, 3.0)
    assert health.silent([], 1000.0) is None
    assert sent_and(health, "engine_failed", at=3.0)
    assert health.failing(5, 4.0) == Outlier("failures", "5 requests in a row failed (engine_failed)")


def test_nothing_is_learned_while_it_is_ejected() -> None:
    health = healthy()
    health.is_out = True

    for _ in range(9):
        sent_and(health, "engine_failed")

    assert health.failed_in_row == 0


def timed(name: str, took_s: float, count: int = SAMPLES, stream: bool = True) -> TargetHealth:
    """One whose requests took so long."""
    health = healthy(name)
    for at in range(count):
        sent_and(health, "ok", at=float(at), took_s=took_s, stream=stream)
    return health


# seconds of its own, of its two siblings → whether it is slow
TIMES = {
    (2.0, 0.1, 0.2): True,
    (2.0, 1.0, 0.9): False,  # not four times as long
    (0.9, 0.1, 0.1): False,  # not a second longer
    (2.0, 0.1, 2.0): False,  # one of the others is like it
}


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("stream", [False, True])
def test_it_is_slow_beside_its_siblings(times: tuple[float, float, float], stream: bool) -> None:
    own, *others = [timed(name, took_s, stream=stream) for name, took_s in zip("abc", times, strict=True)]

    assert (own.slow(others, 10.0) is not None) is TIMES[times]


def test_few_times_and_old_ones_and_those_of_other_requests_say_nothing() -> None:
    siblings = [timed("b", 0.1), timed("c", 0.1)]

    assert timed("a", 3.0, count=SAMPLES - 1).slow(siblings, 10.0) is None
    assert timed("a", 3.0).slow(siblings, 500.0) is None
    assert timed("a", 3.0, stream=False).slow(siblings, 10.0) is None


# seconds that the siblings take (None: not known), that a request waits → whether it is silent
WAITS = {
    (0.1, 4.9): False,
    (0.1, 5.1): True,
    (2.0, 19.0): False,
    (2.0, 21.0): True,
    (None, 29.0): False,
    (None, 31.0): True,
}


@pytest.mark.parametrize("case", WAITS)
def test_it_is_silent_when_a_request_waits_much_longer_than_elsewhere(case: tuple[float | None, float]) -> None:
    usual_s, waits_s = case
    health = healthy()
    siblings = [timed("b", usual_s)] if usual_s is not None else [healthy("b")]

    health.sent(Request(), ("chat", True), 10.0)

    assert (health.silent(siblings, 10.0 + waits_s) is not None) is WAITS[case]


def test_a_stream_that_has_begun_is_not_waited_for() -> None:
    health = healthy()

    health.sent(Request(has_begun=True), ("chat", True), 0.0)

    assert health.silent([timed("b", 0.1)], 100.0) is None
