"""Events that pass as the chunks of HTTP that an engine sends them in: the same answer as when each is unpacked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.dialects.usage import Usage
from app.relay.http.response import ClientResponse
from app.relay.proxy.client_stream import ClientStream
from app.table import Limits
from backends.endpoint import Timeouts
from backends.errors import BackendError
from backends.http.connection import ChunkTaker, Connection
from backends.http.exchange import Exchange
from tests.fakes import wire
from tests.rigs.hop import Server, endpoint, take
from tests.rigs.raw_client import chat, request
from tests.rigs.read_answer import response_context
from tests.rigs.relay import backend, models, running

CHAT = wire.Ask("chat", "fake", stream=True, include_usage=True)
HEAD = wire.head(200, "OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
LIMITS = Limits(max_event_bytes=3000)


class Parsing(Connection):
    """A connection that offers no chunks: everything is parsed."""

    def take_chunks(self, taker: ChunkTaker | None) -> None:
        """Forget it."""


class EngineSide(asyncio.Transport):
    """The connection's socket."""

    is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def abort(self) -> None:
        self.is_aborted = True


@dataclass(slots=True)
class ClientSide:
    """The client's response: what was written, piece by piece, without the framing; `chunks` are those that passed as
    such.
    """

    takes_chunks: bool = True
    written: list[bytes] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    is_started: bool = False
    is_full: bool = False
    how: str = ""

    def start(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        assert (status, length) == (200, None)
        self.is_started = True

    def write(self, data: bytes) -> None:
        assert data
        self.written.append(data)

    def write_chunks(self, framed: bytes) -> None:
        assert self.takes_chunks
        self.chunks.append(framed)
        self.written += unpacked(framed)

    def when_full(self, *_: object) -> None: ...

    def finish(self) -> None:
        self.how += "finished"


def unpacked(framed: bytes) -> Iterator[bytes]:
    """What these whole chunks carry, held against the standard (RFC 9112, 7.1)."""
    while framed:
        size, _, rest = framed.partition(b"\r\n")
        assert 0 < int(size, 16) <= len(rest) - 2
        yield rest[: int(size, 16)]
        assert rest[int(size, 16) :].startswith(b"\r\n")
        framed = rest[int(size, 16) + 2 :]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that can be told of one answer from outside."""

    body: bytes
    how: str  # how the client's response ended, or the error that it would be told
    usage: Usage
    has_token: bool
    has_left_engine: bool  # its connection was cut
    is_reusable: bool


async def answer(
    reads: Sequence[bytes], *, name: str = "fake", is_parsing: bool = False, takes_chunks: bool = True
) -> tuple[Outcome, ClientSide]:
    """What becomes of an answer whose bytes come in these pieces."""
    client, engine = ClientSide(takes_chunks), EngineSide()
    connection = (Parsing if is_parsing else Connection)(lambda _: None)
    connection.connection_made(engine)
    exchange = Exchange(endpoint("http://engine/v1"), connection, lambda *_: None, "engine")
    connection.send(exchange, b"")
    connection.data_received(HEAD)
    stream = ClientStream(cast("ClientResponse", client), {}, LIMITS)
    relaying = asyncio.ensure_future(stream.relay(exchange, response_context(name), hides_usage=True))
    await asyncio.sleep(0)
    for data in reads:
        if engine.is_aborted or connection.is_reusable:
            break
        connection.data_received(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if not relaying.done():
        connection.connection_lost(None)
    try:
        await relaying
    except BackendError as exc:
        client.how = f"{type(exc).__name__}: {exc.message}"
    stream.close()
    exchange.close()
    has_token = stream.first_token_at is not None
    outcome = Outcome(
        b"".join(client.written), client.how, stream.settle(), has_token, engine.is_aborted, connection.is_reusable
    )
    return outcome, client


def event(text: str, **more: Any) -> bytes:
    return wire.sse(wire.piece(CHAT, text) | more)


def in_chunks(*events: bytes) -> list[bytes]:
    return [wire.chunk(event) for event in events]


END = in_chunks(wire.sse(wire.piece(CHAT, None, "stop")), wire.sse(wire.usage_piece(CHAT)), wire.DONE)
LAST = b"0\r\n\r\n"


async def test_a_known_event_passes_with_the_framing_that_its_engine_gave_it() -> None:
    known = in_chunks(*(event("word " * count) for count in (1, 2, 3, 100, 500)))

    outcome, client = await answer([wire.chunk(event("first")), *known, *END, LAST])

    assert client.chunks == known
    assert all(one is other for one, other in zip(client.chunks, known, strict=True))
    assert outcome.how == "finished"
    assert outcome.is_reusable


async def test_an_engine_that_writes_sizes_in_capitals_is_understood() -> None:
    known = [b"%X\r\n%b\r\n" % (len(one), one) for one in (event("x" * count) for count in range(1, 200))]

    outcome, client = await answer([wire.chunk(event("first")), *known, *END, LAST])

    assert len(client.chunks) > 150
    assert outcome == (await answer([wire.chunk(event("first")), *known, *END, LAST], is_parsing=True))[0]


async def test_several_chunks_at_once_pass_as_they_are() -> None:
    together = b"".join(in_chunks(event("one"), event("two "), event("three\n")))

    outcome, client = await answer([wire.chunk(event("first")), together, together, *END, LAST])

    assert client.chunks == [together, together]
    assert outcome.usage.output_tokens == wire.usage(CHAT)["completion_tokens"]


async def test_a_known_event_with_another_name_is_a_chunk_of_its_own_size() -> None:
    together = b"".join(in_chunks(event("one"), event("two")))

    _, client = await answer([wire.chunk(event("first")), wire.chunk(event("x")), together, *END], name="a longer name")

    given = [event("x"), event("one") + event("two")]
    assert client.chunks == in_chunks(*(one.replace(b'"fake"', b'"a longer name"') for one in given))


async def test_a_client_without_chunks_gets_none() -> None:
    outcome, client = await answer([wire.chunk(event("first")), wire.chunk(event("x")), *END], takes_chunks=False)

    assert client.chunks == []
    assert outcome.how == "finished"


async def test_events_count_as_tokens_where_the_engine_counts_none() -> None:
    known = in_chunks(*map(event, ("one", "two", "three", "four")))

    outcome, client = await answer([wire.chunk(event("zero")), known[0], b"".join(known[1:]), END[0], END[2]])

    assert len(client.chunks) == 2
    assert outcome.usage.output_tokens == 5


GOOD = event("x" * 20)
BAD_FRAMING = {
    "a size too small": b"%x\r\n%b\r\n" % (len(GOOD) - 1, GOOD),
    "a size too large": b"%x\r\n%b\r\n" % (len(GOOD) + 1, GOOD),
    "a sign before the size": b"+%x\r\n%b\r\n" % (len(GOOD), GOOD),
    "an underline in the size": b"1_0\r\n%b\r\n" % GOOD[:16],
    "a blank before the size": b" %x\r\n%b\r\n" % (len(GOOD), GOOD),
    "no size": b"\r\n%b\r\n" % GOOD,
    "no end": b"%x\r\n%b" % (len(GOOD), GOOD) + b"xx",
    "a line feed in place of the end": b"%x\r\n%b\n" % (len(GOOD), GOOD),
    "a second one that is wrong": wire.chunk(GOOD) + b"%x\r\n%b\r\n" % (len(GOOD) + 2, GOOD),
    "something behind it": wire.chunk(GOOD) + b"GET",
    "leading zeros": b"000%x\r\n%b\r\n" % (len(GOOD), GOOD),
    "an extension": b"%x;a=b\r\n%b\r\n" % (len(GOOD), GOOD),
    "a size without what it is of": b"%x\r\n" % len(GOOD),
    "an event in two chunks": wire.chunk(GOOD[:50]) + wire.chunk(GOOD[50:]),
    "a chunk that begins an event": wire.chunk(GOOD[:50]),
    "the last chunk behind it": wire.chunk(GOOD) + LAST,
    "a text that never ends": wire.chunk(GOOD.replace(b'x"', b"x")),
    "a control character": wire.chunk(GOOD.replace(b"xx", b"\n\n")),
    "a role": wire.chunk(event("x", choices=[{"index": 0, "delta": {"role": "assistant", "content": "x"}}])),
    "an error": wire.chunk(wire.error_event()),
    "something else": wire.chunk(b"data: [1]\n\n"),
    "an event that is too large": wire.chunk(b"data: " + b"x" * LIMITS.max_event_bytes),
}


@pytest.mark.parametrize("what", BAD_FRAMING)
@pytest.mark.parametrize("name", ["fake", "mine"])
async def test_whatever_is_no_known_event_in_a_sound_chunk_is_parsed_as_ever(what: str, name: str) -> None:
    reads = [wire.chunk(event("first")), wire.chunk(event("y")), BAD_FRAMING[what], wire.chunk(event("z")), *END, LAST]

    outcome, client = await answer(reads, name=name)

    assert client.chunks
    assert outcome == (await answer(reads, name=name, is_parsing=True))[0]


# -- any stream, cut anywhere

_texts = st.text(st.sampled_from('ab "\\\n{}:,é🙂'), max_size=12)
_logprobs = {"content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]}


def _written(text: str, kind: str) -> bytes:
    piece = wire.piece(CHAT, text)
    choice = piece["choices"][0]
    match kind:
        case "reasoning" | "reasoning_content":
            choice["delta"] = {kind: text}
        case "logprobs":
            choice["logprobs"] = _logprobs
        case "null":
            choice["logprobs"] = {"content": [{"token": "x", "logprob": None}]}
        case "tool":
            call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": text}}
            choice["delta"] = {"tool_calls": [call]}
        case "role":
            choice["delta"] = {"role": "assistant", "content": text}
        case "second":
            choice["index"] = 1
        case "crlf":
            return wire.sse(piece).replace(b"\n", b"\r\n")
        case "cr":
            return wire.sse(piece).replace(b"\n", b"\r")
        case "comment":
            return b": ping\n\n"
        case "finish":
            return wire.sse(wire.piece(CHAT, None, "stop"))
        case "usage":
            return wire.sse(wire.usage_piece(CHAT))
        case "done":
            return wire.DONE
        case "error":
            return wire.error_event()
        case "junk":
            return b"data: {\n\n"
        case "twice":
            choice["delta"] = {"reasoning": text, "reasoning_content": text}
        case "large":
            choice["delta"] = {"content": "x" * 4000}
    return wire.sse(piece)


_rare = [
    *("reasoning", "reasoning_content", "logprobs", "null", "tool", "role", "second", "crlf", "cr", "comment", "twice"),
    *("finish", "usage", "done", "error", "junk", "large"),
]
_kinds = st.one_of(st.just("text"), st.just("text"), st.just("text"), st.sampled_from(_rare))
_events = st.lists(st.builds(_written, _texts, _kinds), min_size=2, max_size=12)
# How many events are in a chunk, and how its size is written.
_packing = st.tuples(st.sampled_from([1, 1, 1, 1, 2]), st.sampled_from(["%x", "%x", "%x", "%X", "0%x", "%x;a=b"]))


@dataclass(frozen=True, slots=True)
class Sent:
    """A stream as it comes: the bytes, cut into reads."""

    reads: tuple[bytes, ...]


@st.composite
def _sent(draw: st.DrawFn) -> Sent:
    events = [*draw(_events), *(wire.sse(wire.piece(CHAT, None, "stop")), wire.sse(wire.usage_piece(CHAT)), wire.DONE)]
    ends, stream, at = [0], b"", 0
    while at < len(events):
        count, how = draw(_packing)
        carried = b"".join(events[at : at + count])
        stream += (how % len(carried)).encode() + b"\r\n" + carried + b"\r\n"
        ends.append(len(stream))
        at += count
    stream += LAST
    if draw(st.integers(0, 3)) == 0:  # one byte is lost, or another
        where = draw(st.integers(0, len(stream) - 1))
        stream = stream[:where] + draw(st.sampled_from([b"", b"\n", b"\r", b'"', b"0", b"x"])) + stream[where + 1 :]
    cuts = {0, len(stream)}
    for end in ends:
        match draw(st.sampled_from(["here", "here", "here", "nowhere", "near", "anywhere"])):
            case "here":
                cuts.add(end)
            case "near":
                cuts.add(max(0, end + draw(st.integers(-4, 6))))
            case "anywhere":
                cuts.add(draw(st.integers(0, len(stream))))
    return Sent(tuple(stream[start:end] for start, end in pairwise(sorted(cuts))))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@settings(max_examples=200, deadline=None)
@given(_sent(), st.sampled_from(["fake", "mine"]))
@example(Sent((*in_chunks(event("a"), event("b"), event("c")), *END, LAST)), "fake")
def test_a_stream_is_the_same_whether_its_chunks_pass_or_are_parsed_wherever_it_is_cut(
    runner: asyncio.Runner, sent: Sent, name: str
) -> None:
    passed, _ = runner.run(answer(sent.reads, name=name))
    parsed, _ = runner.run(answer(sent.reads, name=name, is_parsing=True))

    assert passed == parsed


def test_the_test_has_seen_chunks_pass(runner: asyncio.Runner) -> None:
    words = [json.dumps(number) for number in range(50)]
    _, client = runner.run(answer([*in_chunks(*map(event, words)), *END, LAST]))

    assert len(client.chunks) >= len(words) - 2


# -- over real connections

BODY = json.dumps(chat(stream=True)).encode()


async def test_a_client_reads_the_very_chunks_of_its_engine() -> None:
    known = [b"%X\r\n%b\r\n" % (len(one), one) for one in (event("x" * count) for count in range(30, 36))]
    has_read = asyncio.Semaphore(0)

    async def paced(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(HEAD)
        for one in [wire.chunk(event("first")), wire.chunk(event("second")), *known, *END, LAST]:
            writer.write(one)
            await has_read.acquire()

    async with Server(paced) as server, running({"engine": backend(server.url)}, models("fake")) as rig:
        where = urlsplit(rig.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(request("POST", "/v1/chat/completions", BODY))
        async with asyncio.timeout(20):
            for one in [b"first", b"second", *known]:
                await reader.readuntil(one)
                has_read.release()
            for _ in END:
                has_read.release()
            assert (await reader.readuntil(LAST)).endswith(wire.DONE + b"\r\n" + LAST)
        writer.close()


async def test_an_engine_that_falls_silent_behind_known_events_has_failed() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(HEAD)
        for one in in_chunks(*map(event, ("a", "b", "c", "d"))):
            writer.write(one)
            await asyncio.sleep(0.01)
        await reader.read()

    hasty = Timeouts(connect_s=5, first_byte_s=20, between_events_s=0.5)
    async with (
        Server(silent) as server,
        running({"engine": backend(server.url, timeouts=hasty)}, models("fake")) as rig,
    ):
        reply = await rig.ask(body=chat(stream=True))

    assert reply.is_cut
    assert reply.text == "abcd"
    assert reply.events[-1]["error"]["code"] == "engine_timeout"
