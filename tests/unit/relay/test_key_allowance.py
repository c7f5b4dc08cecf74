"""One key's allowance in one relay (app/relay/limits/key_allowance.py): nothing is spent that was not granted, and all
that was granted is spent or goes back."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.dialects.usage import Usage
from app.ipc import NOTHING, Allowance, Amounts, LimitState, Spent
from app.relay.limits.key_allowance import IDLE_S, KeyAllowance
from app.relay.limits.reservation import Reservation, tokens_spent
from app.relay.planning.plan import OPERATIONS, plan
from app.relay.planning.token_estimate import NO_TOKENS
from app.table import Budget, Key, KeyLimits, PublicModel, Table, Target
from tests.rigs.limits import plus

ALL = KeyLimits(rpm=600, tpm=60_000, max_parallel=10, budget=Budget(1e6, "tokens", "day"))
ESTIMATED = (10, 90, False)
PLAN = plan(
    OPERATIONS["/v1/chat/completions"],
    b'{"model": "fake", "messages": [{"role": "user", "content": "hello"}]}',
    Table(0, {"fake": PublicModel("fake", (Target("e", "fake"),))}, {}, (), {}),
    None,
)
ONE = Amounts(requests=1, tokens=100, parallel=1, budget=100)


def key(limits: KeyLimits | None) -> Key:
    return Key("office", "", id="k1", limits=limits)


def of(limits: KeyLimits, changed: Callable[[], None] = lambda: None) -> KeyAllowance:
    return KeyAllowance(key(limits), changed)


def grant(amounts: Amounts, slot: float = 1.0, valid_s: float = 2.0, **more: object) -> Allowance:
    return Allowance(1, "k1", amounts, valid_s, slot, **more)  # type: ignore[arg-type]


def taken(allowance: KeyAllowance, now: float = 0.0) -> Reservation:
    reservation = allowance.take(now, 100, 100, 90)
    assert reservation is not None
    return reservation


def test_nothing_is_spent_before_something_is_granted() -> None:
    assert of(ALL).take(0.0, 100, 100) is None


@pytest.mark.parametrize("short", ["requests", "tokens", "parallel", "budget"])
def test_a_request_needs_enough_of_everything(short: str) -> None:
    amounts = {"requests": 5.0, "tokens": 500.0, "parallel": 5.0, "budget": 500.0} | {short: 0.0}
    allowance = of(ALL)

    allowance.add(grant(Amounts(**amounts)), ONE, 0.0)

    assert allowance.take(0.0, 100, 100) is None


def test_what_has_no_limit_is_never_short_and_never_told() -> None:
    allowance = of(KeyLimits(rpm=10))
    allowance.add(grant(Amounts(requests=1)), Amounts(requests=1), 0.0)

    reservation = allowance.take(0.0)

    assert reservation is not None
    reservation.end("ok", Usage(5, 5), was_sent=True, plan=PLAN)
    assert allowance.report(0.1) == Spent("k1", Amounts(requests=1))


def test_the_older_is_spent_first_and_what_is_left_goes_back_under_its_own_slot() -> None:
    allowance = of(KeyLimits(rpm=600))
    allowance.add(grant(Amounts(requests=3), slot=1.0), NOTHING, 0.0)
    allowance.add(grant(Amounts(requests=3), slot=2.0), NOTHING, 1.0)

    for _ in range(2):
        assert allowance.take(1.0) is not None
    first, second = allowance.report(2.0), allowance.report(3.0)

    assert first == Spent("k1", Amounts(requests=2), ((1.0, Amounts(requests=1)),))
    assert second == Spent("k1", returned=((2.0, Amounts(requests=3)),))
    assert not allowance.is_active


def test_what_a_request_came_to_is_settled_under_the_slot_that_it_was_taken_from() -> None:
    allowance = of(ALL)
    allowance.add(grant(plus(ONE, ONE), slot=5.0), ONE, 0.0)
    reservation = taken(allowance)
    allowance.report(0.1)
    allowance.add(grant(plus(ONE, ONE), slot=6.0), ONE, 1.5)

    reservation.end("ok", Usage(12, 30), was_sent=True, plan=PLAN)

    told = allowance.report(1.6)
    assert told is not None
    assert told.spent == Amounts(parallel=-1)
    assert told.settled == ((5.0, Amounts(tokens=-58, budget=-100)),)


def test_a_request_that_no_engine_took_was_nothing() -> None:
    allowance = of(ALL)
    allowance.add(grant(ONE), ONE, 0.0)

    taken(allowance).end("engine_not_ready", Usage(), was_sent=True, plan=PLAN)

    told = allowance.report(0.1)
    assert told is not None
    assert plus(told.spent, *(each for _, each in told.settled)) == NOTHING


def test_places_are_kept_for_a_while_and_then_go_back() -> None:
    allowance = of(KeyLimits(max_parallel=10))
    allowance.add(grant(Amounts(parallel=4)), Amounts(parallel=1), 0.0)
    first, second = (allowance.take(0.0) for _ in range(2))
    assert first is not None
    assert second is not None
    first.end("ok", Usage(), was_sent=True, plan=PLAN)

    early = allowance.report(IDLE_S - 0.1)
    late = allowance.report(IDLE_S + 0.1)
    second.end("ok", Usage(), was_sent=True, plan=PLAN)
    last = allowance.report(2 * IDLE_S + 0.2)
    rest = allowance.report(3 * IDLE_S + 0.3)

    assert early == Spent("k1", Amounts(parallel=1))
    assert late == Spent("k1", returned=((0.0, Amounts(parallel=2)),))
    assert last == Spent("k1", Amounts(parallel=-1), ((0.0, Amounts(parallel=1)),))
    assert rest == Spent("k1", returned=((0.0, Amounts(parallel=1)),))
    assert not allowance.is_active


def test_it_is_told_once_that_there_is_something_to_report() -> None:
    told: list[bool] = []
    allowance = of(KeyLimits(rpm=600), lambda: told.append(True))
    told.clear()

    allowance.add(grant(Amounts(requests=3)), NOTHING, 0.0)
    allowance.take(0.0)
    allowance.take(0.0)

    assert len(told) <= 1
    assert allowance.is_active


@pytest.mark.parametrize(("left", "is_low"), [(6, False), (5, False), (4, True), (0, True)])
def test_half_of_what_was_granted_last_is_low(left: int, is_low: bool) -> None:
    allowance = of(KeyLimits(rpm=600))
    allowance.add(grant(Amounts(requests=10)), NOTHING, 0.0)

    for _ in range(10 - left):
        allowance.take(0.0)

    assert allowance.is_low is is_low


def test_all_places_taken_are_low_while_there_may_be_more() -> None:
    allowance = of(KeyLimits(max_parallel=3))
    allowance.add(grant(Amounts(parallel=2)), Amounts(parallel=1), 0.0)

    seen = []
    for _ in range(2):
        allowance.take(0.0)
        seen.append(allowance.is_low)
    allowance.add(grant(Amounts(parallel=1)), NOTHING, 0.0)
    allowance.take(0.0)

    assert seen == [False, True]
    assert not allowance.is_low


@pytest.mark.parametrize(("used_at", "now", "is_ending"), [(1.4, 1.6, True), (1.4, 1.45, False), (0.5, 1.6, False)])
def test_what_is_used_is_asked_for_again_before_it_ends(used_at: float, now: float, is_ending: bool) -> None:
    allowance = of(KeyLimits(rpm=600))
    allowance.add(grant(Amounts(requests=10), valid_s=2.0), NOTHING, 0.0)

    allowance.take(used_at)

    assert allowance.is_ending(now) is is_ending


def refusing(limit: str, **needs: float) -> tuple[KeyAllowance, Amounts]:
    allowance, needed = of(ALL), Amounts(**needs)
    allowance.add(grant(NOTHING, refused=limit, retry_after_s=10.0), needed, 100.0)
    return allowance, needed


@pytest.mark.parametrize("limit", ["requests", "tokens", "parallel", "budget"])
def test_a_refusal_holds_for_as_much_or_more_until_its_time(limit: str) -> None:
    allowance, needed = refusing(limit, **{limit: 50.0})

    assert allowance.refusal(needed, 109.9) is not None
    assert allowance.refusal(Amounts(**{limit: 60.0}), 109.9) is not None
    assert allowance.refusal(Amounts(**{limit: 40.0}), 109.9) is None
    assert allowance.refusal(needed, 110.1) is None


def test_of_two_refusals_the_longer_one_is_told() -> None:
    allowance, needed = refusing("requests", requests=1, tokens=50)
    allowance.add(grant(NOTHING, refused="tokens", retry_after_s=30.0), needed, 100.0)

    refusal = allowance.refusal(needed, 101.0)

    assert refusal is not None
    assert (refusal.limit, refusal.until) == ("tokens", 130.0)


def test_a_place_that_becomes_free_here_ends_the_refusal_of_places() -> None:
    allowance = of(KeyLimits(max_parallel=1))
    allowance.add(grant(Amounts(parallel=1)), Amounts(parallel=1), 0.0)
    running = allowance.take(0.0)
    assert running is not None
    allowance.add(grant(NOTHING, refused="parallel", retry_after_s=60.0), Amounts(parallel=1), 0.0)
    assert allowance.refusal(Amounts(parallel=1), 1.0) is not None

    running.end("ok", Usage(), was_sent=True, plan=PLAN)

    assert allowance.refusal(Amounts(parallel=1), 1.0) is None
    assert allowance.take(1.0) is not None


def test_tokens_that_come_back_are_asked_for_before_the_time_that_was_told() -> None:
    allowance = of(KeyLimits(tpm=1000))
    allowance.add(grant(Amounts(tokens=100)), Amounts(tokens=100), 0.0)
    reservation = allowance.take(0.0, 100, 0.0, 90)
    assert reservation is not None
    allowance.add(grant(NOTHING, refused="tokens", retry_after_s=60.0), Amounts(tokens=100), 0.0)

    reservation.end("ok", Usage(5, 5), was_sent=True, plan=PLAN)
    allowance.report(0.2)

    assert allowance.refusal(Amounts(tokens=100), 0.3) is None


def test_limits_that_change_give_back_and_begin_anew() -> None:
    allowance = of(ALL)
    allowance.add(grant(plus(ONE, ONE), requests=LimitState(600, 500, 3.0)), ONE, 0.0)
    running = taken(allowance)
    allowance.report(0.1)

    assert allowance.follow(key(KeyLimits(rpm=5, max_parallel=10)))
    told = allowance.report(0.2)
    running.end("ok", Usage(1, 1), was_sent=True, plan=PLAN)

    assert told is not None
    assert plus(*(each for _, each in told.returned)) == ONE
    assert allowance.now(0.2)[:2] == ((5, 5), None)
    assert allowance.take(0.3) is None
    assert not allowance.follow(key(KeyLimits(rpm=5, max_parallel=10)))


def test_places_that_a_key_may_have_no_more_go_back_as_they_are_left() -> None:
    allowance = of(KeyLimits(max_parallel=5))
    allowance.add(grant(Amounts(parallel=5)), Amounts(parallel=1), 0.0)
    running = [allowance.take(0.0) for _ in range(5)]

    allowance.follow(key(KeyLimits(max_parallel=2)))
    back = 0.0
    for reservation in running:
        assert reservation is not None
        reservation.end("ok", Usage(), was_sent=True, plan=PLAN)
        told = allowance.report(0.1)
        assert told is not None
        back += sum(amounts.parallel for _, amounts in told.returned)
        assert allowance.take(0.1) is None
    allowance.add(grant(Amounts(parallel=2)), Amounts(parallel=1), 0.2)

    assert back == 5
    assert [allowance.take(0.2) is not None for _ in range(3)] == [True, True, False]


def test_what_was_spent_without_a_limit_does_not_blur_one_that_comes_later() -> None:
    allowance = of(KeyLimits(rpm=600))
    allowance.add(grant(Amounts(requests=9)), NOTHING, 0.0)
    assert allowance.take(0.0, 1e30) is not None

    allowance.follow(key(KeyLimits(tpm=1000)))
    allowance.add(grant(Amounts(tokens=100)), Amounts(tokens=100), 0.0)

    assert allowance.take(0.0, 100) is not None
    assert allowance.take(0.0, 100) is None


def test_all_is_there_again_once_the_time_is_over() -> None:
    allowance = of(KeyLimits(rpm=600))
    allowance.add(grant(Amounts(requests=1), requests=LimitState(600, 20, 50.0)), Amounts(requests=1), 0.0)
    allowance.take(0.0)
    allowance.report(3.0)

    assert allowance.now(3.0) == ((600, 20), None, 57.0)
    assert allowance.now(61.0) == ((600, 600), None, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_all_that_was_granted_is_spent_or_goes_back(seed: int) -> None:
    dice = random.Random(seed)
    allowance = of(ALL)
    granted, told, running, now = NOTHING, [NOTHING], list[Reservation](), 0.0

    def keep(spent: Spent | None) -> None:
        if spent is not None:
            told.extend((spent.spent, *(each for _, each in spent.returned)))

    for _ in range(400):
        now += dice.random() / 4
        match dice.randrange(5):
            case 0:
                more = Amounts(*(float(dice.randrange(4)) * each for each in (1, 100, 1, 100)))
                allowance.add(grant(more, slot=now, valid_s=dice.random() * 3), ONE, now)
                granted = plus(granted, more)
            case 1 | 2:
                reservation = allowance.take(now, 100, 100, 90)
                running += [reservation] if reservation is not None else []
            case 3 if running:
                running.pop(dice.randrange(len(running))).end(
                    dice.choice(["ok", "engine_not_ready"]), Usage(3, 4), True, PLAN
                )
            case _:
                keep(allowance.report(now))
    for reservation in running:
        reservation.end("client_left", Usage(), was_sent=False, plan=PLAN)
    allowance.give_back()
    keep(allowance.report(now))
    keep(allowance.report(now + 10 * IDLE_S))

    assert plus(*told) == granted
    assert allowance.take(now, 100, 100) is None


@pytest.mark.parametrize(
    ("ended", "usage", "tokens"),
    [
        ("ok", Usage(7, 8), 15),
        ("ok", Usage(0, 8, is_counted=True), 18),
        ("ok", Usage(is_counted=True), 100),
        ("engine_rejected", Usage(), 0),
        ("engine_failed", Usage(), 0),
        ("engine_disconnected", Usage(0, 5), 15),
        ("client_left", Usage(), 10),
        ("client_left", Usage(7, 2), 9),
        ("shutting_down", Usage(), 10),
    ],
)
def test_what_a_request_came_to_by_how_it_ended(ended: str, usage: Usage, tokens: int) -> None:
    assert tokens_spent(ended, usage, ESTIMATED) == tokens


def test_what_asks_for_no_tokens_comes_to_none() -> None:
    assert tokens_spent("ok", Usage(100, 0), NO_TOKENS) == 0
