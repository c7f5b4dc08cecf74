"""Bad input over real sockets: a clear refusal that names the field, never repeats the input, and disturbs nobody."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.relay.http.json_body import MAX_DEPTH
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MARK = "Zaubertrank"
MIB = 2**20


def body(fields: str) -> bytes:
    """A chat request with these members in front."""
    return f'{{{fields}, "messages": [{{"role": "user", "content": "{MARK}"}}]}}'.encode()


def nested(depth: int, opener: str = "[", closer: str = "]") -> bytes:
    """A request whose deepest place is `depth` objects and lists down."""
    return body(f'"model": "fake", "x": {opener * (depth - 1)}1{closer * (depth - 1)}')


GOOD = body('"model": "fake"')
INVALID = {
    "nothing": b"",
    "white space": b" \r\n\t ",
    "half an object": GOOD[:-1],
    "half a string": GOOD[:30],
    "junk behind it": GOOD + b"x",
    "two objects": GOOD + GOOD,
    "a comma too many": body('"model": "fake",'),
    "a comma at the end": GOOD[:-1] + b",}",
    "single quotes": GOOD.replace(b'"', b"'"),
    "a comment": b"/* c */" + GOOD,
    "no quotes": body("model: fake"),
    "a form": f"model=fake&messages={MARK}".encode(),
    "NaN": body('"model": "fake", "temperature": NaN'),
    "Infinity": body('"model": "fake", "temperature": Infinity'),
    "minus Infinity": body('"model": "fake", "temperature": -Infinity'),
    "NaN deep down": body('"model": "fake", "x": {"y": [1, NaN]}'),
    "a number with a leading zero": body('"model": "fake", "n": 01'),
    "a hexadecimal number": body('"model": "fake", "n": 0x10'),
    "a raw line break in a string": body('"model": "fake", "x": "a\nb"'),
    "NUL in a string": body('"model": "fake", "x": "a\0b"'),
    "an unknown escape": body(r'"model": "fake", "x": "\q"'),
    "half an escape": body(r'"model": "fake", "x": "\u12"'),
    "UTF-8 cut in the middle": body('"model": "fake"').replace(MARK.encode(), MARK.encode() + b"\xc3"),
    "a byte that is never UTF-8": GOOD.replace(MARK.encode(), b"\xff" + MARK.encode()),
    "an overlong slash": GOOD.replace(MARK.encode(), b"\xc0\xaf" + MARK.encode()),
    "a surrogate in UTF-8": GOOD.replace(MARK.encode(), b"\xed\xa0\x80" + MARK.encode()),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "a lone high surrogate": body(r'"model": "fake", "x": "\ud83d"'),
    "a lone low surrogate": body(r'"model": "fake", "x": "\uDE00"'),
    "a lone surrogate in a key": body(r'"model": "fake", "\ud83d": 1'),
    "surrogates in the wrong order": body(r'"model": "fake", "x": "\ude00\ud83d"'),
    "a high surrogate before a letter": body(r'"model": "fake", "x": "\ud83dA"'),
    "a list": b"[" + GOOD + b"]",
    "a string": json.dumps(MARK).encode(),
    "a number": b"42",
    "null": b"null",
    "true": b"true",
    "lists too deep": nested(MAX_DEPTH + 1),
    "objects too deep": nested(MAX_DEPTH + 1, '{"a":', "}"),
    "a hundred thousand lists": b"[" * 100_000,
    "a hundred thousand objects": b'{"a":' * 100_000,
}
# What is JSON and still no request: body, status, code, param.
WRONG = {
    "the model twice": (body('"model": "fake", "model": "fake"'), 400, "duplicate_field", None),
    "the model twice, once escaped": (body(r'"model": "fake", "mod\u0065l": "other"'), 400, "duplicate_field", None),
    "an escaped model": (body(r'"mod\u0065l": "fake"'), 400, "duplicate_field", "model"),
    "the model in capitals": (body('"model": "fake", "MODEL": "other"'), 400, "duplicate_field", "model"),
    "stream twice": (body('"model": "fake", "stream": true, "stream": false'), 400, "duplicate_field", None),
    "the model is a number": (body('"model": 7'), 400, "invalid_type", "model"),
    "the model is a list": (body('"model": ["fake"]'), 400, "invalid_type", "model"),
    "the model is an object": (body('"model": {"a": 1}'), 400, "invalid_type", "model"),
    "the model is null": (body('"model": null'), 400, "missing_field", "model"),
    "the model is empty": (body('"model": ""'), 400, "missing_field", "model"),
    "no model": (body('"n": 1'), 400, "missing_field", "model"),
    "an unknown model": (body(f'"model": "{MARK}"'), 404, "model_not_found", "model"),
    "a model's name too long": (body(f'"model": "{MARK * 100_000}"'), 404, "model_not_found", "model"),
    "a model's name with NUL": (body(r'"model": "fa\u0000ke"'), 404, "model_not_found", "model"),
    "a model's name in wide letters": (body('"model": "ｆａｋｅ"'), 404, "model_not_found", "model"),
    "a model's name that climbs": (body('"model": "../../fake"'), 404, "model_not_found", "model"),
    "stream is a string": (body('"model": "fake", "stream": "true"'), 400, "invalid_type", "stream"),
    "stream is a number": (body('"model": "fake", "stream": 1'), 400, "invalid_type", "stream"),
    "stream options are a list": (body('"model": "fake", "stream_options": []'), 400, "invalid_type", "stream_options"),
    "include_usage is a string": (
        body('"model": "fake", "stream": true, "stream_options": {"include_usage": "yes"}'),
        400,
        "invalid_type",
        "stream_options",
    ),
    "no messages": (b'{"model": "fake"}', 400, "missing_field", "messages"),
    "messages are null": (b'{"model": "fake", "messages": null}', 400, "missing_field", "messages"),
    "messages are a string": (b'{"model": "fake", "messages": "Zaubertrank"}', 400, "invalid_type", "messages"),
    "messages are an object": (b'{"model": "fake", "messages": {}}', 400, "invalid_type", "messages"),
}
TYPES = {
    "plain text": ({"content-type": "text/plain"}, "unsupported_media_type"),
    "a form": ({"content-type": "application/x-www-form-urlencoded"}, "unsupported_media_type"),
    "a multipart form": ({"content-type": "multipart/form-data; boundary=x"}, "unsupported_media_type"),
    "JSON lines": ({"content-type": "application/jsonl"}, "unsupported_media_type"),
    "no type but its place": ({"content-type": ""}, "unsupported_media_type"),
    "another alphabet": ({"content-type": "application/json; charset=utf-16"}, "unsupported_media_type"),
    "gzip": ({"content-encoding": "gzip"}, "unsupported_encoding"),
    "brotli": ({"content-encoding": "br"}, "unsupported_encoding"),
    "two codings": ({"content-encoding": "identity, gzip"}, "unsupported_encoding"),
}
ACCEPTED_TYPES = (
    "application/json",
    "Application/JSON; Charset=UTF-8",
    'application/json;charset="utf-8"; profile=x',
    "application/vnd.api+json",
)
ACCEPTED = {
    "as deep as may be": nested(MAX_DEPTH),
    "many lists side by side": nested(2).replace(b"[1]", b"[" + b"[],{}," * 1000 + b"1]"),
    "a pair of surrogates": body(r'"model": "fake", "x": "\ud83d\ude00 \\ud83d \\\\"'),
    "brackets in strings": body('"model": "fake", "x": "' + "[{" * 200 + '"'),
    "the word model in the text": body(r'"model": "fake", "x": "\"model\": \"model\"", "y": {"model": 1, "model": 2}'),
    "an escaped name": body(r'"model": "f\u0061ke"'),
    "white space all around": b"\r\n " + GOOD + b"\n\n",
    "an unknown field": body('"model": "fake", "tomorrow": {"a": [1, 2.5e-7, null, true]}'),
    "null for stream": body('"model": "fake", "stream": null, "stream_options": null'),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    served = models("fake", "fault:endless_drip:0.001") | models("renamed", engine_name="fake")
    async with running({"engine": backend(engine.url)}, served) as gateway:
        yield gateway


async def assert_refused(
    rig: Rig, path: str, data: bytes, status: int, code: str, param: str | None, headers: dict[str, str] | None = None
) -> None:
    """Sent whole and in chunks, on one connection that is good for another request."""
    chunked = {"transfer-encoding": "chunked", "content-type": "application/json", **(headers or {})}
    head = request("GET", path, headers=chunked).replace(b"GET", b"POST", 1)
    middle = len(data) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (data[:middle], data[middle:]) if p)
    async with asyncio.timeout(20), Client(rig.url) as client:
        for sent in (request("POST", path, data, headers), head + pieces + b"0\r\n\r\n"):
            client.send(sent)
            reply = await client.reply()

            assert (reply.status, reply.error["code"], reply.error["param"]) == (status, code, param), reply.body
            assert reply.error["type"] == "invalid_request_error"
            assert MARK.encode() not in reply.body
            assert b"Traceback" not in reply.body
            assert len(reply.body) < 1000


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
async def test_what_is_no_sound_json_object_is_refused(rig: Rig, engine: FakeEngine, data: bytes) -> None:
    before = len(engine.requests)

    await assert_refused(rig, CHAT, data, 400, "invalid_json", None)

    assert len(engine.requests) == before


@pytest.mark.parametrize(("data", "status", "code", "param"), WRONG.values(), ids=WRONG)
async def test_a_wrong_field_is_refused_by_its_name(
    rig: Rig, engine: FakeEngine, data: bytes, status: int, code: str, param: str | None
) -> None:
    before = len(engine.requests)

    await assert_refused(rig, CHAT, data, status, code, param)

    assert len(engine.requests) == before


@pytest.mark.parametrize(("path", "field"), [(TEXT, "prompt"), (EMBED, "input")])
async def test_each_route_asks_for_its_own_field(rig: Rig, path: str, field: str) -> None:
    await assert_refused(rig, path, b'{"model": "fake"}', 400, "missing_field", field)
    await assert_refused(rig, path, b"[]", 400, "invalid_json", None)


@pytest.mark.parametrize(("headers", "code"), TYPES.values(), ids=TYPES)
async def test_what_is_not_said_to_be_plain_json_is_refused(rig: Rig, headers: dict[str, str], code: str) -> None:
    await assert_refused(rig, CHAT, gzip.compress(GOOD), 415, code, None, headers)


@pytest.mark.parametrize("type_", ACCEPTED_TYPES)
async def test_json_may_be_said_in_several_ways(rig: Rig, type_: str) -> None:
    reply = await rig.ask(body=GOOD, headers={"content-type": type_})

    assert reply.status == 200


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED)
async def test_what_only_looks_wrong_passes_unchanged(rig: Rig, engine: FakeEngine, data: bytes) -> None:
    reply = await rig.ask(body=data)

    assert reply.status == 200, reply.body
    assert engine.posts[-1].body == data


@pytest.mark.parametrize("path", [CHAT, TEXT, EMBED])
async def test_a_query_does_not_reach_the_engine(rig: Rig, engine: FakeEngine, path: str) -> None:
    fields = {"model": "fake", "prompt": "a", "input": "a", "messages": chat()["messages"]}

    reply = await rig.ask(f"{path}?api-version=1&x={MARK}", fields)

    assert reply.status == 200
    assert engine.posts[-1].path == path


async def test_a_body_of_the_limit_and_one_byte_is_refused_however_it_comes(rig: Rig) -> None:
    size = 32 * MIB + 1
    data = GOOD.ljust(size)
    head = request("GET", CHAT, headers={"transfer-encoding": "chunked"}).replace(b"GET", b"POST", 1)
    for sent in (request("POST", CHAT, data), head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, data)):
        async with asyncio.timeout(30), Client(rig.url) as client:
            client.send(sent)
            reply = await client.reply()

            assert (reply.status, reply.error["code"]) == (413, "request_too_large")


SAID = b'{"model":"renamed","messages":[{"role":"user","content":"%b"}]}'
HUGE = {
    "brackets and commas in a text": SAID % (b"{[a,1]}," * (30 * MIB // 8)),
    "escapes": SAID % (rb"\ud83d\ude00" * (30 * MIB // 12)),
}


@pytest.mark.parametrize("data", HUGE.values(), ids=HUGE)
async def test_a_huge_body_does_not_stall_a_running_stream(rig: Rig, engine: FakeEngine, data: bytes) -> None:
    """Its events keep coming between the steps of the check, which begins when the body has been read."""
    async with asyncio.timeout(60), Client(rig.url) as watcher, Client(rig.url) as sender:
        watcher.send(request("POST", CHAT, json.dumps(chat("fault:endless_drip:0.001", stream=True)).encode()))
        await watcher.reader.readuntil(b"data: ")
        sender.send(request("POST", CHAT, data))
        await sender.writer.drain()
        answered = asyncio.create_task(sender.reply())
        events = 0
        while not answered.done():
            await watcher.reader.readuntil(b"data: ")
            events += 1

        assert (await answered).status == 200
        assert events > 50
        assert len(engine.posts[-1].body) == len(data) - len("renamed") + len("fake")
