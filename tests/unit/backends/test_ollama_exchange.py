"""A daemon's response as if an OpenAI engine had sent it: over our own connection, from the fake daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from backends.endpoint import Dialect, Endpoint
from backends.errors import Disconnected, EngineFailed
from backends.http.delta import Delta
from backends.http.exchange import Exchange
from backends.http.pool import ConnectionPool, UpstreamRequest
from backends.ollama.exchange import OllamaExchange
from backends.ollama.request import OllamaRequest
from backends.ollama.response import ResponseHead
from tests.fakes.ollama import FakeOllama, Fault

STREAM = b'{"model":"smollm2:135m","messages":[{"role":"user","content":"count"}]}'
WHOLE = STREAM[:-1] + b',"stream":false}'
LIMIT = 1 << 20


class Kept:
    """A sink that keeps what comes; `most`: pieces after which it has enough."""

    def __init__(self, most: int = 1000) -> None:
        self.pieces: list[list[Delta]] = []
        self._most = most

    def __call__(self, deltas: list[Delta]) -> bool:
        self.pieces.append(deltas)
        return len(self.pieces) >= self._most

    @property
    def deltas(self) -> list[Delta]:
        return [delta for piece in self.pieces for delta in piece]


@pytest.fixture
async def daemon() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    hop = ConnectionPool()
    yield hop
    await hop.aclose()


async def opened(daemon: FakeOllama, pool: ConnectionPool, body: bytes) -> tuple[Exchange, OllamaExchange]:
    endpoint = Endpoint("ollama", 1, daemon.url, dialect=Dialect.OLLAMA)
    inner = await pool.open(endpoint, UpstreamRequest("POST", "/api/chat", body))
    asked = OllamaRequest("chat", "/api/chat", body, "mine", is_stream=body is STREAM)
    return inner, OllamaExchange(inner, ResponseHead("ollama", asked, "id-1", 1), LIMIT)


async def test_a_stream_of_lines_is_one_of_deltas(daemon: FakeOllama, pool: ConnectionPool) -> None:
    inner, answer = await opened(daemon, pool, STREAM)
    came = Kept()

    await answer.pump(came)
    answer.linger()

    assert answer.is_stream
    assert answer.headers["content-type"] == inner.headers["content-type"] == "application/x-ndjson"
    assert [delta.finish for delta in came.deltas if delta.finish is not None] == [came.deltas[-1].finish]
    assert answer.timings.generate_s == pytest.approx(0.04)
    assert answer.endpoint.engine == "ollama"


async def test_a_sink_that_has_enough_ends_the_pump(daemon: FakeOllama, pool: ConnectionPool) -> None:
    daemon.script(Fault("line", after=2))
    inner, answer = await opened(daemon, pool, STREAM)
    came = Kept(most=1)

    await answer.pump(came)
    inner.close()

    assert len(came.pieces) == 1


@pytest.mark.parametrize(("how", "kind"), [("line", EngineFailed), ("fin", Disconnected), ("reset", Disconnected)])
async def test_a_stream_that_goes_wrong_raises_behind_its_events(
    daemon: FakeOllama, pool: ConnectionPool, how: str, kind: type[Exception]
) -> None:
    daemon.script(Fault(how, after=2))
    inner, answer = await opened(daemon, pool, STREAM)
    came = Kept()

    with pytest.raises(kind):
        await answer.pump(came)
    inner.close()

    assert len(came.deltas) == 2


async def test_a_whole_answer_is_translated_with_its_times(daemon: FakeOllama, pool: ConnectionPool) -> None:
    inner, answer = await opened(daemon, pool, WHOLE)

    body = await answer.read(LIMIT)
    inner.close()

    assert b'"object":"chat.completion"' in body
    assert not answer.is_stream
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.notes["x-modelport-prompt-ms"] == "7.0"
    assert pool.idle == 1
