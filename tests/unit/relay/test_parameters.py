"""Parameters, media and the list of models as a client sees them: over a real relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.table import Limits, PublicModel, Rules, Target, Wildcard
from backends.endpoint import DECLARED, FAILED, ModelFacts
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.hop import Server
from tests.rigs.raw_client import Reply, chat
from tests.rigs.relay import Rig, backend, models, running

ADJUSTED = "x-modelport-adjusted-params"
WEB = {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.png"}}
FACTS = ModelFacts(context_length=512, capabilities={"chat": DECLARED, "tools": FAILED}, quantization="awq")


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(("fake",)) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    local = backend(engine.url, facts={"fake": FACTS})
    cloud = backend(engine.url, "cloud", kind="remote")
    served = models("fake") | models("far", backend="cloud", engine_name="fake")
    async with running({"engine": local, "cloud": cloud}, served) as gateway:
        yield gateway


def last(engine: FakeEngine) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(engine.posts[-1].body)
    return sent


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_adjusted_is_named_and_the_rest_is_as_it_was(rig: Rig, engine: FakeEngine, stream: bool) -> None:
    reply = await rig.ask(body=chat(stream=stream, top_p=0, max_tokens=8192, tools=[], send_reasoning=True))

    assert (reply.status, reply.text) == (200, wire.TEXT)
    assert reply.headers[ADJUSTED] == "max_tokens, tools, top_p"
    sent = last(engine)
    assert (sent["top_p"], sent["send_reasoning"]) == (1, True)
    assert not {"max_tokens", "tools"} & set(sent)


async def test_a_usual_request_is_sent_byte_for_byte_and_nothing_is_said(rig: Rig, engine: FakeEngine) -> None:
    body = json.dumps(chat(top_p=0.5, max_tokens=64)).encode()

    reply = await rig.ask(body=body)

    assert ADJUSTED not in reply.headers
    assert engine.posts[-1].body == body


async def test_a_remote_engine_gets_what_the_client_wrote(rig: Rig, engine: FakeEngine) -> None:
    reply = await rig.ask(body=chat("far", top_p=0, max_tokens=1_000_000))

    assert ADJUSTED not in reply.headers
    assert (last(engine)["top_p"], last(engine)["max_tokens"]) == (0, 1_000_000)


async def test_a_models_own_sampling_is_the_same_on_every_engine(rig: Rig, engine: FakeEngine) -> None:
    rules = Rules(defaults={"temperature": 0.1}, overrides={"seed": 7})
    both = {name: PublicModel(name, (Target(where, "fake"),), rules=rules) for name, where in OWN.items()}
    await rig.published(models=both, wildcards=(Wildcard("o/", "engine", rules=rules),))

    for name in (*OWN, "o/fake"):
        reply = await rig.ask(body=chat(name, seed=1))

        assert reply.headers[ADJUSTED] == "seed"
        assert (last(engine)["temperature"], last(engine)["seed"]) == (0.1, 7)


OWN = {"base": "engine", "tuned": "cloud"}


async def test_a_prompt_and_a_bound_that_are_too_long_together_are_asked_once_more_without_the_bound() -> None:
    bodies: list[dict[str, Any]] = []

    async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            bodies.append(json.loads(await reader.readexactly(length)))
            if "max_tokens" in bodies[-1] or "much" in bodies[-1]["messages"][0]["content"]:
                told = {"message": "This model's maximum context length is 512 tokens; 'max_tokens' is too large"}
                writer.write(wire.whole(400, wire.dumps({"error": told}), reason="Bad Request"))
            else:
                pieces = [wire.chunk(wire.sse(piece)) for piece in wire.pieces(wire.Ask("chat", "fake"))]
                writer.write(wire.SSE_HEAD + b"".join(pieces) + wire.chunk(wire.DONE) + wire.LAST_CHUNK)

    async def ask(rig: Rig, name: str, text: str = "hi") -> Reply:
        return await rig.ask(body=chat(name, stream=True, text=text, max_tokens=500))

    async with Server(strict) as server:
        engines = {"engine": backend(server.url), "cloud": backend(server.url, "cloud", kind="remote")}
        async with running(engines, models("fake") | models("far", backend="cloud")) as rig:
            good, far, long = await ask(rig, "fake"), await ask(rig, "far"), await ask(rig, "fake", "too much")

    assert (good.text, good.headers[ADJUSTED]) == (wire.TEXT, "max_tokens")
    assert (far.status, long.status) == (400, 400)
    assert ["max_tokens" in body for body in bodies] == [True, False, True, True, False]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "template": ({"chat_template": "x"}, "chat_template", "parameter_refused"),
    "choices": ({"n": 3}, "n", "parameter_refused"),
    "media": (
        {"messages": [{"role": "user", "content": [WEB]}]},
        "messages[0].content[0].image_url.url",
        "not_supported",
    ),
}


@pytest.mark.parametrize(("asked", "param", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_never_reaches_an_engine(
    rig: Rig, engine: FakeEngine, asked: dict[str, Any], param: str, code: str
) -> None:
    await rig.published(limits=Limits(max_choices=2))
    replies = [await rig.ask(body={**chat(name), **asked}) for name in ("fake", "far")]

    assert [(each.status, each.error["param"], each.error["code"]) for each in replies] == [(400, param, code)] * 2
    assert engine.posts == []


async def test_a_host_may_be_allowed_for_a_model_or_by_its_engine(rig: Rig, engine: FakeEngine) -> None:
    asked = {"messages": [{"role": "user", "content": [WEB]}]}
    rules = Rules(media_domains=("pictures.example",))
    own = backend(engine.url, "own", media_domains=("pictures.example",))
    await rig.published(
        backends={**rig.table.backends, "own": own},
        models={
            "by-model": PublicModel("by-model", (Target("cloud", "fake"),), rules=rules),
            "by-engine": PublicModel("by-engine", (Target("own", "fake"),)),
        },
    )

    for name in ("by-model", "by-engine"):
        assert (await rig.ask(body={**chat(name), **asked})).status == 200
        assert last(engine)["messages"] == asked["messages"]


async def test_no_engine_is_started_for_a_picture_that_it_must_not_fetch(rig: Rig) -> None:
    asleep = backend(None, "asleep", can_start=True)
    await rig.published(backends={"asleep": asleep}, models=models("fake", backend="asleep"))

    reply = await rig.ask(body={**chat(), "messages": [{"role": "user", "content": [WEB]}]})

    assert (reply.status, reply.error["code"]) == (400, "not_supported")
    assert rig.fleet.asked == {}


async def test_pictures_in_a_large_body_are_bounded_in_their_number(rig: Rig, engine: FakeEngine) -> None:
    reply = await rig.ask(body=chat(text="x", images=[{"image_url": None}] * 101_000))

    assert (reply.status, reply.error["code"]) == (400, "too_many_fields")


async def test_a_picture_for_a_model_without_eyes_is_the_clients_mistake() -> None:
    async def blind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        told = {"message": "image input is not supported - hint: mmproj", "type": "server_error", "code": 500}
        writer.write(wire.whole(500, wire.dumps({"error": told}), reason="Internal Server Error"))

    async with (
        Server(blind) as server,
        running({"engine": backend(server.url, kind="llama_cpp")}, models("fake")) as rig,
    ):
        reply = await rig.ask(body=chat())

    assert (reply.status, reply.error["code"]) == (400, "not_supported")
    assert reply.error["message"] == "The model behind this name takes no images."


async def test_a_tool_that_must_be_called_goes_to_the_target_that_has_tools(engine: FakeEngine) -> None:
    without = backend(engine.url, "without", kind="llama_cpp", facts={"": FACTS})
    able = backend(engine.url, "able", kind="llama_cpp")
    served = models("fake", backend="without") | {
        "both": PublicModel("both", (Target("without", "fake", 1000), Target("able", "fake")))
    }
    asked: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}
    async with running({"without": without, "able": able}, served) as rig:
        refused, taken = await rig.ask(body=chat(**asked)), await rig.ask(body=chat("both", **asked))

    assert (refused.status, refused.error["param"]) == (400, "tool_choice")
    assert taken.status == 200


async def test_the_list_says_of_every_model_what_is_known_and_no_more(rig: Rig) -> None:
    await rig.published(
        models={**rig.table.models, "law": PublicModel("law", (Target("engine", "law"),), parent="fake")},
        wildcards=(Wildcard("o/", "daemon"),),
        backends={
            **rig.table.backends,
            "daemon": backend(
                rig.url, "daemon", kind="ollama", models=("q:7b", "r:7b"), is_strict=True, facts={"q:7b": FACTS}
            ),
        },
    )
    listed = (await rig.ask("/v1/models")).json["data"]
    ours = {name: {key: one.get(key, "absent") for key in OURS} for one in listed if (name := one["id"])}

    known: dict[str, object] = {
        "context_length": 512,
        "quantization": "awq",
        "capabilities": FACTS.capabilities,
        "parent": "absent",
    }
    unknown: dict[str, object] = {"context_length": None, "quantization": None, "capabilities": {}, "parent": "absent"}
    assert ours == {
        "fake": {"backend": "engine", "state": "ready", **known},
        "far": {"backend": "cloud", "state": "ready", **unknown},
        "law": {"backend": "engine", "state": "ready", **unknown, "parent": "fake"},
        "o/q:7b": {"backend": "daemon", "state": "sleeping", **known},
        "o/r:7b": {"backend": "daemon", "state": "ready", **unknown},
    }
    one = (await rig.ask("/v1/models/fake")).json
    assert one == next(each for each in listed if each["id"] == "fake")
    assert {"id", "object", "created", "owned_by"} < set(one)


OURS = ("backend", "state", "context_length", "quantization", "capabilities", "parent")
