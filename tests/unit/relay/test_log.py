"""What a request leaves in the log: who and how long, never what was said."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
import structlog

from app.keys import digest
from app.log import set_up
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Key
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

SECRET = "mp-office-0123"
SAID = "the colour of my safe's key is green"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    set_up("json", "info", out)
    yield out
    structlog.reset_defaults()


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine, lines: io.StringIO) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake")) as gateway:
        await gateway.published(keys=(Key("office", digest(SECRET)),))
        yield gateway


def logged(lines: io.StringIO) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [line for line in entries if line["event"] in ("request", "request failed")]


async def ask(rig: Rig, *, stream: bool) -> int:
    reply = await rig.ask(body=chat(stream=stream, text=SAID), headers={"authorization": f"Bearer {SECRET}"})
    await rig.fleet.until(lambda: rig.leases.total() == 0)
    return reply.status


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_one_line_when_asked_for(rig: Rig, lines: io.StringIO, stream: bool) -> None:
    await rig.published(access_log=True)

    assert await ask(rig, stream=stream) == 200

    (line,) = logged(lines)
    assert (
        line.items()
        >= {
            "principal": "office",
            "operation": "chat",
            "model": "fake",
            "backend": "engine",
            "status": 200,
            "outcome": "ok",
            "streamed": stream,
        }.items()
    )
    assert line["output_tokens"] > 0
    assert line["seconds"] > 0


async def test_without_that_only_failures_are_logged(engine: FakeEngine, rig: Rig, lines: io.StringIO) -> None:
    await ask(rig, stream=False)
    engine.script("accept_then_fin")
    assert await ask(rig, stream=False) == 502

    (line,) = logged(lines)
    assert (line["event"], line["level"], line["outcome"]) == ("request failed", "warning", "engine_disconnected")


async def test_a_client_that_leaves_is_a_line_and_no_failure(engine: FakeEngine, rig: Rig, lines: io.StringIO) -> None:
    await rig.published(access_log=True)
    engine.script("never_answers")
    body = json.dumps(chat(text=SAID)).encode()
    async with Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {SECRET}"}))
        await engine.arrived()
        await rig.fleet.until(lambda: rig.leases.total() == 1)
    await rig.fleet.until(lambda: rig.leases.total() == 0)

    (line,) = logged(lines)
    assert (line["level"], line["outcome"], line["status"]) == ("info", "client_left", 499)


async def test_a_line_says_what_the_request_waited_for_and_which_trace_it_belongs_to(
    engine: FakeEngine, rig: Rig, lines: io.StringIO
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    stopped = backend(None, can_start=True, is_limited=True)
    await rig.published(access_log=True, backends={"engine": stopped})
    headers = {"authorization": f"Bearer {SECRET}", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    asked = asyncio.create_task(rig.ask(body=chat(stream=True), headers=headers))
    await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
    await rig.published(backends={"engine": backend(engine.url, is_limited=True)})
    rig.fleet.asked["engine"].set_result(WaitOutcome(is_ready=True))
    await asked
    await rig.fleet.until(lambda: rig.leases.total() == 0)

    (line,) = logged(lines)
    assert (line["attempts"], line["trace_id"], line["finish_reason"]) == (1, trace, "stop")
    assert 0 < line["load_s"] + line["queue_s"] <= line["first_token_s"] <= line["seconds"]


async def test_a_refusal_before_a_backend_is_a_line_too(rig: Rig, lines: io.StringIO) -> None:
    bearer = {"authorization": f"Bearer {SECRET}"}
    await rig.ask(body=chat("nobody"), headers=bearer)
    assert lines.getvalue() == ""

    await rig.published(access_log=True)
    await rig.ask(body=chat("nobody", text=SAID), headers=bearer)
    await rig.ask(body=chat(), headers={"authorization": f"Bearer {SECRET}x"})
    await rig.ask("/readyz", headers=bearer)

    entries = [json.loads(line) for line in lines.getvalue().splitlines()]
    told = [(e["event"], e["principal"], e["method"], e["status"], e["code"]) for e in entries]
    assert told == [
        ("request refused", "office", "POST", 404, "model_not_found"),
        ("request refused", None, "POST", 401, "invalid_api_key"),
    ]
    assert "nobody" not in lines.getvalue()


# Everything that a client says, in each dialect: a word of its own in each place that takes text.
SECRETS = ("tell-1", "tell-2", "tell-3", "tell-4", "tell-5", "tell-6", "tell-7")
TOOL = {"name": "tell-3", "description": "tell-4", "parameters": {"type": "object", "title": "tell-5"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "title": "tell-6"}}}
SYSTEM = [{"role": "system", "content": "tell-1"}, {"role": "user", "content": "tell-2"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": SYSTEM,
        "tools": [{"type": "function", "function": TOOL}],
        "response_format": SCHEMA,
        "stop": ["tell-7"],
        "user": "tell-7",
    },
    "/v1/completions": {"prompt": "tell-1", "suffix": "tell-2", "stop": ["tell-7"]},
    "/v1/embeddings": {"input": ["tell-1", "tell-2"]},
    "/v1/rerank": {"query": "tell-1", "documents": ["tell-2", "tell-3"]},
    "/v1/score": {"text_1": "tell-1", "text_2": "tell-2"},
    "/v1/tokenize": {"prompt": "tell-1"},
    "/v1/messages": {
        "system": "tell-1",
        "messages": [{"role": "user", "content": "tell-2"}],
        "tools": [{"name": "tell-3", "description": "tell-4", "input_schema": TOOL["parameters"]}],
        "metadata": {"user_id": "tell-7"},
        "max_tokens": 9,
    },
    "/v1/responses": {"instructions": "tell-1", "input": "tell-2", "metadata": {"a": "tell-7"}},
    "/api/chat": {"messages": SYSTEM, "tools": [{"type": "function", "function": TOOL}], "format": {"title": "tell-5"}},
    "/api/generate": {"system": "tell-1", "prompt": "tell-2", "suffix": "tell-3", "template": "tell-4"},
    "/api/embed": {"input": ["tell-1", "tell-2"]},
}
SCENARIOS = ("ok", "error_event_first", "accept_then_fin", "invalid_json", "status_400_vllm", "reset_mid_stream")


@pytest.mark.parametrize("is_valid", [True, False])
@pytest.mark.parametrize("path", BODIES)
async def test_nothing_that_was_said_and_no_key_is_in_the_log(
    engine: FakeEngine, rig: Rig, lines: io.StringIO, path: str, is_valid: bool
) -> None:
    """Whatever becomes of the request, and whatever is wrong with it, at the level that logs most."""
    set_up("json", "debug", lines)
    await rig.published(access_log=True)
    ours = {"engine": backend(engine.url, headers={"authorization": "Bearer tell-engine"})}
    await rig.published(backends=ours)
    wrong: dict[str, Any] = {} if is_valid else {"messages": "tell-1", "input": {"tell-2": 1}, "n": "tell-3"}
    for scenario in SCENARIOS:
        for stream in (True, False):
            engine.script(scenario)
            body = {"model": "fake", "stream": stream, **BODIES[path], **wrong}
            await rig.ask(path, body, headers={"authorization": f"Bearer {SECRET}", "cookie": "tell-cookie"})
    await rig.fleet.until(lambda: rig.leases.total() == 0)

    written = lines.getvalue()
    assert written.count('"event": "request') >= len(SCENARIOS)
    assert [word for word in (*SECRETS, "tell-", SECRET, "Hello") if word in written] == []
