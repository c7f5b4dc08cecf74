"""What is a request and what is not, byte for byte: each refusal is JSON, and ends the connection it came on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.relay.http.request_head import MAX_HEAD_BYTES, MAX_HEADER_LINES
from app.relay.routes.application import RelayApplication
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, Reply, chat, request
from tests.rigs.relay import Rig, backend, models, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps(chat()).encode()
CHAT = "/v1/chat/completions"
LENGTH = b"content-length: %d" % len(BODY)
CHUNKED = b"transfer-encoding: chunked"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(256))


def lines(first: bytes, *headers: bytes) -> bytes:
    """A head as it is, without any header that is not given."""
    return b"".join(line + b"\r\n" for line in (first, *headers, b""))


def get(first: bytes, *headers: bytes) -> bytes:
    return lines(first, b"host: gateway", *headers)


def post(*headers: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    return get(b"POST /v1/chat/completions HTTP/" + version, *headers) + body


REFUSED = {
    "garbage": (b"\x00\x01\x02 hello\r\n\r\n", 400, "invalid_http"),
    "a TLS hello": (TLS_HELLO, 400, "invalid_http"),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    "HTTP/2.0 in a request line": (get(b"GET /livez HTTP/2.0"), 400, "invalid_http"),
    "HTTP/1.2": (get(b"GET /livez HTTP/1.2"), 400, "invalid_http"),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", 400, "invalid_http"),
    "an unknown method": (get(b"BREW /livez HTTP/1.1"), 400, "invalid_http"),
    "a method in small letters": (get(b"get /livez HTTP/1.1"), 400, "invalid_http"),
    "no host": (lines(b"GET /livez HTTP/1.1"), 400, "invalid_host"),
    "two hosts": (get(b"GET /livez HTTP/1.1", b"Host: gateway"), 400, "invalid_host"),
    "an absolute target": (get(b"GET http://gateway/livez HTTP/1.1"), 400, "invalid_path"),
    "a CONNECT": (get(b"CONNECT gateway:80 HTTP/1.1"), 400, "invalid_path"),
    "a CONNECT that wants to upgrade": (
        get(b"CONNECT gateway:80 HTTP/1.1", b"connection: upgrade", b"upgrade: h2c"),
        400,
        "invalid_path",
    ),
    "letters beyond ASCII": (get("GET /livéz HTTP/1.1".encode()), 400, "invalid_http"),
    "a space before a colon": (get(b"GET /livez HTTP/1.1", b"accept : text/html"), 400, "invalid_http"),
    "a header line without a colon": (get(b"GET /livez HTTP/1.1", b"accept"), 400, "invalid_http"),
    "NUL in a header": (get(b"GET /livez HTTP/1.1", b"accept: a\0b"), 400, "invalid_http"),
    "a folded header": (get(b"GET /livez HTTP/1.1", b"accept: a", b" b: c"), 400, "invalid_http"),
    "bare line feeds": (b"GET /livez HTTP/1.1\nhost: gateway\n\n", 400, "invalid_http"),
    "too many header lines": (
        get(b"GET /livez HTTP/1.1", *[b"a: b"] * MAX_HEADER_LINES),
        431,
        "headers_too_large",
    ),
    "a header line too long": (
        get(b"GET /livez HTTP/1.1", b"a: " + b"x" * MAX_HEAD_BYTES),
        431,
        "headers_too_large",
    ),
    "many long header lines": (
        get(b"GET /livez HTTP/1.1", *[b"a: " + b"x" * 1000] * 66),
        431,
        "headers_too_large",
    ),
    "a header line without end": (
        b"GET /livez HTTP/1.1\r\nhost: a\r\na: " + b"x" * 2**20,
        431,
        "headers_too_large",
    ),
    "a target too long": (get(b"GET /" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1"), 431, "headers_too_large"),
    "a target without end": (b"GET /" + b"x" * 2**20, 431, "headers_too_large"),
    "a trailer without end": (
        post(CHUNKED, body=ONE_CHUNK[:-2] + b"a: " + b"x" * 2**20),
        431,
        "headers_too_large",
    ),
    "too many trailers": (
        post(CHUNKED, body=ONE_CHUNK[:-2] + b"a: b\r\n" * (MAX_HEADER_LINES + 1)),
        431,
        "headers_too_large",
    ),
    "a chunk extension without end": (post(CHUNKED, body=b"5;" + b"x" * 2**20), 431, "headers_too_large"),
    "length after chunked": (post(CHUNKED, LENGTH, body=ONE_CHUNK), 400, "invalid_http"),
    "chunked after length": (post(LENGTH, CHUNKED, body=ONE_CHUNK), 400, "invalid_http"),
    "two lengths that agree": (post(LENGTH, LENGTH), 400, "invalid_http"),
    "two lengths that differ": (post(LENGTH, b"content-length: 1"), 400, "invalid_http"),
    "a negative length": (post(b"content-length: -1"), 400, "invalid_http"),
    "a length with a sign": (post(b"content-length: +5"), 400, "invalid_http"),
    "a hexadecimal length": (post(b"content-length: 0x5"), 400, "invalid_http"),
    "a list of lengths": (post(b"content-length: 5, 5"), 400, "invalid_http"),
    "an empty length": (post(b"content-length: "), 400, "invalid_http"),
    "a length beyond 64 bits": (post(b"content-length: " + b"9" * 30), 400, "invalid_http"),
    "an unknown coding": (post(b"transfer-encoding: xchunked"), 400, "invalid_http"),
    "identity": (post(b"transfer-encoding: identity"), 400, "invalid_http"),
    "chunked that is not last": (post(b"transfer-encoding: chunked, identity"), 400, "invalid_http"),
    "a second coding": (post(b"transfer-encoding: gzip, chunked", body=ONE_CHUNK), 400, "invalid_http"),
    "chunked twice": (post(CHUNKED, CHUNKED, body=ONE_CHUNK), 400, "invalid_http"),
    "a vertical tab before chunked": (post(b"transfer-encoding:\x0bchunked", body=ONE_CHUNK), 400, "invalid_http"),
    "chunked in HTTP/1.0": (post(CHUNKED, body=ONE_CHUNK, version=b"1.0"), 400, "invalid_http"),
    "a chunk size that is none": (post(CHUNKED, body=b"ZZ\r\n"), 400, "invalid_http"),
    "a negative chunk size": (post(CHUNKED, body=b"-1\r\n"), 400, "invalid_http"),
    "a chunk size beyond 64 bits": (post(CHUNKED, body=b"f" * 17 + b"\r\n"), 400, "invalid_http"),
    "a chunk longer than its size": (post(CHUNKED, body=b"2\r\nabcdef\r\n0\r\n\r\n"), 400, "invalid_http"),
    "chunks with bare line feeds": (post(CHUNKED, body=b"2\nab\n0\n\n"), 400, "invalid_http"),
}
# What has the right form and still is nothing here; the connection stays.
UNKNOWN = {
    "an encoded slash": (b"GET /v1%2Fmodels HTTP/1.1", 404, "route_not_found"),
    "encoded letters": (b"GET /%76%31/models HTTP/1.1", 404, "route_not_found"),
    "a broken encoding": (b"GET /%zz HTTP/1.1", 404, "route_not_found"),
    "dots": (b"GET /v1/../livez HTTP/1.1", 404, "route_not_found"),
    "two slashes": (b"GET //livez HTTP/1.1", 404, "route_not_found"),
    "an asterisk": (b"GET * HTTP/1.1", 404, "route_not_found"),
    "options of nothing": (b"OPTIONS /nothing HTTP/1.1", 404, "route_not_found"),
    "no route, with a query": (b"GET /v2?a=b HTTP/1.1", 404, "route_not_found"),
    "a model route asked to read": (b"GET /v1/chat/completions HTTP/1.1", 405, "method_not_allowed"),
    "an embedding asked to read": (b"GET /v1/embeddings?x=y HTTP/1.1", 405, "method_not_allowed"),
    "a model route to delete": (b"DELETE /v1/completions HTTP/1.1", 405, "method_not_allowed"),
    "the list to write": (b"POST /v1/models HTTP/1.1", 405, "method_not_allowed"),
    "a model to write": (b"PUT /v1/models/fake HTTP/1.1", 405, "method_not_allowed"),
    "liveness to patch": (b"PATCH /livez HTTP/1.1", 405, "method_not_allowed"),
    "a method of WebDAV": (b"PROPFIND /readyz HTTP/1.1", 405, "method_not_allowed"),
}
UPGRADES = {
    "h2c with a length": (
        [b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AA", LENGTH],
        BODY,
    ),
    "h2c in chunks": ([b"connection: upgrade", b"upgrade: h2c", CHUNKED], ONE_CHUNK),
    "a web socket": ([b"connection: keep-alive, Upgrade", b"upgrade: websocket", LENGTH], BODY),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with FakeEngine() as engine, running({"engine": backend(engine.url)}, models("fake")) as gateway:
        yield gateway


async def is_alive(client: Client) -> bool:
    """The connection takes another request."""
    client.send(request("GET", "/livez"))
    return (await client.reply()).status == 200


def assert_refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.is_whole) == (status, True), reply
    assert reply.error["code"] == code
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"] is None
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("data", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_a_request_is_refused_in_json(rig: Rig, data: bytes, status: int, code: str) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(data)
        reply = await client.reply()

        assert_refused(reply, status, code)
        assert reply.headers["connection"] == "close"
        assert await client.is_closed()


@pytest.mark.parametrize(("first", "status", "code"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_is_not_served_is_said_so_and_the_connection_stays(
    rig: Rig, first: bytes, status: int, code: str
) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(get(first))
        reply = await client.reply()

        assert_refused(reply, status, code)
        assert ("allow" in reply.headers) == (status == 405)
        assert await is_alive(client)


@pytest.mark.parametrize(("headers", "body"), UPGRADES.values(), ids=UPGRADES)
async def test_a_request_for_another_protocol_is_answered_as_a_plain_request(
    rig: Rig, headers: list[bytes], body: bytes
) -> None:
    """Java's client sends one with its first request, body and all."""
    async with asyncio.timeout(20), Client(rig.url) as client:
        for _ in range(2):
            client.send(post(*headers, body=body))
            reply = await client.reply()

            assert reply.status == 200
            assert reply.text
            assert "upgrade" not in reply.headers
        assert await is_alive(client)


@pytest.mark.parametrize("name", UPGRADES)
async def test_such_a_request_may_come_byte_by_byte(rig: Rig, name: str) -> None:
    headers, body = UPGRADES[name]
    async with asyncio.timeout(20), Client(rig.url) as client:
        for byte in post(*headers, body=body):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        reply = await client.reply()

        assert reply.status == 200
        assert await is_alive(client)


async def test_frames_of_a_web_socket_are_no_request(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(get(b"GET /livez HTTP/1.1", b"connection: Upgrade", b"upgrade: websocket") + b"\x81\x85junk")
        first = await client.reply()

        assert first.status == 200
        assert await client.is_closed()


async def test_a_request_may_come_byte_by_byte(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        for data in (request("POST", CHAT, BODY), post(CHUNKED, body=ONE_CHUNK)):
            for byte in data:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert (await client.reply()).status == 200
        assert await is_alive(client)


async def test_empty_lines_before_a_request_do_no_harm(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(b"\r\n\r\n")

        assert await is_alive(client)


async def test_trailers_and_chunk_extensions_are_read_and_dropped(rig: Rig) -> None:
    chunk = b"%x;name=value\r\n%b\r\n0\r\nhost: other\r\nx-request-id: other\r\n\r\n" % (len(BODY), BODY)
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(CHUNKED, b"x-request-id: mine", body=chunk))
        reply = await client.reply()

        assert reply.status == 200
        assert reply.headers["x-request-id"] == "mine"
        assert await is_alive(client)


async def test_a_client_that_expects_100_is_told_to_go_on(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(b"expect: 100-continue", LENGTH, body=b""))
        interim = await client.reader.readuntil(b"\r\n\r\n")
        client.send(BODY)
        reply = await client.reply()

        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert reply.status == 200
        assert await is_alive(client)


async def test_a_client_that_expected_100_once_is_not_told_again(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(b"expect: 100-continue", LENGTH, body=b""))
        await client.reader.readuntil(b"\r\n\r\n")
        client.send(BODY)
        await client.reply()
        client.send(post(LENGTH, body=BODY[:10]))
        await asyncio.sleep(0.05)
        client.send(BODY[10:])

        assert (await client.reply()).status == 200


async def test_a_client_that_expects_100_is_refused_before_it_sends(rig: Rig) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(post(b"expect: 100-continue", b"content-length: 999999999", body=b""))
        reply = await client.reply()

        assert_refused(reply, 413, "request_too_large")
        assert reply.headers["connection"] == "close"


async def test_a_client_does_not_wait_where_its_request_broke_the_relay(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(RelayApplication, "_refuse")
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(get(b"GET /nothing HTTP/1.1"))

        assert await client.is_closed()


async def test_an_http_1_0_client_gets_no_chunks_and_the_end_of_the_connection(rig: Rig) -> None:
    body = json.dumps(chat(stream=True)).encode()
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(lines(b"POST /v1/chat/completions HTTP/1.0", b"content-length: %d" % len(body)) + body)
        reply = await client.reply()

        assert reply.status == 200
        assert "transfer-encoding" not in reply.headers
        assert reply.headers["connection"] == "close"
        assert reply.events[-1] == "[DONE]"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/v1/models/fake", "/nowhere", CHAT])
async def test_head_has_the_headers_of_get_and_no_body(rig: Rig, path: str) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("GET", path))
        full = await client.reply()
        client.send(request("HEAD", path))
        empty = await client.reply(is_head=True)

        assert empty.status == full.status
        assert empty.headers["content-length"] == str(len(full.body))
        assert await is_alive(client)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/models", "GET, HEAD, OPTIONS"), (CHAT, "POST, OPTIONS"), ("*", "GET, HEAD, POST, OPTIONS")],
)
async def test_options_tells_what_is_allowed(rig: Rig, path: str, allowed: str) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("OPTIONS", path))
        reply = await client.reply()

        assert reply.status == 204
        assert reply.headers["allow"] == allowed
        assert "content-length" not in reply.headers
        assert await is_alive(client)


IDS = {"plain-1.2:3_4": True, "x" * 128: True, "x" * 129: False, "a b": False, "<script>": False, "é": False, "": False}


@pytest.mark.parametrize("given", IDS)
async def test_a_request_id_is_kept_when_it_is_harmless_and_else_replaced(rig: Rig, given: str) -> None:
    async with asyncio.timeout(20), Client(rig.url) as client:
        client.send(request("GET", "/livez", headers={"x-request-id": given}))
        reply = await client.reply()

        assert (reply.headers["x-request-id"] == given) is IDS[given]
        assert reply.headers["x-request-id"].isascii()
