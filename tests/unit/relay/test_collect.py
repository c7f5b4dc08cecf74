"""Whole answers that are asked for as streams: what ends early or is no answer is an error, never a shorter answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from backends.endpoint import UsageMode
from tests.rigs.raw_client import ask
from tests.rigs.relay import Rig, backend, models, running

HEAD = {"id": "c", "object": "text_completion", "created": 1, "model": "m"}
END = b"data: [DONE]\n\n"


def event(index: int, text: str, finish: str | None = None) -> bytes:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
    return b"data: " + json.dumps({**HEAD, "choices": [choice]}).encode() + b"\n\n"


FIRST = event(0, "one") + event(0, "", "stop")
SECOND = event(1, "two") + event(1, "", "stop")


class Engine:
    """Answers every request with the same stream, then closes the connection."""

    def __init__(self) -> None:
        self.stream = b""
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        self.asked.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + self.stream)
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[tuple[Rig, Engine]]:
    engine = Engine()
    async with await asyncio.start_server(engine.serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        row = backend(url, usage=UsageMode.TIMINGS)
        assert row.endpoint is not None
        row = msgspec.structs.replace(row, endpoint=msgspec.structs.replace(row.endpoint, gathers=True))
        async with running({"engine": row}, models("m")) as rig:
            yield rig, engine


async def test_a_whole_answer_is_asked_for_as_a_stream_and_put_together(pair: tuple[Rig, Engine]) -> None:
    rig, engine = pair
    engine.stream = b"data: null\n\n" + FIRST + SECOND + END

    reply = await ask(rig.url, "POST", "/v1/completions", {"model": "m", "prompt": ["a", "b"]})

    assert [choice["text"] for choice in reply.json["choices"]] == ["one", "two"]
    assert json.loads(engine.asked[0])["stream"] is True


@pytest.mark.parametrize(
    "stream",
    [FIRST, FIRST + event(1, "tw"), FIRST + SECOND, b""],
    ids=["one of two prompts", "in the second", "no end mark", "nothing"],
)
async def test_a_stream_that_ends_early_is_no_shorter_answer(pair: tuple[Rig, Engine], stream: bytes) -> None:
    rig, engine = pair
    engine.stream = stream

    reply = await ask(rig.url, "POST", "/v1/completions", {"model": "m", "prompt": ["a", "b"]})

    assert (reply.status, reply.error["code"]) == (502, "engine_disconnected")


async def test_what_only_looks_like_a_chunk_is_the_engines_fault(pair: tuple[Rig, Engine]) -> None:
    rig, engine = pair
    engine.stream = (
        FIRST + b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[5]}\n\n' + END
    )

    reply = await ask(rig.url, "POST", "/v1/completions", {"model": "m", "prompt": "a"})

    assert (reply.status, reply.error["code"]) == (502, "engine_broken_answer")


async def test_a_stream_of_several_prompts_that_ends_early_is_no_complete_one(pair: tuple[Rig, Engine]) -> None:
    rig, engine = pair
    engine.stream = FIRST

    reply = await ask(rig.url, "POST", "/v1/completions", {"model": "m", "prompt": ["a", "b"], "stream": True})

    assert b"engine_disconnected" in reply.body
    assert b"[DONE]" not in reply.body
    assert not reply.is_whole
