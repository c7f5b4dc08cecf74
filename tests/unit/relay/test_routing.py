"""Which engine gets a request, what may be sent again, and what a client hears while it waits: over a real relay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.ipc import ADAPTER, adapter_key
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Limits, PublicModel, Target
from backends.endpoint import ModelFacts, State, Timeouts
from tests.fakes.answers import RETRY_AFTER_S
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, Reply, chat, request
from tests.rigs.relay import Rig, backend, models, running

HASTY = Timeouts(connect_s=2, first_byte_s=0.2, between_events_s=0.2)
EMBEDDING = {"model": "fake", "input": "x"}


@pytest_asyncio.fixture
async def engines() -> AsyncIterator[tuple[FakeEngine, FakeEngine]]:
    async with FakeEngine() as first, FakeEngine(("fake", "other")) as second:
        yield first, second


@pytest_asyncio.fixture
async def pair(engines: tuple[FakeEngine, FakeEngine]) -> AsyncIterator[Rig]:
    """`fake` on the first engine, falling back to `spare` on the second."""
    first, second = engines
    backends = {"first": backend(first.url, "first"), "second": backend(second.url, "second")}
    served = {"fake": PublicModel("fake", (Target("first", "fake"),), ("spare",)), "spare": _model("spare", "second")}
    async with running(backends, served) as rig:
        yield rig


@pytest_asyncio.fixture
async def waiting() -> AsyncIterator[tuple[Rig, FakeEngine]]:
    """One engine that does not serve yet and can be started; clients are held for 50 ms."""
    async with FakeEngine() as engine:
        asleep = {"engine": backend(None, can_start=True)}
        async with running(asleep, models("fake"), Limits(hold_s=0.05)) as rig:
            yield rig, engine


def _model(name: str, of: str) -> PublicModel:
    return PublicModel(name, (Target(of, "other"),))


def _counts(engines: tuple[FakeEngine, FakeEngine]) -> tuple[int, int]:
    return len(engines[0].posts), len(engines[1].posts)


def assert_retry(reply: Reply, said: str | None) -> None:
    assert reply.headers.get("x-should-retry") == said


# -- what goes to the next target


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scenario", ["refuse", "fin_unread", "status_429_vllm", "status_503_empty"])
async def test_what_the_engine_did_not_take_goes_to_the_next(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine], scenario: str, stream: bool
) -> None:
    engines[0].script(scenario)

    reply = await pair.ask(body=chat(stream=stream))

    assert reply.status == 200
    assert reply.text
    assert len(engines[1].posts) == 1
    refused_unread = scenario in ("refuse", "fin_unread")
    assert len(engines[0].posts) == (0 if refused_unread else 1)
    if refused_unread:
        await pair.fleet.until(lambda: pair.fleet.failed == [("first", 1)])


async def test_the_next_target_is_asked_by_its_own_name_for_the_model(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    engines[0].refuse()

    reply = await pair.ask(body=chat())

    assert b'"model":"other"' in engines[1].posts[0].body
    assert reply.json["model"] == "fake"


@pytest.mark.parametrize(("scenario", "status"), [("status_429_vllm", 429), ("status_503_vllm", 503)])
async def test_when_all_refuse_the_last_ones_advice_reaches_the_client(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine], scenario: str, status: int
) -> None:
    for engine in engines:
        engine.script(scenario)

    reply = await pair.ask(body=chat())

    assert reply.status == status
    assert reply.headers["retry-after"] == str(RETRY_AFTER_S)
    assert_retry(reply, "true")
    assert _counts(engines) == (1, 1)


async def test_a_reset_of_an_engine_that_is_not_ours_is_not_sent_again(
    engines: tuple[FakeEngine, FakeEngine],
) -> None:
    engines[0].script("fin_unread")
    backends = {
        "first": backend(engines[0].url, "first", is_ours=False),
        "second": backend(engines[1].url, "second"),
    }
    served = {"fake": PublicModel("fake", (Target("first", "fake"),), ("spare",)), "spare": _model("spare", "second")}
    async with running(backends, served) as rig:
        reply = await rig.ask(body=chat())

    assert (reply.status, reply.error["code"]) == (502, "engine_disconnected")
    assert_retry(reply, "false")
    assert engines[1].posts == []


async def test_targets_in_the_table_that_serve_come_before_those_that_do_not(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    both = PublicModel("fake", (Target("asleep", "fake", 99), Target("first", "fake", 1)))
    backends = {**pair.table.backends, "asleep": backend(None, "asleep", can_start=True)}
    await pair.published(models={"fake": both}, backends=backends)

    assert (await pair.ask(body=chat())).status == 200
    assert pair.fleet.asked == {}


# -- what is never sent again


TAKEN = {
    "accept_then_fin": (502, "engine_disconnected"),
    "half_head": (502, "engine_disconnected"),
    "garbage": (502, "engine_broken_answer"),
    "html_200": (502, "engine_broken_answer"),
    "status_500_vllm": (502, "engine_failed"),
    "status_401_vllm": (502, "engine_failed"),
}


@pytest.mark.parametrize("scenario", TAKEN)
async def test_what_the_engine_may_have_taken_is_never_sent_again(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine], scenario: str
) -> None:
    for count, stream in enumerate((False, True), 1):
        engines[0].script(scenario)

        reply = await pair.ask(body=chat(stream=stream))

        assert (reply.status, reply.error["code"]) == TAKEN[scenario]
        assert_retry(reply, "false")
        assert _counts(engines) == (count, 0)


async def test_an_engine_that_says_nothing_in_time_is_not_asked_again_and_its_work_is_cancelled(
    engines: tuple[FakeEngine, FakeEngine],
) -> None:
    engines[0].script("never_answers")
    async with running({"engine": backend(engines[0].url, timeouts=HASTY)}, models("fake")) as rig:
        reply = await rig.ask(body=chat())

        assert (reply.status, reply.error["code"]) == (504, "engine_timeout")
        assert_retry(reply, "false")
        record = await engines[0].arrived()
        await asyncio.wait_for(record.closed_by_peer.wait(), 20)
        assert len(engines[0].posts) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_the_engine_refuses_is_the_clients_to_mend(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine], status: int
) -> None:
    engines[0].script(f"status_{status}_vllm")

    reply = await pair.ask(body=chat())

    assert reply.status == status
    assert_retry(reply, None)
    assert _counts(engines) == (1, 0)


@pytest.mark.parametrize("scenario", ["accept_then_fin", "status_500_vllm", "half_json"])
async def test_embeddings_are_sent_once_more(pair: Rig, engines: tuple[FakeEngine, FakeEngine], scenario: str) -> None:
    engines[0].script(scenario)

    mended = await pair.ask("/v1/embeddings", EMBEDDING)
    engines[0].script(default=scenario)
    failed = await pair.ask("/v1/embeddings", EMBEDDING)

    assert (mended.status, len(mended.json["data"])) == (200, 1)
    assert failed.status == 502
    assert _counts(engines) == (4, 0)


async def test_embeddings_that_the_engine_refuses_are_not_sent_again(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    engines[0].script("status_400_vllm")

    assert (await pair.ask("/v1/embeddings", EMBEDDING)).status == 400
    assert _counts(engines) == (1, 0)


async def test_embeddings_go_out_twice_at_most_however_many_engines_there_are(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    engines[0].script("accept_then_fin", "status_503_vllm", default="status_503_vllm")
    engines[1].script(default="accept_then_fin")

    failed = await pair.ask("/v1/embeddings", EMBEDDING)

    assert (failed.status, failed.headers["x-should-retry"]) == (502, "false")
    assert sum(_counts(engines)) <= 3


# -- waiting for an engine


async def _wait_for_engine(rig: Rig) -> asyncio.Future[WaitOutcome]:
    await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
    return rig.fleet.asked["engine"]


async def test_a_request_waits_for_an_engine_that_can_be_started(waiting: tuple[Rig, FakeEngine]) -> None:
    rig, engine = waiting
    asking = asyncio.create_task(rig.ask(body=chat()))
    wait = await _wait_for_engine(rig)
    await rig.fleet.until(lambda: rig.leases.held("engine", 0) == 1)

    rig.publish(backends={"engine": backend(engine.url, generation=3)})
    wait.set_result(WaitOutcome(is_ready=True))
    reply = await asking

    assert reply.status == 200
    await rig.fleet.until(lambda: rig.leases.total() == 0)


async def test_an_engine_that_will_not_start_is_told_with_advice(waiting: tuple[Rig, FakeEngine]) -> None:
    rig, _ = waiting
    asking = asyncio.create_task(rig.ask(body=chat()))

    (await _wait_for_engine(rig)).set_result(WaitOutcome(is_ready=False, reason="it does not fit", retry_after_s=30))
    reply = await asking

    assert (reply.status, reply.error["code"]) == (503, "engine_not_ready")
    assert "it does not fit" in reply.error["message"]
    assert reply.headers["retry-after"] == "30"
    assert_retry(reply, "true")


async def test_an_engine_that_stopped_again_meanwhile_is_not_dialled(waiting: tuple[Rig, FakeEngine]) -> None:
    rig, _ = waiting
    asking = asyncio.create_task(rig.ask(body=chat()))

    (await _wait_for_engine(rig)).set_result(WaitOutcome(is_ready=True))
    reply = await asking

    assert (reply.status, reply.error["code"]) == (503, "engine_not_ready")


async def test_waiting_ends_in_time(waiting: tuple[Rig, FakeEngine]) -> None:
    rig, _ = waiting
    await rig.published(limits=Limits(wait_s=0.1))

    reply = await rig.ask(body=chat())

    assert reply.status == 503
    assert "not ready after 2.1 s" in reply.error["message"]
    await rig.fleet.until(lambda: rig.fleet.asked["engine"].cancelled())


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.STOPPING])
async def test_an_engine_that_cannot_be_started_is_told_at_once(state: State) -> None:
    down = backend(None, state=state, reason="its model is broken", retry_after_s=17)
    async with running({"engine": down}, models("fake")) as rig:
        reply = await rig.ask(body=chat(stream=True))

    assert reply.status == 503
    assert "its model is broken" in reply.error["message"]
    assert reply.headers["retry-after"] == "17"
    assert rig.fleet.asked == {}


WRITES, EMBEDS = {"chat": "declared", "completion": "declared"}, {"embedding": "declared"}
NEITHER = {"chat": "failed", "completion": "failed", "embedding": "failed"}


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize(
    ("path", "can", "said"),
    [
        ("/v1/embeddings", WRITES, "writes text and makes no embeddings"),
        ("/v1/embeddings", {**WRITES, "embedding": "failed"}, "writes text and makes no embeddings"),
        ("/api/embed", WRITES, "writes text and makes no embeddings"),
        ("/v1/chat/completions", EMBEDS, "makes embeddings and writes no text"),
        ("/v1/completions", EMBEDS, "makes embeddings and writes no text"),
        ("/v1/responses", EMBEDS, "makes embeddings and writes no text"),
        ("/v1/messages", EMBEDS, "makes embeddings and writes no text"),
        ("/api/chat", EMBEDS, "makes embeddings and writes no text"),
        ("/api/generate", EMBEDS, "makes embeddings and writes no text"),
    ],
)
async def test_what_a_model_is_not_made_for_is_refused_before_its_engine_is_asked_or_started(
    engines: tuple[FakeEngine, FakeEngine], path: str, can: dict[str, str], said: str, is_up: bool
) -> None:
    row = backend(engines[0].url if is_up else None, facts={"fake": ModelFacts(capabilities=can)}, can_start=True)
    async with running({"engine": row}, models("fake")) as rig:
        reply = await rig.ask(path, {"model": "fake", "stream": False, **ANYWHERE[path]})

        assert reply.status == 400
        assert said in reply.body.decode()
        assert engines[0].posts == []
        assert rig.fleet.asked == {}


@pytest.mark.parametrize("can", [{}, NEITHER, {**WRITES, **EMBEDS}])
async def test_what_is_not_known_of_a_model_is_left_to_its_engine(
    engines: tuple[FakeEngine, FakeEngine], can: dict[str, str]
) -> None:
    row = backend(engines[0].url, facts={"fake": ModelFacts(capabilities=can)})
    async with running({"engine": row}, models("fake")) as rig:
        statuses = [(await rig.ask("/v1/embeddings", EMBEDDING)).status, (await rig.ask(body=chat())).status]

    assert statuses == [200, 200]


GIVEN_UP = "its model is broken; it has given up until 02:15:03 UTC: `modelport start engine` tries at once"
ANYWHERE: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/rerank": {"query": "x", "documents": ["x"]},
    "/v1/tokenize": {"prompt": "x"},
    "/api/chat": {"messages": [{"role": "user", "content": "x"}]},
    "/api/generate": {"prompt": "x"},
    "/api/embed": {"input": "x"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ANYWHERE)
async def test_what_has_given_up_is_not_to_be_asked_again_and_says_what_helps(path: str, stream: bool) -> None:
    """SDKs waited twice for the minute that they were told, for an engine that nobody would start."""
    down = backend(
        None, state=State.FAILED, reason=GIVEN_UP, is_given_up=True, tries_at=time.time() + 598.5, retry_after_s=5
    )
    async with running({"engine": down}, models("fake")) as rig:
        reply = await rig.ask(path, {"model": "fake", "stream": stream, **ANYWHERE[path]})

    assert reply.status == 503
    assert "`modelport start engine` tries at once" in reply.body.decode()
    assert 590 < int(reply.headers["retry-after"]) <= 599
    assert_retry(reply, "false")


async def test_what_is_held_says_no_time_at_which_it_would_come_back() -> None:
    down = backend(None, reason="it was stopped by hand: `modelport start engine` starts it", is_given_up=True)
    async with running({"engine": down}, models("fake")) as rig:
        reply = await rig.ask(body=chat())

    assert (reply.status, reply.error["code"]) == (503, "engine_not_ready")
    assert "retry-after" not in reply.headers
    assert "retry-after-ms" not in reply.headers
    assert_retry(reply, "false")


async def test_a_request_that_waits_for_an_engine_that_then_gives_up_is_told_so(
    waiting: tuple[Rig, FakeEngine],
) -> None:
    rig, _ = waiting
    await rig.published(limits=Limits(hold_s=60))
    asking = asyncio.create_task(rig.ask(body=chat()))
    wait = await _wait_for_engine(rig)

    rig.publish(backends={"engine": backend(None, state=State.FAILED, reason=GIVEN_UP, is_given_up=True)})
    wait.set_result(WaitOutcome(is_ready=False, reason="its model is broken", retry_after_s=30))
    reply = await asking

    assert "it has given up until" in reply.error["message"]
    assert "retry-after" not in reply.headers
    assert_retry(reply, "false")


@pytest.mark.parametrize("is_first", [False, True])
async def test_one_engine_that_has_given_up_does_not_speak_for_another_that_is_busy(
    engines: tuple[FakeEngine, FakeEngine], is_first: bool
) -> None:
    engines[0].script("status_429_vllm")
    backends = {"busy": backend(engines[0].url, "busy"), "down": backend(None, "down", is_given_up=True)}
    order = ("down", "busy") if is_first else ("busy", "down")
    served = {
        "fake": PublicModel("fake", (Target(order[0], "fake"),), ("spare",)),
        "spare": PublicModel("spare", (Target(order[1], "fake"),)),
    }
    async with running(backends, served) as rig:
        reply = await rig.ask(body=chat())

    assert reply.status == 429
    assert_retry(reply, "true")


async def test_a_request_holds_its_adapter_as_well_as_its_engine() -> None:
    """An adapter is taken from its engine when nobody uses it any more: of that, the engine's leases say nothing."""
    async with FakeEngine(("fake", "law")) as engine:
        row = backend(engine.url, adapters={"law": None})
        async with running({"engine": row}, models("fake", "law")) as rig, Client(rig.url) as client:
            engine.script("slow_first_event")
            body = json.dumps(chat("law", stream=True)).encode()
            client.send(request("POST", "/v1/chat/completions", body))
            await rig.fleet.until(lambda: rig.leases.held(adapter_key("engine", "law"), ADAPTER) == 1)
            assert rig.leases.held("engine", 1) == 1
            assert rig.leases.total() == 1, "it is one request"
            await rig.fleet.until(lambda: rig.leases.held(adapter_key("engine", "law"), ADAPTER) == 0)

            assert (await client.reply()).status == 200
            assert rig.leases.total() == 0


# -- a client that is held


async def _held(client: Client, body: bytes) -> Reply:
    """A stream whose answer was opened early; what came until then was only a comment."""
    client.send(request("POST", "/v1/chat/completions", body))
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    await client.reader.readuntil(b"\r\n")
    assert (await client.reader.readuntil(b"\n\n")).startswith(b": waiting for fake (")
    await client.reader.readuntil(b"\r\n")
    return Reply(200, {"content-type": "text/event-stream"})


async def _rest(client: Client, reply: Reply) -> Reply:
    try:
        while size := int((await client.reader.readuntil(b"\r\n")).strip(), 16):
            reply.body += (await client.reader.readexactly(size + 2))[:-2]
        await client.reader.readuntil(b"\r\n")
        reply.is_whole = True
    except asyncio.IncompleteReadError:
        pass
    return reply


BODY = b'{"model":"fake","stream":true,"messages":[{"role":"user","content":"hi"}]}'


async def test_a_stream_that_waits_long_is_opened_with_comments_and_answered_all_the_same(
    waiting: tuple[Rig, FakeEngine],
) -> None:
    rig, engine = waiting
    async with asyncio.timeout(20), Client(rig.url) as client:
        reply = await _held(client, BODY)
        rig.publish(backends={"engine": backend(engine.url)})
        (await _wait_for_engine(rig)).set_result(WaitOutcome(is_ready=True))
        reply = await _rest(client, reply)

    assert reply.is_whole
    assert reply.events[-1] == "[DONE]"
    assert reply.text


async def test_a_held_stream_whose_engine_does_not_come_ends_with_one_event_and_a_cut(
    waiting: tuple[Rig, FakeEngine],
) -> None:
    rig, _ = waiting
    async with asyncio.timeout(20), Client(rig.url) as client:
        reply = await _held(client, BODY)
        (await _wait_for_engine(rig)).set_result(WaitOutcome(is_ready=False, reason="it does not fit"))
        reply = await _rest(client, reply)

    assert reply.is_cut
    assert [event["error"]["code"] for event in reply.events] == ["engine_not_ready"]


@pytest.mark.parametrize("scenario", ["never_answers", "headers_then_nothing"])
async def test_a_held_stream_whose_first_event_does_not_come_ends_with_one_event_and_a_cut(
    engines: tuple[FakeEngine, FakeEngine], scenario: str
) -> None:
    engines[0].script(scenario)
    patient = Timeouts(first_byte_s=0.5, between_events_s=0.5)
    async with running(
        {"engine": backend(engines[0].url, timeouts=patient)}, models("fake"), Limits(hold_s=0.05)
    ) as rig:
        async with asyncio.timeout(20), Client(rig.url) as client:
            reply = await _rest(client, await _held(client, BODY))
        await rig.fleet.until(lambda: rig.leases.total() == 0)

    assert reply.is_cut
    assert [event["error"]["code"] for event in reply.events] == ["engine_timeout"]
    assert "[DONE]" not in reply.events


async def test_a_slow_first_event_comes_after_the_comments(engines: tuple[FakeEngine, FakeEngine]) -> None:
    engines[0].script("slow_first_event")
    serving = running({"engine": backend(engines[0].url)}, models("fake"), Limits(hold_s=0.05))
    async with serving as rig, asyncio.timeout(20), Client(rig.url) as client:
        reply = await _rest(client, await _held(client, BODY))

    assert reply.is_whole
    assert reply.events[-1] == "[DONE]"
    assert b": waiting" not in reply.body[reply.body.index(b"data:") :]


# -- the end


async def test_a_relay_that_drains_finishes_its_streams_and_takes_no_new_connection(
    pair: Rig, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    engines[0].script("drip")
    asking = asyncio.create_task(pair.ask(body=chat(stream=True)))
    await engines[0].arrived()

    pair.drain(20)
    async with asyncio.timeout(20):
        while not await _is_refused(pair):
            pass
    reply = await asking

    assert reply.is_whole
    assert reply.events[-1] == "[DONE]"


async def _is_refused(rig: Rig) -> bool:
    try:
        async with Client(rig.url):
            return False
    except ConnectionError:  # refused, or reset where the listener closed before it was accepted
        return True
