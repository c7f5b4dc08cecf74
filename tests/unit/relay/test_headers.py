"""What an answer's headers say of who gave it, how long that took, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.errors import Problem
from app.table import Backend, Limits, PublicModel, Serving, Target, Wildcard
from backends.endpoint import State
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

CHAT = "/v1/chat/completions"
ORIGIN = "https://chat.example"


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("public", engine_name="fake")) as gateway:
        yield gateway


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_says_which_model_and_engine_gave_it_and_how_long_it_took(rig: Rig, stream: bool) -> None:
    reply = await rig.ask(body=chat("public", stream=stream))

    assert reply.headers["x-modelport-model"] == "public"
    assert reply.headers["x-modelport-backend"] == "engine"
    assert reply.headers["x-modelport-attempts"] == "1"
    assert 0 <= int(reply.headers["openai-processing-ms"]) < 60_000


async def test_an_alias_is_told_by_the_name_it_stands_for(rig: Rig) -> None:
    await rig.published(aliases={"nick": "public"})

    reply = await rig.ask(body=chat("nick"))

    assert (reply.json["model"], reply.headers["x-modelport-model"]) == ("nick", "public")


async def test_a_name_that_no_header_can_carry_is_quoted(engine: FakeEngine) -> None:
    async with running({"engine": backend(engine.url)}, models("größe", engine_name="fake")) as rig:
        reply = await rig.ask(body=chat("größe"))

    assert (reply.status, reply.headers["x-modelport-model"]) == (200, "gr%C3%B6%C3%9Fe")


async def test_a_name_of_a_wildcard_cannot_write_headers(engine: FakeEngine) -> None:
    loose = backend(engine.url, models=None)
    async with running({"engine": loose}, {}) as rig:
        await rig.published(wildcards=(Wildcard("w/", "engine"),))
        reply = await rig.ask(body=chat("w/x\r\nset-cookie: a=b"))

    assert reply.status == 404
    assert reply.headers["x-modelport-model"] == "w/x%0D%0Aset-cookie%3A%20a%3Db"
    assert "set-cookie" not in reply.headers


async def test_each_engine_that_was_asked_is_an_attempt(engine: FakeEngine) -> None:
    engine.script("status_503_vllm")
    known = {"public": PublicModel("public", (Target("engine", "fake"),), fallbacks=("spare",))}
    known |= models("spare", backend="second", engine_name="fake")
    backends = {"engine": backend(engine.url), "second": backend(engine.url, "second")}
    async with running(backends, known) as rig:
        reply = await rig.ask(body=chat("public"))

    assert (reply.status, reply.headers["x-modelport-backend"]) == (200, "second")
    assert reply.headers["x-modelport-attempts"] == "2"


@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/nothing"])
async def test_what_no_engine_was_asked_for_names_none(rig: Rig, path: str) -> None:
    reply = await rig.ask(path)

    assert not [name for name in reply.headers if name.startswith("x-modelport") or name == "openai-processing-ms"]


async def test_a_request_that_is_refused_unread_names_none(rig: Rig) -> None:
    assert "x-modelport-backend" not in (await rig.ask(body=chat("nobody"))).headers


@pytest.mark.parametrize("name", ["traceparent", "tracestate"])
async def test_a_trace_goes_on_at_the_engine(rig: Rig, engine: FakeEngine, name: str) -> None:
    await rig.ask(body=chat("public"), headers={name: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})

    assert engine.posts[0].header(name) == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


# -- when to come again


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/api/chat", "/v1/tokenize"])
@pytest.mark.parametrize(("scenario", "status"), [("status_429_vllm", 429), ("status_503_vllm", 503)])
async def test_every_dialect_is_told_when_to_come_again(
    rig: Rig, engine: FakeEngine, path: str, scenario: str, status: int
) -> None:
    engine.script(default=scenario)
    body = {**chat("public"), "input": "x", "max_tokens": 4}
    if path == "/v1/tokenize":
        body = {"model": "public", "prompt": "x"}

    reply = await rig.ask(path, body)

    assert reply.status in (status, 529)
    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("7", "7000")


async def test_an_engine_that_does_not_run_and_a_gateway_without_one_say_it_too(engine: FakeEngine) -> None:
    stopped = Backend("engine", "vllm", State.FAILED, "it does not start", retry_after_s=9)
    async with running({"engine": stopped}, models("public")) as rig:
        replies = [await rig.ask(body=chat("public")), await rig.ask("/readyz")]

    assert [reply.status for reply in replies] == [503, 503]
    assert [reply.headers["retry-after"] for reply in replies] == ["9", "5"]
    assert all("retry-after-ms" in reply.headers for reply in replies)


async def test_a_connection_too_many_says_it_too(engine: FakeEngine) -> None:
    async with (
        running({"engine": backend(engine.url)}, models("public"), Limits(max_connections=1)) as rig,
        Client(rig.url) as first,
    ):
        first.send(request("GET", "/livez"))
        await first.reply()
        async with Client(rig.url) as second:
            reply = await second.reply()

    assert (reply.status, reply.headers["retry-after"], reply.headers["retry-after-ms"]) == (503, "5", "5000")


@pytest.mark.parametrize("status", [429, 503])
def test_no_problem_of_that_kind_can_be_made_without_it(status: int) -> None:
    assert set(Problem(status, None, "later").headers) == {"retry-after", "retry-after-ms"}
    assert Problem(status, None, "later", headers={"retry-after": "9"}).headers["retry-after"] == "9"


# -- pages of others


async def test_a_page_that_may_read_reads_every_header_that_we_send(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(cors_origins=(ORIGIN,))
    replies = [await rig.ask(body=chat("public"), headers={"origin": ORIGIN})]
    engine.script("status_503_vllm")
    replies.append(await rig.ask(body=chat("public"), headers={"origin": ORIGIN}))
    replies.append(
        await rig.ask(
            "/v1/rerank", {"model": "public", "query": "q", "documents": ["a"], "n": 1}, headers={"origin": ORIGIN}
        )
    )

    safelisted = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
    ours = safelisted | {"date", "vary", "connection", "access-control-allow-origin", "access-control-expose-headers"}
    for reply in replies:
        shown = {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
        assert set(reply.headers) - ours <= shown
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize("path", [CHAT, "/v1/rerank", "/v1/audio/transcriptions", "/v1/messages", "/v1/models"])
async def test_a_preflight_is_answered_without_a_key_and_reaches_no_engine(
    rig: Rig, engine: FakeEngine, path: str
) -> None:
    await rig.published(cors_origins=(ORIGIN,))
    method = "GET" if path == "/v1/models" else "POST"
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization",
    }

    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("OPTIONS", path, b"", headers))
        reply = await client.reply()

    assert (reply.status, reply.body) == (204, b"")
    assert method in reply.headers["access-control-allow-methods"].split(", ")
    assert reply.headers["access-control-allow-headers"] == "authorization"
    assert reply.headers["access-control-max-age"] == "600"
    assert engine.requests == []


async def test_without_the_setting_nobody_elses_page_may_read(rig: Rig) -> None:
    reply = await rig.ask(body=chat("public"), headers={"origin": ORIGIN})

    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers


SERVED = {"fake": Serving("0123456789abcdef", "a" * 64)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {}),
        ("/v1/messages", {"max_tokens": 5}),
        ("/v1/responses", {"input": "a", "messages": None}),
        ("/api/chat", {}),
    ],
)
async def test_an_answer_says_which_bytes_it_came_from_in_every_dialect(
    engine: FakeEngine, path: str, body: dict[str, object], stream: bool
) -> None:
    asked = {key: value for key, value in (chat("public", stream=stream) | body).items() if value is not None}
    async with running({"engine": backend(engine.url, servings=SERVED)}, models("public", engine_name="fake")) as rig:
        reply = await rig.ask(path, body=asked)

    assert (reply.status, reply.headers["x-modelport-serving"]) == (200, "0123456789abcdef")


async def test_an_engines_error_says_it_too(engine: FakeEngine) -> None:
    engine.script("status_500_vllm")
    async with running({"engine": backend(engine.url, servings=SERVED)}, models("public", engine_name="fake")) as rig:
        reply = await rig.ask(body=chat("public"))

    assert (reply.status, reply.headers["x-modelport-serving"]) == (502, "0123456789abcdef")


@pytest.mark.parametrize("servings", [{}, {"another": Serving("0123456789abcdef")}, {"fake": Serving(None)}])
async def test_where_it_is_not_known_nothing_is_said(engine: FakeEngine, servings: dict[str, Serving]) -> None:
    row = backend(engine.url, servings=servings)
    async with running({"engine": row}, models("public", engine_name="fake")) as rig:
        reply = await rig.ask(body=chat("public"))
        listed = (await rig.ask("/v1/models")).json["data"][0]

    assert (reply.status, "x-modelport-serving" in reply.headers) == (200, False)
    assert listed["serving"] == ("unverified" if servings.get("fake") else None)


async def test_the_list_of_models_says_it_as_well(engine: FakeEngine) -> None:
    async with running({"engine": backend(engine.url, servings=SERVED)}, models("public", engine_name="fake")) as rig:
        listed = (await rig.ask("/v1/models")).json["data"][0]

    assert listed["serving"] == "0123456789abcdef"


async def test_the_second_engines_answer_is_not_told_to_be_the_firsts(engine: FakeEngine) -> None:
    engine.script("status_503_vllm")
    known = {"public": PublicModel("public", (Target("engine", "fake"),), fallbacks=("spare",))}
    known |= models("spare", backend="second", engine_name="fake")
    backends = {"engine": backend(engine.url, servings=SERVED), "second": backend(engine.url, "second")}
    async with running(backends, known) as rig:
        reply = await rig.ask(body=chat("public"))

    assert (reply.headers["x-modelport-backend"], "x-modelport-serving" in reply.headers) == ("second", False)
