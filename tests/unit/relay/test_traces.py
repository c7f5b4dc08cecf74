"""Traces of requests over a real relay, at a collector on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from app.keys import digest
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Key, PublicModel, Target, Tracing
from backends.endpoint import State, UsageMode
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.fakes.trace_collector import CollectedSpan, FakeTraceCollector
from tests.rigs.hop import Server
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
SECRET, SAID = "mp-office-0123", "the colour of my safe is green"
SERVER, CLIENT, INTERNAL = 2, 3, 1


@pytest.fixture
def collector() -> Iterator[FakeTraceCollector]:
    with FakeTraceCollector() as fake:
        yield fake


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine, collector: FakeTraceCollector) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake")) as gateway:
        await gateway.published(tracing=to(collector))
        yield gateway


def to(collector: FakeTraceCollector, **more: object) -> Tracing:
    settings = {"interval_s": 0.02, "attributes": {"service.name": "gateway"}, **more}
    return Tracing(f"{collector.url}/v1/traces", **settings)  # type: ignore[arg-type]


async def spans(
    collector: FakeTraceCollector, is_so: Callable[[list[CollectedSpan]], object] = bool
) -> list[CollectedSpan]:
    return await asyncio.to_thread(collector.until, is_so)


def named(every: list[CollectedSpan], name: str) -> CollectedSpan:
    (one,) = (span for span in every if span.name == name)
    return one


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_a_span_with_what_it_asked_and_what_it_cost(
    rig: Rig, collector: FakeTraceCollector, stream: bool
) -> None:
    reply = await rig.ask(body=chat(stream=stream, temperature=0, max_tokens=100, seed=3))
    every = await spans(collector)

    root = named(every, "chat fake")
    assert (root.kind, root.parent_id, root.status) == (SERVER, "", "unset")
    assert root.end_ns > root.start_ns > 1_700_000_000 * 10**9
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "fake",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.seed": 3,
        "gen_ai.response.model": "fake",
        "gen_ai.response.finish_reasons": ["stop"],
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "modelport.request_id": reply.headers["x-request-id"],
        "modelport.backend": "engine",
        "modelport.attempts": 1,
        "modelport.stream": stream,
    }
    assert root.attributes.items() >= {k: v for k, v in expected.items() if not isinstance(v, list)}.items()
    assert root.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert root.attributes["gen_ai.usage.input_tokens"] > 0
    assert root.attributes["gen_ai.usage.output_tokens"] > 0
    assert "error.type" not in root.attributes


async def test_its_attempt_says_where_and_within_it_when_the_first_token_came(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    await rig.ask(body=chat(stream=True))
    every = await spans(collector)
    root, attempt, first = (named(every, name) for name in ("chat fake", "attempt", "first token"))

    assert len(every) == 3
    assert (attempt.kind, attempt.parent_id, first.parent_id) == (CLIENT, root.span_id, attempt.span_id)
    assert (attempt.attributes["server.address"], attempt.attributes["server.port"]) == ("127.0.0.1", engine.port)
    assert {span.trace_id for span in every} == {root.trace_id}
    assert root.start_ns <= attempt.start_ns <= first.start_ns <= first.end_ns <= attempt.end_ns <= root.end_ns


async def test_the_engine_is_told_the_attempts_span(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    await rig.ask(body=chat())
    attempt = named(await spans(collector), "attempt")

    assert engine.posts[0].header("traceparent") == f"00-{attempt.trace_id}-{attempt.span_id}-01"


async def test_a_clients_trace_goes_on(rig: Rig, engine: FakeEngine, collector: FakeTraceCollector) -> None:
    await rig.ask(body=chat(), headers=PARENT)
    every = await spans(collector)

    assert {span.trace_id for span in every} == {TRACE}
    assert (named(every, "chat fake").parent_id, named(every, "chat fake").trace_state) == (SPAN, "vendor=1")
    told = engine.posts[0]
    assert told.header("traceparent") == f"00-{TRACE}-{named(every, 'attempt').span_id}-01"
    assert told.header("tracestate") == "vendor=1"


async def test_a_state_without_a_valid_parent_does_not_go_on(rig: Rig, engine: FakeEngine) -> None:
    await rig.ask(body=chat(), headers={"traceparent": "nonsense", "tracestate": "vendor=1"})

    assert engine.posts[0].header("traceparent") != "nonsense"
    assert engine.posts[0].header("tracestate") is None


async def test_a_trace_that_its_client_does_not_sample_passes_as_it_came(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "vendor=1"}
    await rig.ask(body=chat(), headers=unsampled)
    await rig.ask(body=chat())
    every = await spans(collector)

    assert TRACE not in {span.trace_id for span in every}
    assert [engine.posts[0].header(name) for name in unsampled] == list(unsampled.values())


@pytest.mark.parametrize("headers", [{}, PARENT])
async def test_where_our_sampler_says_no_no_engine_records_it_either(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector, headers: dict[str, str]
) -> None:
    await rig.published(tracing=to(collector, sampler="always_off"))
    await rig.ask(body=chat(), headers=headers)

    told = engine.posts[0].header("traceparent") or ""
    assert told.endswith("-00")
    assert (TRACE in told) is bool(headers)
    assert SPAN not in told


async def test_where_traces_are_off_a_clients_headers_pass_as_they_came(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(tracing=None)
    await rig.ask(body=chat(), headers=PARENT)
    await rig.ask(body=chat())

    assert [engine.posts[0].header(name) for name in PARENT] == list(PARENT.values())
    assert engine.posts[1].header("traceparent") is None


async def test_each_target_that_was_tried_is_a_span(engine: FakeEngine, collector: FakeTraceCollector) -> None:
    engine.script("status_503_vllm")
    known = {"public": PublicModel("public", (Target("engine", "fake"),), fallbacks=("spare",))}
    known |= models("spare", backend="second", engine_name="fake")
    backends = {"engine": backend(engine.url), "second": backend(engine.url, "second")}
    async with running(backends, known) as rig:
        await rig.published(tracing=to(collector))
        await rig.ask(body=chat("public"))
        every = await spans(collector)

    root = named(every, "chat public")
    tries = [span for span in every if span.name == "attempt"]
    assert (root.attributes["modelport.attempts"], root.attributes["modelport.backend"]) == (2, "second")
    assert [(t.attributes["modelport.backend"], t.attributes.get("error.type"), t.status) for t in tries] == [
        ("engine", "engine_not_ready", "error"),
        ("second", None, "unset"),
    ]


async def test_the_wait_for_an_engine_that_starts_is_a_span_and_the_one_for_a_place_another(
    engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    stopped = backend(None, can_start=True, is_limited=True)
    async with running({"engine": stopped}, models("fake")) as rig:
        await rig.published(tracing=to(collector))
        asked = asyncio.create_task(rig.ask(body=chat()))
        await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
        await rig.published(backends={"engine": backend(engine.url, is_limited=True)})
        await asyncio.sleep(0.02)  # it waits on, for a place
        rig.fleet.asked["engine"].set_result(WaitOutcome(is_ready=True))
        assert (await asked).status == 200
        every = await spans(collector)

    load, queue, attempt = (named(every, name) for name in ("load", "queue", "attempt"))
    assert load.attributes == {"modelport.backend": "engine", "modelport.load.how": "start"}
    assert attempt.attributes["server.port"] == engine.port
    assert (load.parent_id, queue.parent_id, load.kind) == (attempt.span_id, attempt.span_id, INTERNAL)
    assert attempt.start_ns <= load.start_ns <= load.end_ns == queue.start_ns < queue.end_ns <= attempt.end_ns


@pytest.mark.parametrize(("state", "how"), [(State.STOPPED, "start"), (State.SLEEPING, "wake")])
async def test_a_wait_in_vain_is_a_span_too(collector: FakeTraceCollector, state: State, how: str) -> None:
    async with running({"engine": backend(None, state=state, can_start=True)}, models("fake")) as rig:
        await rig.published(tracing=to(collector))
        asked = asyncio.create_task(rig.ask(body=chat()))
        await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
        rig.fleet.asked["engine"].set_result(WaitOutcome(is_ready=False, reason="it does not start"))
        assert (await asked).status == 503
        every = await spans(collector)

    assert named(every, "load").attributes["modelport.load.how"] == how
    assert named(every, "chat fake").attributes["error.type"] == "engine_not_ready"
    assert named(every, "chat fake").status == "error"


ENDS = {
    "accept_then_fin": (502, "engine_disconnected", "error", "error"),
    "reset_mid_stream": (502, "engine_disconnected", "error", "error"),
    "status_400_vllm": (400, "engine_rejected", "unset", "error"),
}


@pytest.mark.parametrize("scenario", ENDS)
async def test_a_failure_is_told_by_its_code(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector, scenario: str
) -> None:
    engine.script(scenario)
    await rig.ask(body=chat(stream=True))
    every = await spans(collector)
    root, attempt = named(every, "chat fake"), named(every, "attempt")

    status, code, of_root, of_attempt = ENDS[scenario]
    assert (root.attributes["http.response.status_code"], root.attributes["error.type"]) == (status, code)
    assert (root.status, attempt.status, attempt.attributes["error.type"]) == (of_root, of_attempt, code)


async def test_a_client_that_leaves_ends_its_spans_and_is_nobodys_failure(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    engine.script("never_answers")
    async with Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", json.dumps(chat()).encode()))
        await engine.arrived()
    every = await spans(collector)
    root, attempt = named(every, "chat fake"), named(every, "attempt")

    assert (root.attributes["error.type"], root.attributes["http.response.status_code"]) == ("client_left", 499)
    assert (root.status, attempt.status) == ("unset", "unset")


async def test_what_an_engine_refuses_and_is_asked_without_is_an_event_of_the_attempt(
    collector: FakeTraceCollector,
) -> None:
    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
            if b"stream_options" in body:
                refusal = {"error": {"message": "Unrecognized request argument: stream_options"}}
                writer.write(wire.whole(400, wire.dumps(refusal), reason="Bad Request"))
            else:
                pieces = [wire.chunk(wire.sse(piece)) for piece in wire.pieces(wire.Ask("chat", "fake"))]
                writer.write(wire.SSE_HEAD + b"".join(pieces) + wire.chunk(wire.DONE) + wire.LAST_CHUNK)

    async with Server(strict) as server:
        row = backend(server.url, usage=UsageMode.TRY, is_ours=False)
        async with running({"engine": row}, models("fake")) as rig:
            await rig.published(tracing=to(collector))
            await rig.ask(body=chat(stream=True))

    attempt = named(collector.spans, "attempt")
    assert attempt.events == [("asked again", {"error.type": "engine_rejected"})]
    assert attempt.status == "unset"


async def test_nothing_that_was_said_and_no_key_is_in_a_span(
    rig: Rig, engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    await rig.published(keys=(Key("office", digest(SECRET)),), backends={"engine": backend(engine.url)})
    for scenario in ("ok", "error_event_first", "accept_then_fin", "invalid_json", "status_400_vllm"):
        engine.script(scenario)
        await rig.ask(body=chat(stream=True, text=SAID), headers={"authorization": f"Bearer {SECRET}"})
    every = await spans(collector, lambda them: len([s for s in them if s.name == "chat fake"]) == 5)

    sent = b"".join(collector.bodies)
    assert every[0].attributes["modelport.principal"] == "office"
    assert [word for word in (SAID, SECRET, "Hello") if word.encode() in sent] == []


async def test_a_refusal_before_a_target_is_a_span_unless_nobody_knows_who_asks(
    rig: Rig, collector: FakeTraceCollector
) -> None:
    await rig.published(keys=(Key("office", digest(SECRET)),))
    bearer = {"authorization": f"Bearer {SECRET}"}
    await rig.ask(body=chat(SAID), headers={"authorization": "Bearer wrong"})
    await rig.ask("/v1/messages", body=chat(SAID, max_tokens=4), headers=bearer | PARENT)
    (span,) = await spans(collector)

    assert (span.name, span.trace_id, span.parent_id, span.status) == ("POST /v1/messages", TRACE, SPAN, "unset")
    assert (
        span.attributes.items()
        >= {
            "error.type": "model_not_found",
            "http.response.status_code": 404,
            "modelport.principal": "office",
        }.items()
    )
    assert SAID.encode() not in collector.bodies[0]


async def test_one_relay_is_one_instance_of_the_service(rig: Rig, collector: FakeTraceCollector) -> None:
    await rig.ask(body=chat())
    await spans(collector)
    await rig.published(tracing=to(collector, ratio=0.5))
    await rig.ask(body=chat())
    every = await spans(collector, lambda them: len([s for s in them if s.name == "chat fake"]) == 2)

    assert {span.resource["service.name"] for span in every} == {"gateway"}
    assert len({span.resource["service.instance.id"] for span in every}) == 1


async def test_what_is_not_sent_yet_is_sent_when_the_relay_ends(
    engine: FakeEngine, collector: FakeTraceCollector
) -> None:
    async with running({"engine": backend(engine.url)}, models("fake")) as rig:
        await rig.published(tracing=to(collector, interval_s=600))
        await rig.ask(body=chat())
        assert collector.spans == []

    assert [span.name for span in collector.spans] == ["chat fake", "attempt"]


async def test_a_collector_that_hangs_or_is_gone_costs_no_request(rig: Rig, collector: FakeTraceCollector) -> None:
    collector.holds.set()
    replies = [await rig.ask(body=chat(stream=True)) for _ in range(20)]
    await rig.published(tracing=Tracing("http://127.0.0.1:9/v1/traces", interval_s=0.01))
    replies += [await rig.ask(body=chat(stream=True)) for _ in range(20)]

    assert {reply.status for reply in replies} == {200}
    collector.holds.clear()


async def test_every_dialect_has_its_span(rig: Rig, collector: FakeTraceCollector) -> None:
    paths = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat", "/v1/embeddings", "/v1/rerank")
    for path in paths:
        body = chat() | {"input": "x", "max_tokens": 4, "query": "x", "documents": ["y"]}
        assert (await rig.ask(path, body)).status == 200, path
    roots = [
        span
        for span in await spans(collector, lambda them: len([s for s in them if s.kind == SERVER]) == len(paths))
        if span.kind == SERVER
    ]

    assert {span.attributes["url.path"]: span.name for span in roots} == {
        **dict.fromkeys(paths[:4], "chat fake"),
        "/v1/embeddings": "embeddings fake",
        "/v1/rerank": "rerank fake",
    }
