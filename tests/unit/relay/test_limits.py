"""Keys' limits over a real relay: what is asked of the supervisor, what clients are told, what is settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from app.ipc import AllowanceWanted, Amounts, LimitState
from app.keys import digest
from app.table import Budget, Key, KeyLimits, Limits, Price, PublicModel, Target
from backends.endpoint import ModelFacts
from tests.fakes.engine import FakeEngine
from tests.rigs.limits import FakeLimits
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

SECRET = "mp-office"
AUTH = {"authorization": f"Bearer {SECRET}"}
PLENTY = Amounts(requests=1000, tokens=1_000_000, parallel=100, budget=1_000_000)
MESSAGES = [{"role": "user", "content": "hello"}]


def key(**limits: Any) -> Key:
    return Key("office", digest(SECRET), id="k1", limits=KeyLimits(**limits) if limits else None)


@pytest.fixture
def supervisor() -> FakeLimits:
    return FakeLimits(lambda _: {"granted": PLENTY, "valid_s": 30.0, "slot": 7.0})


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine, supervisor: FakeLimits) -> AsyncIterator[Rig]:
    priced = PublicModel("fake", (Target("engine", "fake"),), price=Price(input=1000.0, output=2000.0))
    limits = Limits(assumed_output_tokens=100)
    async with running({"engine": backend(engine.url)}, {"fake": priced}, limits, supervisor) as gateway:
        yield gateway


async def settled(rig: Rig, supervisor: FakeLimits, *, requests: float) -> Amounts:
    """What was spent once so many requests are told and all of them are over."""
    await rig.fleet.until(lambda: supervisor.spending.requests == requests and supervisor.spending.parallel == 0)
    return supervisor.spending


# -- what is asked


async def test_a_key_without_limits_is_never_asked_for(rig: Rig, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert reply.status == 200
    assert supervisor.asked == []
    assert not [name for name in reply.headers if "ratelimit" in name]


async def test_the_first_request_asks_and_those_behind_it_find_what_was_granted(
    rig: Rig, supervisor: FakeLimits
) -> None:
    await rig.published(keys=(key(rpm=600),))

    replies = [await rig.ask(body=chat(), headers=AUTH) for _ in range(5)]

    assert [reply.status for reply in replies] == [200] * 5
    assert [asked.needs for asked in supervisor.asked] == [Amounts(requests=1)]
    assert await settled(rig, supervisor, requests=5) == Amounts(requests=5)


async def test_what_runs_low_is_asked_for_ahead_of_need(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"granted": Amounts(requests=4), "valid_s": 30.0}
    await rig.published(keys=(key(rpm=600),))

    for _ in range(4):
        assert (await rig.ask(body=chat(), headers=AUTH)).status == 200

    assert [asked.needs for asked in supervisor.asked] == [Amounts(requests=1), Amounts()]


async def test_what_is_used_is_asked_for_again_before_it_is_not_valid_any_more(
    rig: Rig, supervisor: FakeLimits
) -> None:
    supervisor.decide = lambda _: {"granted": Amounts(requests=50), "valid_s": 0.8}
    await rig.published(keys=(key(rpm=600),))

    async with asyncio.timeout(20):
        while len(supervisor.asked) < 3:
            assert (await rig.ask(body=chat(), headers=AUTH)).status == 200
            await asyncio.sleep(0.02)

    assert [asked.needs for asked in supervisor.asked] == [Amounts(requests=1), Amounts(), Amounts()]


def out_of(left: dict[str, float]) -> Callable[[AllowanceWanted], dict[str, Any]]:
    """Grants exactly what is needed, as long as there is enough of all of it."""

    def decide(asked: AllowanceWanted) -> dict[str, Any]:
        needs = {name: getattr(asked.needs, name) for name in left}
        for name, need in needs.items():
            if need > left[name]:
                return {"refused": name, "retry_after_s": 60.0}
        for name, need in needs.items():
            left[name] -= need
        return {"granted": Amounts(**needs), "valid_s": 30.0}

    return decide


async def test_what_a_relay_has_already_is_not_asked_for_again(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = out_of({"requests": 3, "parallel": 1})
    await rig.published(keys=(key(rpm=3, max_parallel=1),))

    replies = [await rig.ask(body=chat(), headers=AUTH) for _ in range(4)]

    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert "requests per minute" in replies[3].error["message"]


async def test_requests_that_wait_together_share_what_the_relay_has(rig: Rig, supervisor: FakeLimits) -> None:
    left = {"requests": 20.0, "parallel": 6.0}
    supervisor.decide = out_of(left)
    await rig.published(keys=(key(rpm=20, max_parallel=6),))

    for _ in range(3):
        replies = await asyncio.gather(*(rig.ask(body=chat(), headers=AUTH) for _ in range(6)))
        assert [reply.status for reply in replies] == [200] * 6

    assert left["requests"] == 2


async def test_requests_that_come_together_wait_for_one_reply(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: None
    await rig.published(keys=(key(rpm=600),))
    asking = [asyncio.create_task(rig.ask(body=chat(), headers=AUTH)) for _ in range(6)]
    await rig.fleet.until(lambda: len(supervisor.asked) == 1)
    await asyncio.sleep(0.05)

    supervisor.decide = lambda asked: {"granted": asked.wants, "valid_s": 30.0}
    supervisor.grant(1, "k1", granted=Amounts(requests=2), valid_s=30.0)
    replies = await asyncio.gather(*asking)

    assert [reply.status for reply in replies] == [200] * 6
    assert [asked.wants.requests for asked in supervisor.asked][:2] == [1, 4]


async def test_who_waits_while_limits_change_needs_what_they_are_then(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: None
    await rig.published(keys=(key(rpm=600),))
    asking = asyncio.create_task(rig.ask(body=chat(max_tokens=10), headers=AUTH))
    await rig.fleet.until(lambda: len(supervisor.asked) == 1)

    supervisor.decide = lambda asked: {"granted": asked.needs, "valid_s": 30.0}
    await rig.published(keys=(key(tpm=60_000),))
    supervisor.grant(1, "k1", granted=Amounts(requests=1))
    reply = await asking

    assert reply.status == 200
    assert [asked.needs.tokens > 10 for asked in supervisor.asked] == [False, True]


async def test_what_was_not_spent_in_time_goes_back_under_its_slot(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"granted": Amounts(requests=10, tokens=1000), "valid_s": 0.3, "slot": 41.0}
    await rig.published(keys=(key(rpm=600, tpm=60_000),))

    await rig.ask(body=chat(max_tokens=10), headers=AUTH)
    await rig.fleet.until(lambda: supervisor.returned.requests == 9)

    (back,) = (each for told in supervisor.told for each in told.returned)
    spent = sum(told.spent.tokens for told in supervisor.told)
    assert back == (41.0, Amounts(requests=9, tokens=1000 - spent))


async def test_a_relay_that_ends_gives_back_what_it_has(engine: FakeEngine, supervisor: FakeLimits) -> None:
    async with running({"engine": backend(engine.url)}, models("fake"), granting=supervisor) as rig:
        await rig.published(keys=(key(rpm=600, max_parallel=5),))
        await rig.ask(body=chat(), headers=AUTH)
        rig.drain(1)
        await rig.fleet.until(lambda: supervisor.returned.requests == 999)

    assert supervisor.returned.parallel == 100


async def test_a_supervisor_that_does_not_answer_is_not_waited_for(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: None
    await rig.published(keys=(key(rpm=600),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert (reply.status, reply.error["code"]) == (503, "limits_unknown")
    assert reply.headers["retry-after"] == "1"
    assert engine_requests(rig) == 0


async def test_a_supervisor_that_says_nothing_is_not_asked_without_end(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {}
    await rig.published(keys=(key(rpm=600),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert (reply.status, reply.error["code"]) == (503, "limits_unknown")
    assert len(supervisor.asked) == 3


def engine_requests(rig: Rig) -> float:
    return rig.sample("modelport_attempts_total")


# -- what clients are told


async def test_a_key_that_is_used_up_is_told_when_to_come_again(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"refused": "requests", "retry_after_s": 6.2, "reason": "The store is not reachable."}
    await rig.published(keys=(key(rpm=600),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert reply.status == 429
    assert (reply.error["code"], reply.error["type"]) == ("rate_limit_exceeded", "requests")
    assert reply.error["message"] == (
        "Rate limit reached for the key 'office': requests per minute (RPM), limit 600. Please try again in 7s. "
        "The store is not reachable."
    )
    assert reply.headers["retry-after"] == "7"
    assert 6100 < int(reply.headers["retry-after-ms"]) <= 6200
    assert reply.headers["x-should-retry"] == "true"
    assert rig.sample("modelport_limited_total", key="office", limit="rpm") == 1
    assert rig.sample("modelport_rejected_requests_total", reason="rate_limit_exceeded") == 1
    assert engine_requests(rig) == 0


async def test_until_then_nobody_is_asked(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"refused": "requests", "retry_after_s": 60.0}
    await rig.published(keys=(key(rpm=600),))

    replies = [await rig.ask(body=chat(), headers=AUTH) for _ in range(20)]

    assert {reply.status for reply in replies} == {429}
    assert len(supervisor.asked) == 1


async def test_after_it_they_are(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"refused": "requests", "retry_after_s": 0.1}
    await rig.published(keys=(key(rpm=600),))
    await rig.ask(body=chat(), headers=AUTH)
    supervisor.decide = lambda _: {"granted": PLENTY}
    await asyncio.sleep(0.11)

    assert (await rig.ask(body=chat(), headers=AUTH)).status == 200


async def test_what_was_refused_without_the_store_may_be_asked_for_again_once_it_is_heard(
    rig: Rig, supervisor: FakeLimits
) -> None:
    supervisor.decide = lambda _: {"refused": "budget", "retry_after_s": 200_000.0}
    await rig.published(keys=(key(budget=Budget(20.0, "money", "month")),))
    refused = await rig.ask(body=chat(), headers=AUTH)

    supervisor.decide = lambda _: {"granted": PLENTY}
    supervisor.grant(0, "k1")
    await asyncio.sleep(0.05)
    reply = await rig.ask(body=chat(), headers=AUTH)

    assert [refused.status, reply.status] == [429, 200]


async def test_a_small_request_is_asked_for_where_a_large_one_was_refused(rig: Rig, supervisor: FakeLimits) -> None:
    def few(asked: AllowanceWanted) -> dict[str, Any]:
        if asked.needs.tokens > 200:
            return {"refused": "tokens", "retry_after_s": 30.0}
        return {"granted": asked.needs}

    supervisor.decide = few
    await rig.published(keys=(key(tpm=60_000),))

    large = await rig.ask(body=chat(max_tokens=1000), headers=AUTH)
    larger = await rig.ask(body=chat(max_tokens=2000), headers=AUTH)
    small = await rig.ask(body=chat(max_tokens=10), headers=AUTH)

    assert [large.status, larger.status, small.status] == [429, 429, 200]
    assert large.error["type"] == "tokens"
    assert len(supervisor.asked) == 2
    assert rig.sample("modelport_limited_total", key="office", limit="tpm") == 2


async def test_a_request_larger_than_the_whole_limit_is_told_so_and_never_sent_again(
    rig: Rig, supervisor: FakeLimits
) -> None:
    await rig.published(keys=(key(tpm=500),))

    reply = await rig.ask(body=chat(max_tokens=600), headers=AUTH)

    assert (reply.status, reply.error["code"], reply.error["type"]) == (429, "rate_limit_exceeded", "tokens")
    assert "requested 6" in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert "retry-after" not in reply.headers
    assert supervisor.asked == []


async def test_an_answer_that_nobody_bounds_is_never_what_makes_it_too_large(rig: Rig, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(tpm=60),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert reply.status == 200
    assert [asked.needs.tokens for asked in supervisor.asked] == [60]


async def test_a_bound_that_the_context_does_not_leave_is_not_larger_than_a_budget(
    rig: Rig, engine: FakeEngine, supervisor: FakeLimits
) -> None:
    facts = {"fake": ModelFacts(context_length=2000)}
    await rig.published(
        keys=(key(budget=Budget(5000, "tokens", "day")),), backends={"engine": backend(engine.url, facts=facts)}
    )

    reply = await rig.ask(body=chat(max_tokens=100_000), headers=AUTH)

    assert reply.status == 200
    assert [asked.needs.budget for asked in supervisor.asked] == [2000]


async def test_a_budget_that_is_used_up_is_no_rate(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"refused": "budget", "retry_after_s": 200_000.0}
    await rig.published(keys=(key(budget=Budget(20.0, "money", "month")),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert (reply.status, reply.error["code"], reply.error["type"]) == (429, "insufficient_quota", "insufficient_quota")
    assert "has used up its budget of 20 a month" in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert 199_990 < int(reply.headers["retry-after"]) <= 200_000
    assert rig.sample("modelport_limited_total", key="office", limit="budget") == 1


async def test_a_budget_that_is_set_aside_for_running_requests_is_worth_a_wait(
    rig: Rig, supervisor: FakeLimits
) -> None:
    supervisor.decide = lambda _: {"refused": "budget", "retry_after_s": 2.0}
    await rig.published(keys=(key(budget=Budget(20.0, "money", "month")),))

    reply = await rig.ask(body=chat(), headers=AUTH)

    assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
    assert "set aside for requests that run" in reply.error["message"]
    assert (reply.headers["x-should-retry"], reply.headers["retry-after"]) == ("true", "2")


async def test_a_key_has_only_so_many_requests_at_the_same_time(
    rig: Rig, engine: FakeEngine, supervisor: FakeLimits
) -> None:
    engine.script("endless_drip")

    def one(asked: AllowanceWanted) -> dict[str, Any]:
        if supervisor.granted.parallel:
            return {"refused": "parallel", "retry_after_s": 1.0}
        return {"granted": Amounts(parallel=1)}

    supervisor.decide = one
    await rig.published(keys=(key(max_parallel=1),))
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", b'{"model":"fake","stream":true,"messages":[]}', AUTH))
        body = b'{"model":"fake","stream":true,"messages":[{"role":"user","content":"hi"}]}'
        client.send(request("POST", "/v1/chat/completions", body, AUTH))
        await client.reader.readuntil(b"data: ")
        refused = await rig.ask(body=chat(), headers=AUTH)
    await rig.fleet.until(lambda: rig.leases.total() == 0)
    engine.script()
    after = await rig.ask(body=chat(), headers=AUTH)

    assert (refused.status, refused.error["type"]) == (429, "requests")
    assert "1 requests running" in refused.error["message"]
    assert after.status == 200
    assert supervisor.granted.parallel == 1


HEADERS = {"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"}
OF_TOKENS = {name.replace("requests", "tokens") for name in HEADERS}


@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_says_what_is_left(rig: Rig, supervisor: FakeLimits, stream: bool) -> None:
    supervisor.decide = lambda _: {
        "granted": Amounts(requests=10, tokens=1000),
        "valid_s": 30.0,
        "requests": LimitState(600, 400, 50.0),
        "tokens": LimitState(60_000, 20_000, 50.0),
    }
    await rig.published(keys=(key(rpm=600, tpm=60_000),))

    reply = await rig.ask(body=chat(stream=stream, max_tokens=20), headers=AUTH)

    assert reply.status == 200
    assert reply.headers.keys() >= HEADERS | OF_TOKENS
    assert reply.headers["x-ratelimit-limit-requests"] == "600"
    assert reply.headers["x-ratelimit-remaining-requests"] == "409"
    assert reply.headers["x-ratelimit-reset-requests"] in ("59s", "1m0s")
    assert 20_900 < int(reply.headers["x-ratelimit-remaining-tokens"]) < 20_980


async def test_who_is_refused_is_told_each_time_how_long_it_takes(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {
        "refused": "requests",
        "retry_after_s": 30.0,
        "requests": LimitState(600, 0, 30.0),
    }
    await rig.published(keys=(key(rpm=600),))
    first = await rig.ask(body=chat(), headers=AUTH)
    for _ in range(2):
        await asyncio.sleep(0.6)
        later = await rig.ask(body=chat(), headers=AUTH)

    assert first.headers["x-ratelimit-reset-requests"] == first.headers["retry-after"] + "s" == "30s"
    assert later.headers["x-ratelimit-reset-requests"] == later.headers["retry-after"] + "s" != "30s"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/none"])
async def test_what_is_no_model_request_says_it_too_and_costs_nothing(
    rig: Rig, supervisor: FakeLimits, path: str
) -> None:
    await rig.published(keys=(key(rpm=600),))

    reply = await rig.ask(path, headers=AUTH)

    assert reply.headers["x-ratelimit-remaining-requests"] == "600"
    assert reply.headers["x-ratelimit-reset-requests"] == "0s"
    assert reply.headers.keys().isdisjoint(OF_TOKENS)
    assert supervisor.asked == []


async def test_a_wrong_request_costs_nothing(rig: Rig, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(rpm=600),))

    reply = await rig.ask(body={"model": "none", "messages": MESSAGES}, headers=AUTH)

    assert reply.status == 404
    assert reply.headers["x-ratelimit-limit-requests"] == "600"
    assert supervisor.asked == []


FOREIGN = {
    "/v1/messages": {"model": "fake", "max_tokens": 5, "messages": MESSAGES},
    "/v1/responses": {"model": "fake", "input": "hello"},
    "/api/chat": {"model": "fake", "messages": MESSAGES},
    "/api/generate": {"model": "fake", "prompt": "hello"},
    "/v1/completions": {"model": "fake", "prompt": "hello"},
    "/v1/embeddings": {"model": "fake", "input": "hello"},
    "/v1/tokenize": {"model": "fake", "prompt": "hello"},
    "/v1/rerank": {"model": "fake", "query": "a", "documents": ["b"]},
}


@pytest.mark.parametrize("path", FOREIGN)
async def test_each_route_is_limited_and_refuses_in_its_own_shape(rig: Rig, supervisor: FakeLimits, path: str) -> None:
    supervisor.decide = lambda _: {"refused": "requests", "retry_after_s": 3.0}
    await rig.published(keys=(key(rpm=600),))

    reply = await rig.ask(path, FOREIGN[path], headers=AUTH)

    assert reply.status == 429
    assert reply.headers["retry-after"] == "3"
    if path == "/v1/messages":
        assert reply.json["type"] == "error"
        assert reply.json["error"]["type"] == "rate_limit_error"
        assert reply.headers["anthropic-ratelimit-requests-limit"] == "600"
        assert reply.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert reply.headers.keys().isdisjoint(HEADERS)
    elif path.startswith("/api/"):
        assert reply.json["error"].startswith("Rate limit reached")
    else:
        assert reply.json["error"]["code"] == "rate_limit_exceeded"
        assert reply.headers["x-ratelimit-limit-requests"] == "600"


async def test_a_page_may_read_what_is_left(rig: Rig, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(rpm=600),), cors_origins=("https://app.example",))

    reply = await rig.ask(body=chat(), headers={**AUTH, "origin": "https://app.example"})

    readable = {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert readable >= HEADERS | OF_TOKENS | {"anthropic-ratelimit-tokens-reset"}


async def test_of_a_comparison_only_the_answer_that_comes_too_late_is_refused(rig: Rig, supervisor: FakeLimits) -> None:
    def one(asked: AllowanceWanted) -> dict[str, Any]:
        if supervisor.granted.requests:
            return {"refused": "requests", "retry_after_s": 9.0}
        return {"granted": Amounts(requests=1), "valid_s": 30.0}

    supervisor.decide = one
    await rig.published(keys=(key(rpm=600),), models=models("one", "two", engine_name="fake"))

    body = {"models": ["one", "two"], "messages": MESSAGES, "stream": False, "max_tokens": 5}
    reply = await rig.ask("/v1/compare", body, headers=AUTH)

    assert reply.status == 200
    errors = [each["error"] and each["error"]["code"] for each in reply.json["answers"]]
    assert sorted(errors, key=str) == [None, "rate_limit_exceeded"]
    assert (reply.json["answered"], reply.json["failed"]) == (1, 1)


# -- what is settled


async def test_tokens_are_settled_with_what_the_engine_counted(
    rig: Rig, engine: FakeEngine, supervisor: FakeLimits
) -> None:
    await rig.published(keys=(key(rpm=600, tpm=60_000, budget=Budget(50.0, "money", "day")),))

    reply = await rig.ask(body=chat(max_tokens=50), headers=AUTH)
    usage = reply.json["usage"]
    spending = await settled(rig, supervisor, requests=1)

    (asked,) = supervisor.asked
    assert asked.needs.tokens == 50 + len(engine.posts[0].body) // 4 or asked.needs.tokens > 50
    assert asked.needs.budget == pytest.approx((1000 * (asked.needs.tokens - 50) + 2000 * 50) / 1e6)
    assert spending.tokens == usage["prompt_tokens"] + usage["completion_tokens"]
    assert spending.budget == pytest.approx(0)


@pytest.mark.parametrize(
    ("scenario", "status", "requests"),
    [
        ("status_503_vllm", 503, 0),
        ("status_429_vllm", 429, 0),
        ("refuse", 502, 0),
        ("half_head", 502, 1),
        ("status_500_vllm", 502, 1),
        ("status_400_vllm", 400, 1),
    ],
)
async def test_what_no_engine_took_is_given_back(
    rig: Rig, engine: FakeEngine, supervisor: FakeLimits, scenario: str, status: int, requests: int
) -> None:
    await rig.published(keys=(key(rpm=600, tpm=60_000, max_parallel=5),))
    engine.script(scenario)

    reply = await rig.ask(body=chat(max_tokens=50), headers=AUTH)

    assert reply.status == status
    await rig.fleet.until(lambda: any(told.settled for told in supervisor.told))
    assert supervisor.spending == Amounts(requests=requests)


async def test_of_an_answer_that_breaks_off_what_came_counts(
    rig: Rig, engine: FakeEngine, supervisor: FakeLimits
) -> None:
    await rig.published(keys=(key(tpm=60_000),))
    engine.script("fin_mid_stream")

    reply = await rig.ask(body=chat(stream=True, max_tokens=1000), headers=AUTH)
    await rig.fleet.until(lambda: any(told.settled for told in supervisor.told))

    assert reply.is_cut
    assert 0 < supervisor.spending.tokens < 100


async def test_a_client_that_leaves_has_had_what_came(rig: Rig, engine: FakeEngine, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(rpm=600, tpm=60_000, max_parallel=3),))
    engine.script("endless_drip")
    async with asyncio.timeout(20), Client(rig.url) as client:
        body = b'{"model":"fake","stream":true,"max_tokens":5000,"messages":[{"role":"user","content":"hi"}]}'
        client.send(request("POST", "/v1/chat/completions", body, AUTH))
        await client.reader.readuntil(b"data: ")

    spending = await settled(rig, supervisor, requests=1)
    assert 0 < spending.tokens < 1000


async def test_what_is_over_twice_is_settled_once(rig: Rig, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(rpm=600, max_parallel=5),))

    for _ in range(3):
        await asyncio.gather(*(rig.ask(body=chat(), headers=AUTH) for _ in range(4)))

    assert await settled(rig, supervisor, requests=12) == Amounts(requests=12)


# -- what changes meanwhile


async def test_limits_that_are_taken_away_hold_no_more(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: {"refused": "requests", "retry_after_s": 60.0}
    await rig.published(keys=(key(rpm=1),))
    refused = await rig.ask(body=chat(), headers=AUTH)

    await rig.published(keys=(key(),))
    reply = await rig.ask(body=chat(), headers=AUTH)

    assert (refused.status, reply.status) == (429, 200)
    assert "x-ratelimit-limit-requests" not in reply.headers


async def test_limits_that_change_are_drawn_anew(rig: Rig, supervisor: FakeLimits) -> None:
    await rig.published(keys=(key(rpm=600),))
    await rig.ask(body=chat(), headers=AUTH)

    supervisor.decide = lambda _: {"refused": "requests", "retry_after_s": 60.0}
    await rig.published(keys=(key(rpm=1),))
    refused = await rig.ask(body=chat(), headers=AUTH)
    await rig.fleet.until(lambda: supervisor.returned.requests == 999)
    supervisor.decide = lambda _: {"granted": PLENTY}
    await rig.published(keys=(key(rpm=6000),))
    again = await rig.ask(body=chat(), headers=AUTH)

    assert refused.headers["x-ratelimit-limit-requests"] == "1"
    assert (refused.status, again.status) == (429, 200)


async def test_a_request_that_waits_while_its_limits_are_taken_away_is_let_through(
    rig: Rig, supervisor: FakeLimits
) -> None:
    supervisor.decide = lambda _: None
    await rig.published(keys=(key(rpm=1),))
    waiting = asyncio.create_task(rig.ask(body=chat(), headers=AUTH))
    await rig.fleet.until(lambda: len(supervisor.asked) == 1)

    await rig.published(keys=(key(),))

    assert (await waiting).status == 200


async def test_a_client_that_leaves_while_it_waits_holds_nothing(rig: Rig, supervisor: FakeLimits) -> None:
    supervisor.decide = lambda _: None
    await rig.published(keys=(key(rpm=600, max_parallel=2),))
    async with asyncio.timeout(20), Client(rig.url) as client:
        body = b'{"model":"fake","messages":[{"role":"user","content":"hi"}]}'
        client.send(request("POST", "/v1/chat/completions", body, AUTH))
        await rig.fleet.until(lambda: len(supervisor.asked) == 1)
    await asyncio.sleep(0.05)
    supervisor.decide = lambda asked: {"granted": asked.needs, "valid_s": 0.2}
    supervisor.grant(1, "k1", granted=Amounts(requests=1, parallel=1), valid_s=0.2)

    await rig.fleet.until(lambda: supervisor.returned == Amounts(requests=1, parallel=1))
    assert engine_requests(rig) == 0


@pytest.mark.parametrize("keeps_usage", [False, True])
async def test_where_nothing_is_recorded_a_budget_is_charged_what_each_request_asks_for(
    rig: Rig, supervisor: FakeLimits, *, keeps_usage: bool
) -> None:
    budget = Budget(1e9, "tokens", "day")
    supervisor.decide = lambda _: {"granted": Amounts(requests=1e6, budget=1e9), "valid_s": 30.0, "slot": 7.0}
    await rig.published(keys=(key(rpm=100_000_000, budget=budget),), keeps_usage=keeps_usage)
    asked = [chat(max_tokens=tokens) for tokens in (33, 33, 34, 64)]

    async with Client(rig.url) as client:
        for body in asked:
            client.send(request("POST", "/v1/chat/completions", json.dumps(body).encode(), AUTH))
            assert (await client.reply()).status == 200
    await settled(rig, supervisor, requests=4)

    sizes = [len(json.dumps(body).encode()) // 4 + int(str(body["max_tokens"])) for body in asked]
    spent = sum(told.spent.budget for told in supervisor.told)
    assert (spent > sum(sizes)) is keeps_usage
    assert spent == sum(sizes) or keeps_usage
