"""Names, keys and usage as a client sees them: over a real relay."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app import keys
from app.table import Key, PublicModel, Target, Wildcard
from backends.endpoint import UsageMode
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.hop import OK, Server, take
from tests.rigs.raw_client import Reply, chat
from tests.rigs.relay import Rig, backend, models, running

SECRETS = {"all": "k-all", "some": "k-some", "old": "k-old", "pattern": "k-pattern", "admin": "k-admin"}


def key(name: str, models: tuple[str, ...] | None = None, **fields: Any) -> Key:
    return Key(name, keys.digest(SECRETS[name]), models, **fields)


KEYS = (
    key("all"),
    key("some", ("fake",)),
    key("pattern", ("o/*",)),
    key("old", expires=time.time() - 1),
    key("admin", role="admin"),
)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(("fake", "secret", "other:7b", "served")) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    daemon = backend(engine.url, "daemon", models=("other:7b",), is_strict=True)
    served = models("fake", "secret") | models("my/模型", engine_name="served")
    async with running({"engine": backend(engine.url), "daemon": daemon}, served) as gateway:
        await gateway.published(aliases={"gpt-4": "fake"}, wildcards=(Wildcard("o/", "daemon"),))
        yield gateway


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[name]}"}


async def names(rig: Rig, **headers: str) -> set[str]:
    reply = await rig.ask("/v1/models", headers=headers)
    assert reply.status == 200
    return {entry["id"] for entry in reply.json["data"]}


# -- names


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("name", "sent"), [("fake", "fake"), ("gpt-4", "fake"), ("o/other:7b", "other:7b"), ("my/模型", "served")]
)
async def test_an_answer_carries_the_clients_name_and_the_engine_gets_its_own(
    rig: Rig, engine: FakeEngine, name: str, sent: str, stream: bool
) -> None:
    reply = await rig.ask(body=chat(name, stream=stream))

    answers = [event for event in reply.events if event != "[DONE]"] if stream else [reply.json]
    assert {answer["model"] for answer in answers} == {name}
    assert json.loads(engine.posts[0].body)["model"] == sent
    assert reply.text == wire.TEXT


async def test_an_unknown_model_is_404_with_the_nearest_names(rig: Rig) -> None:
    reply = await rig.ask(body=chat("fakee"))

    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert "'fake'" in reply.error["message"]


async def test_the_nearest_names_are_none_the_key_may_not_see(rig: Rig) -> None:
    await rig.published(keys=KEYS)

    for name in ("some", "pattern"):
        reply = await rig.ask(body=chat("secrett"), headers=bearer(name))
        assert reply.status == 404
        assert b"secret" not in reply.body
    assert b"'secret'" in (await rig.ask(body=chat("secrett"), headers=bearer("all"))).body


async def test_an_unknown_model_goes_to_the_default_only_where_one_is_set(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(default_model="fake")

    reply = await rig.ask(body=chat("nonsense"))
    nameless = await rig.ask(body={"messages": [{"role": "user", "content": "hi"}]})

    assert reply.json["model"] == "nonsense"
    assert nameless.json["model"] == "fake"
    assert [json.loads(post.body)["model"] for post in engine.posts] == ["fake", "fake"]


async def test_a_model_that_the_engine_does_not_have_tells_no_other_names(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(models=models("fake", engine_name="gone"))

    reply = await rig.ask(body=chat())

    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert b"secret" not in reply.body


# -- keys


REFUSED: dict[str, dict[str, str]] = {
    "none": {},
    "wrong": {"authorization": "Bearer nope"},
    "expired": bearer("old"),
    "other scheme": {"authorization": f"Basic {SECRETS['all']}"},
    "empty": {"authorization": "Bearer "},
    "bare": {"authorization": SECRETS["all"]},
    "twice": {"authorization": f"Bearer {SECRETS['all']}", "Authorization": f"Bearer {SECRETS['all']}"},
}


GUARDED = ("/v1/chat/completions", "/v1/models", "/v1/models/fake", "/metrics", "/admin/x")


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
async def test_without_a_good_key_there_is_nothing(rig: Rig, engine: FakeEngine, headers: dict[str, str]) -> None:
    await rig.published(keys=KEYS)

    for path in GUARDED:
        reply = await rig.ask(path, chat() if path.endswith("completions") else b"", headers=headers)

        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key"), path
        assert reply.headers["www-authenticate"] == "Bearer"
        assert not any(secret.encode() in reply.body for secret in SECRETS.values())
    assert engine.posts == []


async def test_a_gateway_that_is_closed_wants_a_key_although_it_knows_none(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(is_closed=True)

    for headers in ({}, bearer("all")):
        reply = await rig.ask(body=chat(), headers=headers)

        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert engine.posts == []


async def test_an_unknown_key_may_be_tried_again_while_not_all_keys_are_known(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(keys=KEYS, is_closed=True, keys_missing="the store does not answer")

    unknown = await rig.ask(body=chat(), headers={"authorization": "Bearer nope"})
    nothing = await rig.ask(body=chat())
    known = await rig.ask(body=chat(), headers=bearer("all"))

    assert (unknown.status, unknown.error["code"]) == (503, "keys_unavailable")
    assert "the store does not answer" in unknown.error["message"]
    assert unknown.headers["retry-after"] == "5"
    assert (nothing.status, known.status) == (401, 200)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_good_key_opens_what_is_in_its_list(rig: Rig, engine: FakeEngine, scheme: str) -> None:
    await rig.published(keys=KEYS)

    reply = await rig.ask(body=chat("gpt-4"), headers={"authorization": f"{scheme} {SECRETS['some']}"})

    assert reply.status == 200
    assert engine.posts[0].header("authorization") is None


@pytest.mark.parametrize("name", ["secret", "o/other:7b"])
async def test_a_model_outside_a_keys_list_is_unknown(rig: Rig, engine: FakeEngine, name: str) -> None:
    await rig.published(keys=KEYS)

    reply = await rig.ask(body=chat(name), headers=bearer("some"))

    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert engine.posts == []


async def test_the_list_of_models_shows_what_a_key_may_use(rig: Rig) -> None:
    assert await names(rig) == {"fake", "secret", "my/模型", "o/other:7b"}

    await rig.published(keys=KEYS)

    assert await names(rig, **bearer("all")) == {"fake", "secret", "my/模型", "o/other:7b"}
    assert await names(rig, **bearer("some")) == {"fake"}
    assert await names(rig, **bearer("pattern")) == {"o/other:7b"}


async def test_one_model_is_shown_to_the_keys_that_may_use_it(rig: Rig) -> None:
    await rig.published(keys=KEYS)

    async def shown(name: str, of: str) -> Reply:
        return await rig.ask(f"/v1/models/{name}", headers=bearer(of))

    assert (await shown("fake", "some")).json["id"] == "fake"
    assert (await shown("gpt-4", "some")).json["id"] == "fake"
    assert (await shown("o/other:7b", "pattern")).json["id"] == "o/other:7b"
    assert (await shown("my/%E6%A8%A1%E5%9E%8B", "all")).json["id"] == "my/模型"
    assert (await shown("secret", "some")).status == 404


@pytest.mark.parametrize("path", ["/metrics", "/admin/backends"])
async def test_only_admins_come_to_the_supervisors_routes(rig: Rig, path: str) -> None:
    await rig.published(keys=KEYS)

    assert (await rig.ask(path, headers=bearer("all"))).status == 403
    assert (await rig.ask(path, headers=bearer("admin"))).status == 502  # nobody serves them here


async def test_a_key_that_is_taken_away_is_of_no_use_any_more(rig: Rig) -> None:
    await rig.published(keys=KEYS)
    assert (await rig.ask("/v1/models", headers=bearer("all"))).status == 200

    await rig.published(keys=KEYS[1:])

    assert (await rig.ask("/v1/models", headers=bearer("all"))).status == 401


# -- readiness


async def test_it_is_ready_while_a_model_can_be_served_and_it_is_not_draining(rig: Rig) -> None:
    assert (await rig.ask("/readyz")).status == 200

    await rig.published(draining=True)
    draining = await rig.ask("/readyz")
    still = await rig.ask(body=chat())
    await rig.published(draining=False, backends={"engine": backend(None), "daemon": backend(None, "daemon")})
    nothing = await rig.ask("/readyz")
    await rig.published(backends={"engine": backend(None, can_start=True)})

    assert (draining.status, "shutting down" in draining.error["message"]) == (503, True)
    assert still.status == 200
    assert (nothing.status, "no model" in nothing.error["message"]) == (503, True)
    assert (await rig.ask("/readyz")).status == 200


async def test_it_is_not_ready_before_it_has_known_who_may_ask(rig: Rig) -> None:
    await rig.published(
        keys=KEYS, is_closed=True, keys_missing="the store of keys could not be read yet", keys_unread=True
    )
    unread = await rig.ask("/readyz")
    await rig.published(keys_unread=False)

    assert (unread.status, "does not know the keys" in unread.error["message"]) == (503, True)
    assert (await rig.ask("/readyz")).status == 200


# -- usage


def options(engine: FakeEngine) -> list[Any]:
    return [json.loads(post.body).get("stream_options") for post in engine.posts]


@pytest.mark.parametrize("usage", [UsageMode.ASK, UsageMode.TRY])
async def test_usage_is_asked_for_and_its_event_taken_out_again(rig: Rig, engine: FakeEngine, usage: UsageMode) -> None:
    await rig.published(backends={"engine": backend(engine.url, usage=usage)})

    reply = await rig.ask(body=chat(stream=True))

    assert options(engine) == [{"include_usage": True}]
    assert all(event["choices"] for event in reply.events[:-1])
    assert reply.text == wire.TEXT


async def test_usage_the_client_asked_for_passes(rig: Rig, engine: FakeEngine) -> None:
    body = json.dumps(chat(stream=True, stream_options={"include_usage": True})).encode()

    reply = await rig.ask(body=body)

    assert engine.posts[0].body == body
    assert reply.events[-2]["usage"]["completion_tokens"] == len(wire.WORDS)
    assert reply.events[-2]["choices"] == []


async def test_an_engine_with_timings_is_not_asked(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(backends={"engine": backend(engine.url, usage=UsageMode.TIMINGS)})
    body = json.dumps(chat(stream=True)).encode()

    assert (await rig.ask(body=body)).status == 200
    assert engine.posts[0].body == body


async def test_a_server_that_refuses_stream_options_is_asked_once_more_without_and_never_again() -> None:
    bodies: list[dict[str, Any]] = []

    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            bodies.append(json.loads(await reader.readexactly(length)))
            if "stream_options" in bodies[-1]:
                refusal = {"error": {"message": "Unrecognized request argument: stream_options"}}
                writer.write(wire.whole(400, wire.dumps(refusal), reason="Bad Request"))
            else:
                pieces = [wire.chunk(wire.sse(piece)) for piece in wire.pieces(wire.Ask("chat", "fake"))]
                writer.write(wire.SSE_HEAD + b"".join(pieces) + wire.chunk(wire.DONE) + wire.LAST_CHUNK)

    async with Server(strict) as server:
        cloud = backend(server.url, usage=UsageMode.TRY, is_ours=False)
        async with running({"engine": cloud}, models("fake")) as rig:
            replies = [await rig.ask(body=chat(stream=True)) for _ in range(3)]
            asked = await rig.ask(body=chat(stream=True, stream_options={"include_usage": True}))
            refused, good = (rig.sample("modelport_attempts_total", outcome=told) for told in ("engine_rejected", "ok"))

    assert server.connections == 1  # the first is over before it is asked again
    assert (refused, good) == (2, 3)
    assert [reply.text for reply in replies] == [wire.TEXT] * 3
    assert ["stream_options" in body for body in bodies] == [True, False, False, False, True]
    assert (asked.status, "stream_options" in asked.error["message"]) == (400, True)


async def test_a_client_cannot_make_an_engine_look_as_if_it_refused_stream_options() -> None:
    """Engines echo what they refuse. One such request once turned the counting off for everybody."""
    bodies: list[bytes] = []

    async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            bodies.append(await reader.readexactly(length))
            refusal = {"error": {"message": f"invalid: {bodies[-1].decode()}"}}
            writer.write(wire.whole(400, wire.dumps(refusal), reason="Bad Request"))

    async with Server(echoing) as server:
        cloud = backend(server.url, usage=UsageMode.TRY, is_ours=False)
        async with running({"engine": cloud}, models("fake")) as rig:
            reply = await rig.ask(body=chat(stream=True, text="stream_options"))

    assert reply.status == 400
    assert len(bodies) == 1


async def test_a_key_for_a_pattern_sees_the_names_it_may_use_and_can_ask_for_each(rig: Rig) -> None:
    daemon = backend(None, "daemon", models=("m:latest",), is_strict=True)
    await rig.published(
        wildcards=(Wildcard("", "daemon"), Wildcard("ollama/", "daemon")),
        backends={**rig.table.backends, "daemon": daemon},
        keys=(Key("narrow", keys.digest("mp-narrow"), models=("ollama/*",)), Key("wide", keys.digest("mp-wide"))),
    )
    narrow, wide = ({"authorization": f"Bearer mp-{name}"} for name in ("narrow", "wide"))

    listed = (await rig.ask("/v1/models", headers=narrow)).json["data"]
    alone = await rig.ask("/v1/models/ollama/m:latest", headers=wide)
    hidden = await rig.ask("/v1/models/m:latest", headers=narrow)

    assert [entry["id"] for entry in listed] == ["ollama/m:latest"]
    assert (alone.status, alone.json["id"]) == (200, "ollama/m:latest")
    assert hidden.status == 404


async def test_only_what_an_engine_may_know_is_sent_to_it() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await take(reader))
        writer.write(OK)
        await reader.read()

    told = {
        "cookie": "c=1",
        "origin": "http://x",
        "user-agent": "me",
        "traceparent": "00-1-1-01",
        "x-request-id": "r-1",
    }
    async with Server(serve) as server:
        own = backend(server.url, headers={"authorization": "Bearer engine-key"})
        async with running({"engine": own}, models("fake")) as rig:
            await rig.published(keys=KEYS)
            await rig.ask(body=chat(), headers={**told, **bearer("all")})

    lines = dict(line.split(": ", 1) for line in heads[0].decode().split("\r\n")[1:] if line)
    assert set(lines) == {
        "host", "authorization", "accept-encoding", "content-type", "content-length", "x-request-id", "traceparent",
    }  # fmt: skip
    assert (lines["authorization"], lines["x-request-id"]) == ("Bearer engine-key", "r-1")


# -- where one name leads to another

SAYS = [{"role": "user", "content": "x"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAYS},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": SAYS, "max_tokens": 5},
    "/api/chat": {"messages": SAYS, "stream": False},
    "/api/generate": {"prompt": "x", "stream": False},
    "/api/embed": {"input": "x"},
    "/v1/rerank": {"query": "x", "documents": ["x"]},
    "/v1/tokenize": {"prompt": "x"},
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("is_down", [False, True])
async def test_a_key_gets_no_answer_from_a_fallback_that_it_may_not_use(
    path: str, is_down: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base down, `fallbacks: [secret]`: a key for base alone used to get 200 from secret."""
    monkeypatch.setattr("app.relay.proxy.dispatch.NOTICED_S", 0.05)  # nobody is there to notice it
    async with FakeEngine() as base, FakeEngine(("secret",)) as hidden:
        if is_down:
            base.refuse()
        rows = {
            "engine": backend(base.url if is_down else None, reason="it is broken"),
            "hidden": backend(hidden.url, "hidden"),
        }
        served = {
            "fake": PublicModel("fake", (Target("engine", "fake"),), ("secret",)),
            **models("secret", backend="hidden"),
        }
        async with running(rows, served) as rig:
            await rig.published(keys=KEYS)

            reply = await rig.ask(path, {"model": "fake", **ROUTES[path]}, headers=bearer("some"))

            assert reply.status in (502, 503)
            assert hidden.posts == []
            assert (await rig.ask(body=chat(), headers=bearer("all"))).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fallback_for_all_answers_every_key(stream: bool) -> None:
    async with FakeEngine(("secret",)) as spare:
        open_to_all = PublicModel("fake", (Target("engine", "fake"),), ("secret",), fallbacks_for_all=("secret",))
        rows = {"engine": backend(None), "hidden": backend(spare.url, "hidden")}
        async with running(rows, {"fake": open_to_all, **models("secret", backend="hidden")}) as rig:
            await rig.published(keys=KEYS)

            assert (await rig.ask(body=chat(stream=stream), headers=bearer("some"))).status == 200
            assert (await rig.ask(body=chat("secret"), headers=bearer("some"))).status == 404
            assert len(spare.posts) == 1


@pytest.mark.parametrize("name", ["nick", "unknown", None])
async def test_a_key_gets_no_answer_through_an_alias_or_the_default_model(
    rig: Rig, engine: FakeEngine, name: str | None
) -> None:
    await rig.published(keys=KEYS, aliases={"nick": "secret"}, default_model="secret")

    reply = await rig.ask(body={"messages": SAYS, **({"model": name} if name else {})}, headers=bearer("some"))

    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert engine.posts == []
