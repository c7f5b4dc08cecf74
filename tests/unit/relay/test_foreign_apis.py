"""Other dialects over a real relay: who may come in, what is refused in which words, what is said while it waits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.keys import digest
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend, Key, Limits, PublicModel, Target
from backends.endpoint import State
from tests.fakes.engine import FakeEngine
from tests.fakes.scripted import Scripted, events
from tests.rigs.raw_client import Client, Reply, request
from tests.rigs.relay import Rig, backend, models, running

SECRET = "mp-0123456789"
AUTHORIZED = {"authorization": f"Bearer {SECRET}"}
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "fake", "messages": MESSAGES}
LOCAL = ["http://localhost:3000", "https://127.0.0.1", "http://0.0.0.0:8080", "app://obsidian.md", "tauri://localhost"]


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake"), Limits(hold_s=0.05)) as gateway:
        yield gateway


def lines(reply: Reply) -> list[Any]:
    return [json.loads(line) for line in reply.body.splitlines()]


def sent(engine: FakeEngine) -> Any:
    return json.loads(engine.posts[-1].body)


# -- the first event


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat", "/v1/responses"])
@pytest.mark.parametrize("member", [{"refusal": 5}, {"reasoning": [1]}])
async def test_a_first_event_that_cannot_be_read_is_an_error_with_its_status(path: str, member: dict[str, Any]) -> None:
    choice = {"index": 0, "delta": {"role": "assistant", "content": "a", **member}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "n", "choices": [choice]}
    async with (
        Scripted(lambda _path, _body: events(chunk)) as engine,
        running({"engine": backend(engine.url)}, models("fake"), Limits(hold_s=9)) as gateway,
    ):
        reply = await gateway.ask(path, {**CHAT, "input": "hi", "max_tokens": 9, "stream": True})

        assert reply.status == 502
        assert reply.headers["content-type"].startswith("application/json")


# -- Ollama's


async def test_the_door_says_what_ollamas_clients_wait_for(rig: Rig) -> None:
    plain = await rig.ask("/")

    assert (plain.status, plain.body) == (200, b"Ollama is running")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await rig.ask("/api/version")).json["version"].startswith("0.")


async def test_the_door_and_the_version_need_no_key(rig: Rig) -> None:
    await rig.published(keys=(Key("office", digest(SECRET)),))

    assert [(await rig.ask(path)).status for path in ("/", "/api/version", "/api/tags", "/api/ps")] == [
        200,
        200,
        401,
        401,
    ]
    assert (await rig.ask("/api/tags")).json == {
        "error": "An API key is needed: send it as 'Authorization: Bearer KEY'."
    }
    assert (await rig.ask("/api/tags", headers=AUTHORIZED)).status == 200


@pytest.mark.parametrize("origin", LOCAL)
async def test_pages_and_applications_of_this_machine_may_ask_ollamas_api_and_read_the_answer(
    rig: Rig, origin: str
) -> None:
    headers = {"host": "localhost:8000", "origin": origin}

    reply = await rig.ask("/api/chat", CHAT, headers=headers)
    openai = await rig.ask("/v1/models", headers=headers)

    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, origin)
    assert openai.status == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost.evil.example", "null", "http://localhost:x"]
)
async def test_other_pages_may_not(rig: Rig, engine: FakeEngine, origin: str) -> None:
    for path in ("/", "/api/chat", "/api/tags"):
        reply = await rig.ask(
            path, CHAT if path == "/api/chat" else b"", headers={"host": "localhost", "origin": origin}
        )

        assert reply.status == 403
        assert list(reply.json) == ["error"]
    assert engine.posts == []


async def test_a_name_that_leads_here_from_outside_is_refused(rig: Rig) -> None:
    assert (await rig.ask("/api/tags", headers={"host": "evil.example"})).status == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
@pytest.mark.parametrize("path", ["create", "pull", "push", "copy", "delete", "blobs/sha256:00", "me", "signout"])
async def test_no_order_to_the_daemon_passes(rig: Rig, engine: FakeEngine, method: str, path: str) -> None:
    async with Client(rig.url) as client:
        client.send(request(method, f"/api/{path}", b'{"model":"fake"}'))
        reply = await client.reply(is_head=method == "HEAD")

    assert reply.status == 501
    assert engine.requests == []


async def test_what_is_no_route_or_no_method_is_told_in_ollamas_shape(rig: Rig) -> None:
    missing = await rig.ask("/api/nothing")
    wrong = await rig.ask("/api/chat")
    preflight = await rig.ask("/api/chat", headers={"origin": LOCAL[0], "host": "localhost"})

    assert (missing.status, list(missing.json)) == (404, ["error"])
    assert (wrong.status, wrong.headers["allow"], list(wrong.json)) == (405, "POST, OPTIONS", ["error"])
    assert preflight.headers["access-control-allow-origin"] == LOCAL[0]


async def test_a_body_that_is_said_to_be_a_forms_is_read_as_json(rig: Rig) -> None:
    """curl -d says so, and Ollama's documentation is full of it."""
    form = {"content-type": "application/x-www-form-urlencoded"}

    assert (await rig.ask("/api/chat", CHAT, headers=form)).status == 200
    assert (await rig.ask("/v1/chat/completions", CHAT, headers=form)).status == 415


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"messages": MESSAGES}, 400, "model is required"),
        ({"model": "nope", "messages": MESSAGES}, 404, "model 'nope' not found: There is no such model here."),
        (b"{", 400, "The request's body is not valid JSON."),
        (b"\xff", 400, "The request's body is not valid UTF-8."),
        (b'{"model":"fake","model":"fake"}', 400, "The request's body holds a field twice."),
        (b'{"model":"fake","context":[' + b"1," * 150_000 + b"1]}", 400, "more than 100000 fields"),
    ],
)
async def test_what_is_wrong_is_one_string(rig: Rig, body: object, status: int, said: str) -> None:
    reply = await rig.ask("/api/chat", body)

    assert reply.status == status
    assert said in reply.json["error"]
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


async def test_the_engine_is_asked_in_openais_words_and_only_for_what_it_has(rig: Rig, engine: FakeEngine) -> None:
    options = {"num_predict": 4, "top_k": 3, "typical_p": 0.9, "num_ctx": 8192}

    reply = await rig.ask("/api/chat", {**CHAT, "options": options})

    assert sent(engine) == {
        "model": "fake",
        "messages": MESSAGES,
        "stream": True,
        "max_tokens": 4,
        "top_k": 3,
        "stream_options": {"include_usage": True},
    }
    assert reply.headers["x-modelport-dropped-params"] == "num_ctx, typical_p"
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert lines(reply)[-1]["eval_count"] == 4


async def test_a_large_picture_passes(rig: Rig, engine: FakeEngine) -> None:
    picture = "iVBORw0KGgo" + "A" * 4_000_000

    reply = await rig.ask("/api/generate", {"model": "fake", "prompt": "What?", "images": [picture], "stream": False})

    assert reply.json["response"]
    assert sent(engine)["messages"][0]["content"][1]["image_url"]["url"].endswith(picture)


async def test_while_the_model_starts_a_stream_is_kept_alive_by_empty_pieces(engine: FakeEngine) -> None:
    asleep = {"engine": backend(None, can_start=True)}
    async with running(asleep, models("fake"), Limits(hold_s=0.05)) as rig, Client(rig.url) as client:
        client.send(request("POST", "/api/chat", json.dumps(CHAT).encode()))
        await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
        start = await client.reader.readuntil(b'"done":false}\n')
        await rig.published(backends={"engine": backend(engine.url)})
        rig.fleet.asked["engine"].set_result(WaitOutcome(True))
        rest = await client.reader.readuntil(b'"done":true')

    assert b'"content":""' in start
    assert b'"content":"The"' in start + rest


async def test_an_empty_question_waits_until_the_model_serves(engine: FakeEngine) -> None:
    asleep = {"engine": backend(None, can_start=True)}
    async with running(asleep, models("fake")) as rig, Client(rig.url) as client:
        client.send(request("POST", "/api/generate", b'{"model":"fake"}'))
        await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
        await rig.published(backends={"engine": backend(engine.url)})
        rig.fleet.asked["engine"].set_result(WaitOutcome(True))
        reply = await client.reply()

    assert reply.json["done_reason"] == "load"
    assert engine.posts == []


async def test_a_model_that_will_not_serve_is_told_with_when_to_come_back(engine: FakeEngine) -> None:
    failed = Backend("engine", "vllm", State.FAILED, "it does not start", retry_after_s=9)
    async with running({"engine": failed}, models("fake")) as rig:
        for path in ("/api/chat", "/api/generate"):
            reply = await rig.ask(path, {**CHAT, "prompt": ""})
            assert (reply.status, reply.headers["retry-after"]) == (503, "9")
            assert reply.json == {"error": "engine: it does not start"}


async def test_lists_tell_what_this_key_may_use_and_what_runs(engine: FakeEngine) -> None:
    known = models("fake", "other") | {"asleep": PublicModel("asleep", (Target("sleeper", "asleep"),), parent="fake")}
    backends = {"engine": backend(engine.url), "sleeper": backend(None, "sleeper")}
    async with running(backends, known) as rig:
        listed = (await rig.ask("/api/tags")).json["models"]
        awake = (await rig.ask("/api/ps")).json["models"]
        shown = await rig.ask("/api/show", {"model": "asleep:latest"})
        unknown = await rig.ask("/api/show", {"name": "nope"})
        nameless = await rig.ask("/api/show", {"verbose": True})

    assert [each["name"] for each in listed] == ["fake", "other", "asleep"]
    assert [each["model"] for each in awake] == ["fake", "other"]
    assert shown.json["details"]["parent_model"] == "fake"
    assert (unknown.status, nameless.json) == (404, {"error": "model is required"})


# -- Anthropic's, and OpenAI's responses


async def test_what_is_no_route_or_no_method_is_told_in_each_dialects_shape(rig: Rig) -> None:
    batches = await rig.ask("/v1/messages/batches", {"requests": []})
    message = await rig.ask("/v1/messages")
    response = await rig.ask("/v1/responses")

    assert (batches.status, batches.json["type"]) == (404, "error")
    assert batches.json["error"]["type"] == "not_found_error"
    assert (message.status, message.json["error"]["type"]) == (405, "invalid_request_error")
    assert (response.status, response.error["code"]) == (405, "method_not_allowed")


async def test_a_key_may_come_as_anthropics_clients_send_it(rig: Rig) -> None:
    await rig.published(keys=(Key("office", digest(SECRET)),))
    message = {**CHAT, "max_tokens": 4}

    for path, body in (("/v1/models", b""), ("/v1/messages", message), ("/v1/chat/completions", CHAT)):
        assert (await rig.ask(path, body, headers={"x-api-key": SECRET})).status == 200
        assert (await rig.ask(path, body, headers={"x-api-key": "wrong"})).status == 401
    both = await rig.ask("/v1/messages", message, headers={"x-api-key": "wrong", **AUTHORIZED})
    assert both.status == 200


@pytest.mark.parametrize(
    ("path", "body", "first"),
    [
        ("/v1/messages", {**CHAT, "max_tokens": 4, "stream": True}, b"message_start"),
        ("/v1/responses", {"model": "fake", "input": "hi", "stream": True}, b"response.created"),
    ],
)
async def test_while_the_model_starts_an_event_stream_is_kept_alive_by_comments(
    engine: FakeEngine, path: str, body: dict[str, Any], first: bytes
) -> None:
    asleep = {"engine": backend(None, can_start=True)}
    async with running(asleep, models("fake"), Limits(hold_s=0.05)) as rig, Client(rig.url) as client:
        client.send(request("POST", path, json.dumps(body).encode()))
        await rig.fleet.until(lambda: "engine" in rig.fleet.asked)
        start = await client.reader.readuntil(b"waiting for fake (stopped)\n\n")
        await rig.published(backends={"engine": backend(engine.url)})
        rig.fleet.asked["engine"].set_result(WaitOutcome(True))
        rest = await client.reader.readuntil(b"_stop" if path == "/v1/messages" else b"output_text.done")

    assert first not in start
    assert first in rest


async def test_parameters_that_nobody_heeds_are_named_in_every_dialect(rig: Rig) -> None:
    message = await rig.ask("/v1/messages", {**CHAT, "max_tokens": 4, "service_tier": "auto", "seed": 1})
    response = await rig.ask("/v1/responses", {"model": "fake", "input": "hi", "truncation": "auto"})

    assert message.headers["x-modelport-dropped-params"] == "seed, service_tier"
    assert response.headers["x-modelport-dropped-params"] == "truncation"
