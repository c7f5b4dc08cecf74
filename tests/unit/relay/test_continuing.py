"""A stream whose engine breaks off goes on at an equal one: over a real relay, with engines that tell their tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from app.table import Backend, PublicModel, Serving, Target
from backends.endpoint import Timeouts, UsageMode
from backends.engine_profile import TokenTelling
from backends.vllm.profile import CORE_FAILED
from tests.fakes.teller import ANSWER, PROMPT, TEXT, Teller
from tests.rigs.hop import until
from tests.rigs.raw_client import Client, Reply, request
from tests.rigs.relay import Rig, backend, running

TELLINGS = {"vllm": TokenTelling.NUMBERS, "llama_cpp": TokenTelling.PROBABILITIES}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
COUNTED = "modelport_continued_streams_total"


def row(name: str, engine: Teller, kind: str = "vllm", digest: str | None = "d" * 16, **fields: Any) -> Backend:
    usage = UsageMode.ASK if kind == "vllm" else UsageMode.TIMINGS
    serving = {"": Serving(digest)} if digest else {}
    return backend(engine.url, name, usage=usage, kind=kind, servings=serving, **fields)


def served(*names: str, continues: bool = True) -> Mapping[str, PublicModel]:
    """In this order: the first has by far the most of the requests."""
    targets = tuple(Target(name, "m", 1000 if name == names[0] else 1) for name in names)
    return {"m": PublicModel("m", targets, continues_streams=continues)}


def text_of(reply: Reply) -> str:
    chunks = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: {")]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


async def until_first(rig: Rig, path: str = "/v1/chat/completions", **more: Any) -> Reply:
    """The answer to one request that the first engine got."""
    while True:
        reply = await rig.ask(path, {**CHAT, **more})
        if reply.headers["x-modelport-backend"] == "first":
            return reply


@pytest.mark.parametrize("breaks_after", [3, 5, 7, 9, 12])
@pytest.mark.parametrize("kind", TELLINGS)
async def test_it_is_whole_and_one_stream(kind: str, breaks_after: int) -> None:
    telling = TELLINGS[kind]
    async with Teller(telling, breaks_after) as first, Teller(telling) as second:
        rows = {"first": row("first", first, kind), "second": row("second", second, kind)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig, stream_options={"include_usage": True})

            assert (reply.status, reply.is_whole) == (200, True)
            assert text_of(reply) == TEXT
            assert b": continued on second\n\n" in reply.body
            assert reply.body.endswith(b"data: [DONE]\n\n")
            assert b'token_ids":[' not in reply.body
            assert b"top_probs" not in reply.body
            assert rig.sample(COUNTED, gen_ai_request_model="m", outcome="continued") == 1
            await rig.fleet.until(lambda: rig.leases.total() == 0)


async def test_an_engine_that_hangs_is_left() -> None:
    hasty = Timeouts(connect_s=2, first_byte_s=20, between_events_s=0.2)
    async with Teller(TokenTelling.NUMBERS, 6, hangs=True) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first, timeouts=hasty), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig)

            assert (text_of(reply), reply.is_whole) == (TEXT, True)


@pytest.mark.parametrize(("message", "goes_on"), [(CORE_FAILED[0], True), ("the prompt is wrong", False)])
async def test_an_error_that_an_engine_reports_ends_it_unless_its_process_has_ended(
    message: str, goes_on: bool
) -> None:
    """What an engine says of a request, the next one would say of it, too."""
    said = {"error": {"message": message, "type": "InternalServerError", "code": 500}}
    async with Teller(TokenTelling.NUMBERS, 6, then=said) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig)

            assert (text_of(reply) == TEXT, reply.is_whole) == (goes_on, goes_on)


async def test_a_client_that_leaves_ends_what_goes_on() -> None:
    async with Teller(TokenTelling.NUMBERS, 6) as first, Teller(TokenTelling.NUMBERS, 3, hangs=True) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            head = b""
            while b"x-modelport-backend: first" not in head:
                async with asyncio.timeout(20), Client(rig.url) as client:
                    client.send(request("POST", "/v1/chat/completions", json.dumps(CHAT).encode()))
                    head = await client.reader.readuntil(b"\r\n\r\n")
                    if b"x-modelport-backend: first" in head:
                        await client.reader.readuntil(b"continued on second")

            left = "modelport_client_disconnects_total"
            await until(lambda: rig.sample(left, modelport_backend="second") >= 1)
            await rig.fleet.until(lambda: rig.leases.total() == 0)
            assert rig.sample(COUNTED) == 0


async def test_usage_counts_what_both_have_written() -> None:
    async with Teller(TokenTelling.NUMBERS, 6) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig, stream_options={"include_usage": True})

            usage = json.loads(reply.body.decode().split("data: ")[-2])["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(PROMPT), len(ANSWER))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/api/chat"])
async def test_other_dialects_go_on_too(path: str) -> None:
    async with Teller(TokenTelling.NUMBERS, 6) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            more = {"max_tokens": 500} if path == "/v1/messages" else {"input": "hi"} if path == "/v1/responses" else {}
            while True:
                reply = await rig.ask(path, {**CHAT, **more})
                if reply.headers["x-modelport-backend"] == "first":
                    break

            assert reply.status == 200
            assert reply.is_whole
            assert rig.sample(COUNTED, outcome="continued") == 1
            assert "".join(_deltas(reply)) == TEXT


def _deltas(reply: Reply) -> list[str]:
    """The pieces of text in Anthropic's events, OpenAI's newer ones, or Ollama's lines."""
    lines = [line.removeprefix("data: ") for line in reply.body.decode().splitlines()]
    values = [json.loads(line) for line in lines if line.startswith("{")]
    pieces = []
    for value in values:
        delta = value.get("delta")
        if value.get("type") == "response.output_text.delta":
            pieces.append(delta)
        elif isinstance(delta, dict) and delta.get("type") == "text_delta":
            pieces.append(delta["text"])
        elif isinstance(value.get("message"), dict) and "content" in value["message"] and "done" in value:
            pieces.append(value["message"]["content"])
    return pieces


async def refused(rig: Rig, reply: Reply) -> bool:
    """Whether the stream ended with an error and was not gone on with."""
    return (
        b'"error"' in reply.body
        and not reply.is_whole
        and rig.sample(COUNTED, outcome="refused") == 1
        and rig.sample(COUNTED, outcome="continued") == 0
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"digest": "e" * 16},
        {"digest": None},
        {"ejected": {"m": "5 failures in a row"}},
    ],
)
async def test_only_at_an_engine_that_serves_the_same_and_well(fields: dict[str, Any]) -> None:
    async with Teller(TokenTelling.NUMBERS, 6) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second, **fields)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig)

            assert await refused(rig, reply)
            assert len(second.bodies) <= sum(path == "/v1/chat/completions" for path, _ in second.bodies)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"response_format": {"type": "json_object"}},
        {"seed": 7},
        {"presence_penalty": 1},
    ],
)
async def test_not_for_what_tokens_do_not_say(more: dict[str, Any]) -> None:
    async with Teller(TokenTelling.NUMBERS, 6) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig, **more)

            assert await refused(rig, reply)
            assert all("return_token_ids" not in body for _, body in first.bodies)


async def test_once_at_most_and_a_third_engine_is_never_asked() -> None:
    """A request that kills engines kills two."""
    telling = TokenTelling.NUMBERS
    async with Teller(telling, 6) as first, Teller(telling, 4) as second, Teller(telling, 4) as third:
        rows = {"first": row("first", first), "second": row("second", second), "third": row("third", third)}
        async with running(rows, served("first", "second", "third")) as rig:
            reply = await until_first(rig)
            asked = [
                engine for engine in (second, third) if any(path == "/v1/completions" for path, _ in engine.bodies)
            ]

            assert not reply.is_whole
            assert b'"error"' in reply.body
            assert TEXT.startswith(text_of(reply))
            assert len(asked) == 1
            assert rig.sample(COUNTED, outcome="failed") == 1


async def test_not_before_its_first_token() -> None:
    """What has not begun may be what kills engines: as without the setting."""
    async with Teller(TokenTelling.NUMBERS, 1) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig)

            assert await refused(rig, reply)


async def test_not_before_its_first_text() -> None:
    """Tokens without a text may be the beginning of thinking, which another engine would write as text."""
    async with Teller(TokenTelling.NUMBERS, 2) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second")) as rig:
            reply = await until_first(rig, stop=["a text that is held back"])

            assert await refused(rig, reply)
            assert text_of(reply) == ""


async def test_without_the_setting_nobody_asks_for_tokens_and_nothing_goes_on() -> None:
    async with Teller(TokenTelling.NUMBERS, 6) as first, Teller(TokenTelling.NUMBERS) as second:
        rows = {"first": row("first", first), "second": row("second", second)}
        async with running(rows, served("first", "second", continues=False)) as rig:
            reply = await until_first(rig)

            assert not reply.is_whole
            assert all("return_token_ids" not in body for _, body in first.bodies)
            assert rig.sample(COUNTED) == 0
