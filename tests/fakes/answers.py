"""Scenarios that begin before the first event: connections that end, invalid responses, statuses of every kind."""

from __future__ import annotations

import asyncio
import zlib

from tests.fakes import wire
from tests.fakes.peer import Peer
from tests.fakes.scenario import Act, End, Scenario, Stage

BOMB_BYTES = 256 * 1024 * 1024
STATUSES = {
    400: ("Bad Request", (400,)),
    401: ("Unauthorized", (502,)),
    403: ("Forbidden", (502,)),
    404: ("Not Found", (404,)),
    409: ("Conflict", (409, 400)),
    413: ("Content Too Large", (413, 400)),
    422: ("Unprocessable Content", (422, 400)),
    429: ("Too Many Requests", (429,)),
    500: ("Internal Server Error", (502,)),
    501: ("Not Implemented", (501, 502, 400)),
    502: ("Bad Gateway", (502,)),
    503: ("Service Unavailable", (503,)),
    504: ("Gateway Timeout", (502, 504)),
}
RETRY_AFTER_S = 7  # what 429 and 503 say
EVERY_DIALECT = (400, 401, 404, 429, 500, 503)  # the other statuses speak vLLM's only


async def ok(peer: Peer) -> None:
    """A complete and valid response, as vLLM sends it."""
    if not peer.ask.stream or peer.ask.route == "embeddings":
        await peer.send_json(wire.answer(peer.ask))
        return
    events = [wire.sse(piece) for piece in wire.pieces(peer.ask)]
    if peer.ask.include_usage:
        events.append(wire.sse(wire.usage_piece(peer.ask)))
    await peer.send_stream(*events, wire.DONE)
    await peer.send(wire.LAST_CHUNK)


async def accept_then_fin(peer: Peer) -> None:
    peer.fin()


async def rst_before_answer(peer: Peer) -> None:
    peer.reset()


async def never_answers(peer: Peer) -> None:
    await peer.forever()


async def slow_headers(peer: Peer) -> None:
    """A head in three pieces, one every `argument` seconds, then the body."""
    body = wire.dumps(wire.answer(peer.ask))
    head = wire.whole(200, body)
    for at in range(0, 48, 16):
        await asyncio.sleep(peer.argument or 0.1)
        await peer.send(head[at : at + 16])
    await peer.send(head[48:])


async def slow_first_event(peer: Peer) -> None:
    """The head at once, the body after `argument` seconds."""
    wait_s = peer.argument or 0.3
    if not peer.ask.stream:
        await asyncio.sleep(wait_s)
        await ok(peer)
        return
    await peer.send_stream()
    await asyncio.sleep(wait_s)
    for piece in wire.pieces(peer.ask):
        await peer.send_chunk(wire.sse(piece))
    await peer.send_chunk(wire.DONE)
    await peer.send(wire.LAST_CHUNK)


async def headers_then_nothing(peer: Peer) -> None:
    await (peer.send_stream() if peer.ask.stream else peer.send(wire.whole(200, b" " * 500)[:-500]))
    await peer.forever()


async def endless_body(peer: Peer) -> None:
    """A JSON array without end, as fast as it is read."""
    await peer.send(wire.head(200, "OK", "content-type: application/json", "transfer-encoding: chunked"))
    await peer.send_chunk(b"[0")
    while True:
        await peer.send_chunk(b",0" * 32768)


async def endless_headers(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await peer.send(b"x-pad: " + b"p" * 1000 + b"\r\n")


async def gzip_bomb(peer: Peer) -> None:
    """256 MiB of zeros in 256 KiB of gzip, made as they are sent."""
    kind = "text/event-stream" if peer.ask.stream else "application/json"
    coded = ("content-encoding: gzip", "transfer-encoding: chunked")
    await peer.send(wire.head(200, "OK", f"content-type: {kind}", *coded))
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(1024 * 1024)
    for _ in range(BOMB_BYTES // len(zeros)):
        if packed := packer.compress(zeros):
            await peer.send_chunk(packed)
    await peer.send_chunk(packer.flush())
    await peer.send(wire.LAST_CHUNK)


async def http_1_0(peer: Peer) -> None:
    """A response whose end is the end of the connection."""
    kind = "text/event-stream" if peer.ask.stream else "application/json"
    await peer.send(wire.head(200, "OK", f"content-type: {kind}", version="1.0"))
    if peer.ask.stream:
        for piece in wire.pieces(peer.ask):
            await peer.send(wire.sse(piece))
        await peer.send(wire.DONE)
    else:
        await peer.send(wire.dumps(wire.answer(peer.ask)))
    peer.fin()


async def short_body(peer: Peer) -> None:
    await peer.send(wire.whole(200, wire.dumps(wire.answer(peer.ask)))[:-20])
    peer.fin()


async def short_chunks(peer: Peer) -> None:
    """A chunked body whose last chunk never comes."""
    await peer.send(wire.head(200, "OK", "content-type: application/json", "transfer-encoding: chunked"))
    await peer.send_chunk(wire.dumps(wire.answer(peer.ask))[:-20])
    peer.fin()


async def reset_mid_body(peer: Peer) -> None:
    await peer.send(wire.whole(200, wire.dumps(wire.answer(peer.ask)))[:-20])
    peer.reset()


async def stall_mid_body(peer: Peer) -> None:
    await peer.send(wire.whole(200, wire.dumps(wire.answer(peer.ask)))[:-20])
    await peer.forever()


async def no_events(peer: Peer) -> None:
    """A stream that ends properly without any event."""
    await peer.send_stream()
    await peer.send(wire.LAST_CHUNK)


async def only_done(peer: Peer) -> None:
    await peer.send_stream(wire.DONE)
    await peer.send(wire.LAST_CHUNK)


async def error_event_first(peer: Peer) -> None:
    await peer.send_stream(wire.error_event(), wire.DONE)
    await peer.send(wire.LAST_CHUNK)


async def fin_after_headers(peer: Peer) -> None:
    await peer.send_stream()
    peer.fin()


async def reset_after_headers(peer: Peer) -> None:
    await peer.send_stream()
    peer.reset()


def after(prefix: bytes) -> Act:
    """A valid response after an interim one (1xx)."""

    async def act(peer: Peer) -> None:
        await peer.send(prefix)
        await ok(peer)

    return act


def sends(data: bytes, *, then_fin: bool = True) -> Act:
    """Sends these bytes and, where asked for, ends the connection."""

    async def act(peer: Peer) -> None:
        await peer.send(data)
        if then_fin:
            peer.fin()

    return act


def redirect(status: int) -> Act:
    async def act(peer: Peer) -> None:
        host = peer.record.header("host") if peer.record else ""
        await peer.send(wire.whole(status, b"", "text/plain", f"location: http://{host}/redirected", reason="Found"))

    return act


# What vLLM's server says when its core process is dead.
CORE_DIED = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    b'"type":"InternalServerError","param":null,"code":500}}'
)


def status_answer(status: int, dialect: str) -> Act:
    body, kind = wire.error_body(dialect, status)
    extra = (f"retry-after: {RETRY_AFTER_S}",) if status in (429, 503) else ()
    return sends(wire.whole(status, body, kind, *extra, reason=STATUSES[status][0]), then_fin=False)


def _fault(act: Act, *owes: int, only_stream: bool | None = None, waits: bool = False) -> Scenario:
    return Scenario(act, Stage.BEFORE, owes or (502,), End.ERROR, "", only_stream, waits)


def _fine(act: Act, only_stream: bool | None = None) -> Scenario:
    return Scenario(act, Stage.FINE, only_stream=only_stream)


_HTML = b"<html><body><h1>It works!</h1></body></html>"
_JSON = "application/json"

ANSWERS: dict[str, Scenario] = {
    "ok": _fine(ok),
    "slow_headers": _fine(slow_headers, only_stream=False),
    "slow_first_event": _fine(slow_first_event),
    "http_1_0": _fine(http_1_0),
    "continue_first": _fine(after(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "early_hints_first": _fine(after(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")),
    # The engine acts on these two before it reads; what is here is for a request that it has read already.
    "refuse": _fault(accept_then_fin, 502, 503),
    "fin_unread": _fault(rst_before_answer, 502, 503),
    "accept_then_fin": _fault(accept_then_fin),
    "rst_before_answer": _fault(rst_before_answer),
    "core_died": _fault(sends(wire.whole(500, CORE_DIED, "application/json", reason="Error"), then_fin=False)),
    "never_answers": _fault(never_answers, 504, waits=True),
    "headers_then_nothing": _fault(headers_then_nothing, 504, waits=True),
    "garbage": _fault(sends(b"\x16\x03\x01\x02\x00 SSH-2.0 nothing like an answer\r\n\r\n")),
    "bad_header_line": _fault(sends(b"HTTP/1.1 200 OK\r\nthis line is no header\r\ncontent-length: 2\r\n\r\n{}")),
    "no_status": _fault(sends(b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}")),
    "bad_length": _fault(sends(b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n{}")),
    "half_head": _fault(sends(b"HTTP/1.1 200 OK\r\ncontent-type: appl")),
    "empty_200": _fault(sends(wire.whole(200, b""), then_fin=False)),
    "invalid_json": _fault(sends(wire.whole(200, b'{"choices": [,]}'), then_fin=False)),
    "half_json": _fault(sends(wire.whole(200, b'{"choices": [{"message": {"con'), then_fin=False)),
    "json_not_object": _fault(sends(wire.whole(200, b'"hello"'), then_fin=False)),
    "html_200": _fault(sends(wire.whole(200, _HTML, "text/html"), then_fin=False)),
    "html_502": _fault(sends(wire.whole(502, _HTML, "text/html", reason="Bad Gateway"), then_fin=False)),
    "short_body": _fault(short_body, only_stream=False),
    "short_chunks": _fault(short_chunks, only_stream=False),
    "reset_mid_body": _fault(reset_mid_body, only_stream=False),
    "stall_mid_body": _fault(stall_mid_body, 504, 502, only_stream=False, waits=True),
    "no_events": _fault(no_events, only_stream=True),
    "only_done": _fault(only_done, only_stream=True),
    "error_event_first": _fault(error_event_first, only_stream=True),
    "fin_after_headers": _fault(fin_after_headers, only_stream=True),
    "reset_after_headers": _fault(reset_after_headers, only_stream=True),
    "redirect_302": _fault(redirect(302)),
    "redirect_307": _fault(redirect(307)),
    "gzip_bomb": _fault(gzip_bomb),
    "endless_body": _fault(endless_body, waits=True),
    "endless_headers": _fault(endless_headers, waits=True),
} | {
    f"status_{status}_{dialect}": _fault(status_answer(status, dialect), *owes)
    for status, (_, owes) in STATUSES.items()
    for dialect in (wire.DIALECTS if status in EVERY_DIALECT else ("vllm",))
}
