"""One usage record of each model request, however it ends, and there before its client knows that it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from app.keys import digest
from app.relay.http.protocol import ServerProtocol
from app.relay.http.response import ClientResponse
from app.table import Key, Price, PublicModel, Serving, Table, Target, Wildcard
from app.usage.record import UsageRecord
from app.usage.segment_reader import SegmentReader
from app.usage.segments import FOLDER
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.fakes.ollama import FakeOllama
from tests.rigs import ollama
from tests.rigs.hop import Server, take
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running
from tests.unit.relay.test_metrics_of_dialects import DIALECTS, REST

SECRET = "mp-office-0123"
SAID = "the colour of my safe's key is green"
WORDS = len(wire.WORDS)
PIECE = {"role": "assistant", "content": "yes"}


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(("fake",)) as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("fake")) as gateway:
        await gateway.published(keeps_usage=True)
        yield gateway


def kept(rig: Rig) -> list[UsageRecord]:
    reader = SegmentReader(rig.state / FOLDER)
    try:
        return [record for _, record in reader.take().records]
    finally:
        reader.close()


async def settled(rig: Rig) -> list[UsageRecord]:
    await rig.fleet.until(lambda: rig.leases.total() == 0)
    return kept(rig)


async def at_last(rig: Rig) -> UsageRecord:
    """The one record, as soon as it is there."""
    async with asyncio.timeout(20):
        while not (records := kept(rig)):  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.01)
    (record,) = records
    return record


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_a_request_of_each_dialect_is_one_record(rig: Rig, path: str, is_stream: bool) -> None:
    await rig.published(keys=(Key("office", digest(SECRET), id="k-1", team="law"),))
    headers = {"authorization": f"Bearer {SECRET}", "x-request-id": "mine"}
    body = {"model": "fake", "stream": is_stream, **DIALECTS[path]}

    assert (await rig.ask(path, body, headers=headers)).status == 200
    (record,) = await settled(rig)

    assert (record.key, record.key_name, record.team) == ("k-1", "office", "law")
    assert (record.model, record.backend, record.route) == ("fake", "engine", path)
    assert (record.input_tokens, record.output_tokens, record.is_estimated) == (12, WORDS, False)
    assert (record.outcome, record.status, record.is_stream, record.attempts) == ("ok", 200, is_stream, 1)
    assert record.request_id == "mine"
    assert record.at > 1.7e9
    assert record.seconds > (record.first_token_s or 0.0) >= 0.0
    assert (record.first_token_s is not None) == is_stream


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_so_is_one_that_a_daemon_answers(path: str, is_stream: bool) -> None:
    async with FakeOllama() as daemon, ollama.gateway(daemon) as rig:
        await rig.published(keeps_usage=True)
        body = {"model": "smollm2:135m", "stream": is_stream, **DIALECTS[path]}

        assert (await rig.ask(path, body)).status == 200
        (record,) = await settled(rig)

        assert (record.model, record.outcome, record.is_stream) == ("smollm2:135m", "ok", is_stream)
        assert min(record.input_tokens, record.output_tokens) > 0


@pytest.mark.parametrize("path", sorted(set(REST) - {"/api/show", "/v1/compare", "/v1/score/evaluation"}))
async def test_what_writes_no_text_is_one_record_too(rig: Rig, path: str) -> None:
    reply = await rig.ask(path, {"model": "fake", **REST[path]})
    (record,) = await settled(rig)

    assert (record.model, record.status, record.route) == ("fake", reply.status, path)


async def test_each_answer_of_a_comparison_is_a_record(engine: FakeEngine) -> None:
    async with running({"engine": backend(engine.url)}, models("fake", "other", engine_name="fake")) as rig:
        await rig.published(keeps_usage=True)

        body = {"models": ["fake", "other"], "messages": [{"role": "user", "content": "hi"}]}
        assert (await rig.ask("/v1/compare", body)).status == 200
        records = await settled(rig)

        answers = [each for each in records if each.operation == "chat"]
        assert sorted(each.model for each in answers) == ["fake", "other"]
        assert {each.route for each in records} == {"/v1/compare"}


async def test_nothing_that_was_said_is_kept(rig: Rig) -> None:
    await rig.ask(body=chat(text=SAID))
    await rig.ask(body=chat(text=SAID, stream=True))
    await settled(rig)

    data = b"".join(path.read_bytes() for path in (rig.state / FOLDER).iterdir())
    assert SAID.encode() not in data
    assert not [word for word in wire.WORDS if len(word.strip()) > 3 and word.strip().encode() in data]


async def test_without_the_setting_nothing_is_kept(rig: Rig) -> None:
    await rig.published(keeps_usage=False)

    await rig.ask(body=chat())

    assert await settled(rig) == []


async def test_without_keys_the_key_is_empty(rig: Rig) -> None:
    await rig.ask(body=chat())
    (record,) = await settled(rig)

    assert (record.key, record.key_name, record.team) == ("", "", None)


async def test_a_key_without_an_id_is_counted_under_its_name(rig: Rig) -> None:
    await rig.published(keys=(Key("office", digest(SECRET)),))

    await rig.ask(body=chat(), headers={"authorization": f"Bearer {SECRET}"})
    (record,) = await settled(rig)

    assert record.key == "office"


async def test_money_is_by_the_price_of_the_model_that_was_asked_for(rig: Rig) -> None:
    priced = msgspec.structs.replace(models("fake")["fake"], price=Price(input=1e6, output=2e6))
    await rig.published(models={"fake": priced})

    await rig.ask(body=chat())
    (record,) = await settled(rig)

    assert record.money == 12 + 2 * WORDS


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tokens_from_a_cache_and_of_thinking_are_told(rig: Rig, engine: FakeEngine, is_stream: bool) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 4}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, **details}
    message = {"index": 0, "finish_reason": "stop", "delta" if is_stream else "message": PIECE}
    head = {"id": "c", "object": f"chat.completion{'.chunk' if is_stream else ''}", "created": 1, "model": "fake"}
    whole = msgspec.json.encode({**head, "choices": [message], "usage": usage})

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        body = b"data: " + whole + b"\n\ndata: [DONE]\n\n" if is_stream else whole
        kind = b"text/event-stream" if is_stream else b"application/json"
        length = b"content-length: %d\r\n\r\n" % len(body)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\n" + length + body)

    async with Server(answers) as server:
        await rig.published(backends={"engine": backend(server.url)})
        assert (await rig.ask(body=chat(stream=is_stream))).status == 200
        (record,) = await settled(rig)

    assert (record.input_tokens, record.cached_tokens) == (9, 8)
    assert (record.output_tokens, record.reasoning_tokens) == (5, 4)


async def test_what_answered_is_told_by_its_digest(rig: Rig, engine: FakeEngine) -> None:
    row = backend(engine.url, servings={"fake": Serving("0123456789abcdef")})
    await rig.published(backends={"engine": row})

    await rig.ask(body=chat())
    (record,) = await settled(rig)

    assert record.serving == "0123456789abcdef"


@pytest.mark.parametrize(
    ("script", "is_stream", "outcome"),
    [
        ("status_500_vllm", False, "engine_failed"),
        ("status_500_vllm", True, "engine_failed"),
        ("status_400_vllm", False, "engine_rejected"),
        ("fin_mid_stream", True, "engine_disconnected"),
    ],
)
async def test_a_request_that_failed_is_a_record_with_what_its_client_got(
    rig: Rig, engine: FakeEngine, script: str, is_stream: bool, outcome: str
) -> None:
    engine.script(script)

    reply = await rig.ask(body=chat(stream=is_stream))
    (record,) = await settled(rig)

    assert record.outcome == outcome
    assert record.status == (reply.status if reply.status != 200 else record.status) >= 400


async def test_a_request_that_no_engine_took_is_a_record_without_tokens(rig: Rig) -> None:
    await rig.published(backends={"engine": backend(None)})

    assert (await rig.ask(body=chat())).status == 503
    (record,) = await settled(rig)

    assert (record.status, record.input_tokens, record.output_tokens) == (503, 0, 0)


async def test_a_client_that_left_is_counted_with_what_was_generated(rig: Rig, engine: FakeEngine) -> None:
    engine.script("stall_mid_stream")
    async with Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", msgspec.json.encode(chat(stream=True))))
        await client.reader.readuntil(b"\n\n")

    record = await at_last(rig)

    assert (record.outcome, record.status) == ("client_left", 499)


async def test_the_prompt_of_a_client_that_left_before_the_engine_told_it_is_estimated(
    rig: Rig, engine: FakeEngine
) -> None:
    engine.script("endless_drip")
    body = msgspec.json.encode(chat(stream=True, text="word " * 80))
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("POST", "/v1/chat/completions", body))
        await client.reader.readuntil(b"data: ")
    record = await at_last(rig)

    assert (record.outcome, record.is_estimated) == ("client_left", True)
    assert record.input_tokens == len(body) // 4


async def test_a_wildcards_name_is_told_once_an_engine_has_answered_for_it(rig: Rig, engine: FakeEngine) -> None:
    await rig.published(models={}, wildcards=(Wildcard("any/", "engine", price=Price(input=1e6)),))
    await rig.ask(body=chat("any/fake"))
    engine.script("status_500_vllm")
    await rig.ask(body=chat("any/of my safe's key"))

    answered, failed = await settled(rig)

    assert (answered.model, failed.model) == ("any/fake", "any/*")
    assert answered.money == 12


async def test_a_refusal_before_there_is_a_model_is_no_record(rig: Rig) -> None:
    assert (await rig.ask(body=chat("nobody"))).status == 404

    assert await settled(rig) == []


LONG = "é" * 256


async def test_the_longest_names_fit(rig: Rig) -> None:
    table: dict[str, Any] = {
        "models": {LONG: PublicModel(LONG, (Target("engine", "fake"),))},
        "keys": (Key(LONG, digest(SECRET), id=LONG, team=LONG),),
    }
    await rig.published(**table)

    await rig.ask(body=chat(LONG), headers={"authorization": f"Bearer {SECRET}", "x-request-id": "x" * 128})
    (record,) = await settled(rig)

    assert (record.model, record.key, record.team, record.request_id) == (LONG, LONG, LONG, "x" * 128)


# -- the order of things

END_MARKS = {
    "/v1/chat/completions": b"[DONE]",
    "/v1/completions": b"[DONE]",
    "/v1/messages": b"message_stop",
    "/v1/responses": b"response.completed",
    "/api/chat": b'"done":true',
    "/api/generate": b'"done":true',
}


class _Watched:
    """What had been kept when the client was written something."""

    def __init__(self) -> None:
        self.rig: Rig | None = None
        self.written: list[tuple[bytes, int]] = []

    def note(self, data: bytes) -> None:
        if self.rig is not None:
            self.written.append((data, len(kept(self.rig))))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> _Watched:
    watched = _Watched()
    write, write_later = ServerProtocol.write, ServerProtocol.write_later
    chunk, chunks = ClientResponse.write, ClientResponse.write_chunks

    def noted(call: Any) -> Any:
        def wrapped(owner: Any, data: bytes) -> None:
            watched.note(data)
            call(owner, data)

        return wrapped

    monkeypatch.setattr(ServerProtocol, "write", noted(write))
    monkeypatch.setattr(ServerProtocol, "write_later", noted(write_later))
    monkeypatch.setattr(ClientResponse, "write", noted(chunk))
    monkeypatch.setattr(ClientResponse, "write_chunks", noted(chunks))
    return watched


@pytest.mark.parametrize("is_daemon", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_the_record_is_there_before_the_end_mark_or_any_of_a_whole_answer_goes_out(
    watched: _Watched, engine: FakeEngine, path: str, is_stream: bool, is_daemon: bool
) -> None:
    async with (
        FakeOllama() as daemon,
        ollama.gateway(daemon) as of_daemon,
        running({"engine": backend(engine.url)}, models("fake")) as of_engine,
    ):
        watched.rig = rig = of_daemon if is_daemon else of_engine
        await rig.published(keeps_usage=True)
        model = "smollm2:135m" if is_daemon else "fake"

        assert (await rig.ask(path, {"model": model, "stream": is_stream, **DIALECTS[path]})).status == 200
        await settled(rig)

    mark = END_MARKS[path] if is_stream else b"HTTP/1.1 200"
    told = [count for data, count in watched.written if mark in data]
    assert told
    assert set(told) == {1}


async def test_a_failure_is_kept_before_it_is_told(watched: _Watched, rig: Rig, engine: FakeEngine) -> None:
    watched.rig = rig
    engine.script("status_500_vllm")

    await rig.ask(body=chat())
    await asyncio.sleep(0)

    assert {count for _, count in watched.written} == {1}


def test_tables_keep_nothing_unless_they_say_so() -> None:
    assert Table(1, {}, {}, (), {}).keeps_usage is False
