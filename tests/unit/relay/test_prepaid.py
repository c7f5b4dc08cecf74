"""Small requests that are paid for ahead (app/relay/limits/prepaid.py): never more than was granted, and all of it
comes back that nobody needs."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from app.dialects.usage import Usage
from app.ipc import NOTHING, Allowance, Amounts, Spent
from app.relay.limits.key_allowance import IDLE_S, KeyAllowance
from app.relay.limits.prepaid import FEWEST, MOST, Prepaid, SmallRequest, small_like
from app.relay.limits.reservation import Reservation
from app.relay.planning.plan import OPERATIONS, RequestPlan, plan
from app.relay.planning.token_estimate import estimate
from app.table import Budget, Key, KeyLimits, PublicModel, Rules, Table, Target
from tests.rigs.limits import plus

CHAT = "/v1/chat/completions"
ASSUMED = 100
ALL = KeyLimits(rpm=1_000_000, tpm=1_000_000_000, max_parallel=100, budget=Budget(1e9, "tokens", "day"))
PLENTY = Amounts(requests=100_000, tokens=1e8, parallel=50, budget=1e8)


def table(rules: Rules) -> Table:
    models = {name: PublicModel(name, (Target("e", name),), rules=rules) for name in ("fake", "other")}
    return Table(0, models, {}, (), {})


PLAIN = table(Rules())


def asked(path: str = CHAT, served: Table = PLAIN, **fields: Any) -> RequestPlan:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "prompt": "hello"} | fields
    return plan(OPERATIONS[path], json.dumps(body).encode(), served, None)


def small(**fields: Any) -> SmallRequest:
    found = small_like(asked(**fields), ASSUMED)
    assert found is not None
    return found


def of(limits: KeyLimits = ALL, granted: Amounts = PLENTY) -> KeyAllowance:
    """One of which a request was let through, so that there is something like it."""
    allowance = KeyAllowance(Key("office", "", id="k1", limits=limits), lambda: None)
    allowance.add(Allowance(1, "k1", granted, 2.0, 5.0), NOTHING, 0.0)
    return allowance


def prepaid(allowance: KeyAllowance, **fields: Any) -> Prepaid:
    first = allowance.take(0.0, 10, 10, ASSUMED)
    assert first is not None
    first.end("ok", Usage(5, 5), was_sent=True, plan=asked())
    found = small(**fields)
    allowance.prepay(found, float(found.tokens), ASSUMED)
    assert allowance.prepaid is not None
    return allowance.prepaid


@pytest.mark.parametrize(
    "request_",
    [
        asked("/v1/completions"),
        asked(n=2),
        asked(max_tokens=100_000),
        asked(messages=[{"role": "user", "content": "x" * 3000}]),
        asked(served=table(Rules(overrides={"max_tokens": 5}))),
    ],
    ids=["completion", "several answers", "a long answer", "a long prompt", "bounded by the file"],
)
def test_what_is_not_small_has_nothing_like_it(request_: RequestPlan) -> None:
    assert small_like(request_, ASSUMED) is None


@pytest.mark.parametrize(
    ("like_", "request_", "is_let_through"),
    [
        ({"max_tokens": 20}, {"max_tokens": 20}, True),
        ({"max_tokens": 20}, {"max_tokens": 17}, True),
        ({"max_tokens": 20}, {"max_tokens": 16}, False),
        ({"max_tokens": 20}, {"max_tokens": 32}, True),
        ({"max_tokens": 20}, {"max_completion_tokens": 32}, True),
        ({"max_tokens": 20}, {"max_tokens": 33}, False),
        ({"max_tokens": 20}, {"max_tokens": 1, "max_completion_tokens": 1}, False),
        ({"max_tokens": 20}, {"max_tokens": 0}, False),
        ({"max_tokens": 20}, {"max_tokens": None}, False),
        ({"max_tokens": 20}, {"max_tokens": "9"}, False),
        ({"max_tokens": 20}, {"max_tokens": 1e9}, False),
        ({"max_tokens": 20}, {}, False),  # it may be as long as is assumed
        ({"max_tokens": ASSUMED}, {}, True),
        ({}, {}, True),
        ({}, {"n": 2}, False),
        ({}, {"model": "other"}, False),
        ({}, {"messages": [{"role": "user", "content": "x" * 300}]}, False),
        ({}, {"path": "/v1/completions"}, False),
    ],
)
def test_what_is_as_small_is_let_through(like_: dict[str, Any], request_: dict[str, Any], is_let_through: bool) -> None:
    paid = prepaid(of(), **like_)

    assert paid.take(asked(**request_)) is is_let_through


@pytest.mark.parametrize("default", [None, 10, 3000])
def test_none_that_is_let_through_may_come_to_more_than_was_paid(default: int | None) -> None:
    served, dice, passed = table(Rules(defaults={"max_tokens": default} if default else {})), random.Random(7), 0

    def some() -> RequestPlan:
        bound: dict[str, Any] = {"max_tokens": dice.randrange(-1, 5000)} if dice.random() < 0.7 else {}
        text = "x" * dice.randrange(900)
        return asked(CHAT, served, messages=[{"role": "user", "content": text}], **bound)

    for _ in range(400):
        first, second = some(), some()
        found = small_like(first, ASSUMED)
        if found is None:
            continue
        paid = Prepaid(of(KeyLimits(tpm=10**9)), found, 5.0, 10, 0.0, ASSUMED)
        assert paid.tokens >= sum(estimate(first, ASSUMED)[:2])
        if paid.take(second):
            passed += 1
            assert paid.tokens >= sum(estimate(second, ASSUMED)[:2])
    assert passed > 20


def test_one_more_than_was_paid_is_looked_at() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=41))
    paid = prepaid(allowance)
    count = paid.left

    assert FEWEST <= count <= 20  # half of what was granted is where more is asked for
    assert [paid.take(asked()) for _ in range(count + 1)] == [True] * count + [False]


def test_few_are_not_worth_it() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=2 * FEWEST))
    allowance.take(0.0)

    allowance.prepay(small(), 0.0, ASSUMED)

    assert allowance.prepaid is None


def test_what_they_came_to_is_settled_under_their_slot_and_the_rest_comes_back() -> None:
    allowance = of()
    paid = prepaid(allowance, max_tokens=32)
    tokens = paid.tokens
    allowance.report(0.1)
    first = allowance.take(0.1, 10, 10, ASSUMED)
    assert first is not None
    first.end("ok", Usage(5, 5), was_sent=True, plan=asked())
    allowance.prepay(small(max_tokens=32), tokens, ASSUMED)
    assert allowance.prepaid is not None
    again = allowance.prepaid
    for ended, usage, was_sent in [
        ("ok", Usage(12, 3), True),
        ("engine_not_ready", Usage(), True),
        ("client_left", Usage(), False),
        ("client_left", Usage(), True),
    ]:
        assert again.take(asked(max_tokens=32))
        again.end(ended, usage, was_sent, asked(max_tokens=32))

    told = allowance.report(0.2)

    assert told is not None
    assert told.spent == Amounts(requests=5, tokens=10 + 4 * tokens, budget=10 + 4 * tokens)
    prompt = estimate(asked(max_tokens=32), ASSUMED)[0]
    assert told.settled == ((5.0, Amounts(requests=-2, tokens=15 + prompt - 4 * tokens, budget=-10 - 4 * tokens)),)


def test_who_needs_more_gets_what_was_paid_for_others() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=100))
    prepaid(allowance)

    others = [allowance.take(0.0) for _ in range(99)]

    assert all(each is not None for each in others)
    assert allowance.take(0.0) is None
    assert allowance.prepaid is None


def test_they_have_places_as_others_do() -> None:
    allowance = of(KeyLimits(max_parallel=100), Amounts(parallel=3))
    first = [allowance.take(0.0) for _ in range(2)]
    allowance.prepay(small(), 0.0, ASSUMED)
    paid = allowance.prepaid
    assert paid is not None

    assert not paid.take(asked())  # the first to need as many at the same time is looked at
    assert first[0] is not None
    first[0].end("ok", Usage(), was_sent=True, plan=asked())
    assert paid.take(asked())
    assert not paid.take(asked())
    third = allowance.take(0.0)
    assert third is not None
    assert allowance.take(0.0) is None
    paid.end("ok", Usage(), True, asked())
    assert paid.take(asked())


def test_a_place_that_the_key_may_have_no_more_is_taken_by_none_of_them() -> None:
    allowance = of(KeyLimits(max_parallel=100), Amounts(parallel=5))
    running = [allowance.take(0.0) for _ in range(5)]
    allowance.follow(Key("office", "", id="k1", limits=KeyLimits(max_parallel=3)))
    assert running[0] is not None
    running[0].end("ok", Usage(), was_sent=True, plan=asked())
    allowance.prepay(small(), 0.0, ASSUMED)

    assert allowance.prepaid is None or not allowance.prepaid.take(asked())


def test_what_is_paid_for_and_left_is_said_to_be_left() -> None:
    allowance = of(KeyLimits(rpm=1_000_000, tpm=1_000_000_000))
    before = allowance.now(0.0)[:2]
    paid = prepaid(allowance)
    assert paid.take(asked())

    requests, tokens = allowance.now(0.0)[:2]

    assert before[0] is not None
    assert before[1] is not None
    assert requests == (1_000_000, min(1_000_000, before[0][1]))
    assert tokens is not None
    assert before[1][1] - tokens[1] <= 10 + paid.tokens


def test_none_is_paid_for_where_more_is_asked_for() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=1000))
    for _ in range(501):
        allowance.take(0.0)

    allowance.prepay(small(), 0.0, ASSUMED)

    assert allowance.is_low
    assert allowance.prepaid is None


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_all_that_was_granted_is_spent_or_goes_back(seed: int) -> None:
    dice = random.Random(seed)
    allowance = of(granted=NOTHING)
    granted, told, running, now = NOTHING, [NOTHING], list[Prepaid | Reservation](), 0.0
    let_through = 0

    def keep(spent: Spent | None) -> None:
        if spent is not None:
            told.extend((spent.spent, *(each for _, each in spent.returned)))

    for _ in range(600):
        now += dice.random() / 20
        match dice.randrange(8):
            case 0:
                more = Amounts(*(float(dice.randrange(4)) * each for each in (100, 10_000, 5, 10_000)))
                allowance.add(Allowance(1, "k1", more, dice.random() * 3, now), NOTHING, now)
                granted = plus(granted, more)
            case 1 | 2:
                reservation = allowance.take(now, 100, 100, ASSUMED)
                if reservation is not None:
                    running.append(reservation)
                    found = small(max_tokens=16)
                    allowance.prepay(found, float(found.tokens), ASSUMED)
            case 3 | 4 | 5:
                paid = allowance.prepaid
                if paid is not None and paid.take(asked(max_tokens=16)):
                    running.append(paid)
                    let_through += 1
            case 6 if running:
                ended = dice.choice(["ok", "engine_not_ready", "client_left"])
                running.pop(dice.randrange(len(running))).end(ended, Usage(3, 4), True, asked())
            case _:
                keep(allowance.report(now))
        spent = plus(*told)
        assert spent.requests <= granted.requests
        assert spent.tokens <= granted.tokens
        assert allowance.running <= granted.parallel
    for each in running:
        each.end("client_left", Usage(), was_sent=False, plan=asked())
    allowance.give_back()
    keep(allowance.report(now))
    keep(allowance.report(now + 10 * IDLE_S))

    assert plus(*told) == granted
    assert let_through > 0
    assert allowance.take(now, 100, 100) is None
    assert not allowance.is_active


def test_not_more_are_paid_for_than_may_run_away_with_a_limit() -> None:
    assert prepaid(of()).left <= MOST


def test_who_began_without_a_place_gives_none_back() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=1000))
    paid = prepaid(allowance)
    assert all(paid.take(asked()) for _ in range(6))
    allowance.follow(Key("office", "", id="k1", limits=KeyLimits(rpm=1_000_000, max_parallel=10)))
    allowance.report(0.1)
    allowance.add(Allowance(1, "k1", Amounts(requests=100, parallel=3), 2.0, 5.0), NOTHING, 0.2)
    running = [allowance.take(0.2) for _ in range(3)]
    allowance.follow(Key("office", "", id="k1", limits=KeyLimits(rpm=1_000_000, max_parallel=3)))

    for _ in range(6):
        paid.end("ok", Usage(5, 5), True, asked())

    assert all(each is not None for each in running)
    assert allowance.running == 3


def test_none_has_a_place_that_was_not_granted_after_the_limit_was_gone_for_a_while() -> None:
    allowance = of(KeyLimits(max_parallel=10), Amounts(parallel=5))
    running = [allowance.take(0.0) for _ in range(5)]
    for limits in (KeyLimits(), KeyLimits(max_parallel=10)):
        allowance.follow(Key("office", "", id="k1", limits=limits))
        allowance.report(0.1)
    allowance.add(Allowance(1, "k1", Amounts(parallel=1), 2.0, 5.0), NOTHING, 0.2)
    for each in running:
        assert each is not None
        each.end("ok", Usage(), was_sent=True, plan=asked())
    assert allowance.take(0.3) is not None
    allowance.prepay(small(), 0.0, ASSUMED)
    assert allowance.prepaid is not None

    assert not allowance.prepaid.take(asked())


def test_nothing_is_told_while_nothing_ends() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=1000))
    assert prepaid(allowance).take(asked())
    allowance.report(0.1)

    assert allowance.report(0.3) is None
    assert allowance.is_active


def test_who_began_without_a_limit_of_tokens_is_not_counted_under_a_new_one() -> None:
    allowance = of(KeyLimits(rpm=1_000_000), Amounts(requests=1000))
    paid = prepaid(allowance)
    assert paid.take(asked())
    allowance.follow(Key("office", "", id="k1", limits=KeyLimits(rpm=1_000_000, tpm=10_000)))
    allowance.report(0.1)

    paid.end("ok", Usage(2000, 3000), True, asked())

    told = allowance.report(0.2)
    assert told is None or all(not amounts.tokens for _, amounts in told.settled)
