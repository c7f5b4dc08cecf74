"""Scenarios that begin inside a stream: how it breaks, and all the ways to write a valid one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count

from tests.fakes import wire
from tests.fakes.peer import Peer
from tests.fakes.scenario import Act, End, Scenario, Stage

LONG_TEXT = "x" * (4 * 1024 * 1024)
MANY_WORDS = tuple(f"w{at} " for at in range(200))
DRIP_S = 0.03
FIRST = 3  # words that arrive whole before a stream breaks
FIRST_TEXT = "".join(wire.WORDS[:FIRST])

Writing = Callable[[Peer], Sequence[bytes]]


def _events(peer: Peer) -> list[bytes]:
    """vLLM's events of a whole stream, with usage when asked for, without the end mark."""
    extra = [wire.sse(wire.usage_piece(peer.ask))] if peer.ask.include_usage else []
    return [wire.sse(piece) for piece in wire.pieces(peer.ask)] + extra


def _first_events(peer: Peer) -> list[bytes]:
    return [wire.sse(piece) for piece in wire.pieces(peer.ask, wire.WORDS)][: FIRST + (peer.ask.route == "chat")]


def stream(writing: Writing) -> Act:
    """Each of these as one chunk and one write, then a proper end."""

    async def act(peer: Peer) -> None:
        await peer.send_stream(*writing(peer))
        await peer.send(wire.LAST_CHUNK)

    return act


def breaking(*rest: bytes, then: Callable[[Peer], None] | None) -> Act:
    """The first events, these bytes as they are, then `act`; None: silence until the other side leaves."""

    async def act(peer: Peer) -> None:
        await peer.send_stream(*_first_events(peer))
        for data in rest:
            await peer.send(data)
        if then is None:
            await peer.forever()
        else:
            then(peer)

    return act


def _stay(peer: Peer) -> None:
    """Keep the connection."""


async def reset_mid_stream(peer: Peer) -> None:
    await peer.send_stream(*_first_events(peer))
    await asyncio.sleep(0.05)  # RST may take away what the other side has not read yet
    peer.reset()


async def half_event(peer: Peer) -> None:
    await peer.send_stream(*_first_events(peer))
    await peer.send_chunk(wire.sse(wire.piece(peer.ask, "never seen"))[:-30])
    peer.fin()


async def half_event_in_order(peer: Peer) -> None:
    """Half an event, and then the last chunk as if all were well."""
    await peer.send_stream(*_first_events(peer), wire.sse(wire.piece(peer.ask, "never seen"))[:-30])
    await peer.send(wire.LAST_CHUNK)


async def finish_then_fin(peer: Peer) -> None:
    await peer.send_stream(*_events(peer))
    peer.fin()


async def one_write(peer: Peer) -> None:
    """Head, 200 events, end mark and last chunk in one write."""
    events = [wire.sse(piece) for piece in wire.pieces(peer.ask, MANY_WORDS)]
    await peer.send(wire.SSE_HEAD + b"".join(map(wire.chunk, [*events, wire.DONE])) + wire.LAST_CHUNK)


async def one_chunk(peer: Peer) -> None:
    """200 events and the end mark in one HTTP chunk."""
    events = [wire.sse(piece) for piece in wire.pieces(peer.ask, MANY_WORDS)]
    await peer.send_stream(b"".join([*events, wire.DONE]))
    await peer.send(wire.LAST_CHUNK)


async def byte_by_byte(peer: Peer) -> None:
    """Each byte, also of the head and of the chunk framing, is a write of its own."""
    events = [wire.chunk(event) for event in [*_events(peer), wire.DONE]]
    for byte in wire.SSE_HEAD + b"".join(events) + wire.LAST_CHUNK:
        await peer.send(bytes([byte]))


async def byte_chunks(peer: Peer) -> None:
    """Each byte of the events is an HTTP chunk of its own, so characters of UTF-8 are cut everywhere."""
    await peer.send_stream()
    for byte in b"".join([*_events(peer), wire.DONE]):
        await peer.send_chunk(bytes([byte]))
    await peer.send(wire.LAST_CHUNK)


async def drip(peer: Peer) -> None:
    """One event every 30 ms, or every `argument` seconds."""
    await peer.send_stream()
    for event in [*_events(peer), wire.DONE]:
        await peer.send_chunk(event)
        await asyncio.sleep(peer.argument or DRIP_S)
    await peer.send(wire.LAST_CHUNK)


async def endless_stream(peer: Peer) -> None:
    """Events as fast as they are read; the record's `sent` says how many bytes that was."""
    await peer.send_stream(*_first_events(peer))
    block = b"".join(wire.chunk(wire.sse(wire.piece(peer.ask, f"w{at} "))) for at in range(300))
    while True:
        await peer.send(block)


async def endless_drip(peer: Peer) -> None:
    """One event every 30 ms, or every `argument` seconds, for ever."""
    await peer.send_stream(*_first_events(peer))
    for at in count():
        await peer.send_chunk(wire.sse(wire.piece(peer.ask, f"w{at} ")))
        await asyncio.sleep(peer.argument or DRIP_S)


async def endless_line(peer: Peer) -> None:
    """An event that never ends."""
    await peer.send_stream(*_first_events(peer))
    await peer.send_chunk(b'data: {"choices": [{"delta": {"content": "')
    while True:
        await peer.send_chunk(b"y" * 65536)


def _joined(change: Callable[[bytes], bytes]) -> Act:
    """Every event and the end mark, each changed."""
    return stream(lambda peer: [change(event) for event in [*_events(peer), wire.DONE]])


def _multi_line(event: bytes) -> bytes:
    """The JSON over two `data:` lines; a line break between members is only white space."""
    return event.replace(b',"choices"', b'\ndata: ,"choices"', 1)


def _usage_everywhere(peer: Peer) -> list[bytes]:
    numbered = enumerate(wire.pieces(peer.ask))
    return [wire.sse(piece | {"usage": wire.usage(peer.ask, at)}) for at, piece in numbered] + [wire.DONE]


def _usage_unasked(peer: Peer) -> list[bytes]:
    pieces = [*wire.pieces(peer.ask), wire.usage_piece(peer.ask)]
    return [wire.sse(piece) for piece in pieces] + [wire.DONE]


def _usage_never(peer: Peer) -> list[bytes]:
    return [wire.sse(piece) for piece in wire.pieces(peer.ask)] + [wire.DONE]


def _llama_cpp(peer: Peer) -> list[bytes]:
    return [wire.sse(piece) for piece in wire.llama_cpp_pieces(peer.ask)] + [wire.DONE]


def _comments(peer: Peer) -> list[bytes]:
    events = [b": ping\n\n" + event + b":\n" for event in _events(peer)]
    return [b": hello\n\n", *events, b": bye\n\n", wire.DONE]


def _long_line(peer: Peer) -> list[bytes]:
    return [*_first_events(peer), wire.sse(wire.piece(peer.ask, LONG_TEXT, "stop")), wire.DONE]


def _junk(peer: Peer) -> list[bytes]:
    junk = wire.JUNK.encode()
    late = wire.sse(wire.piece(peer.ask, wire.JUNK))
    return [*_events(peer), wire.DONE + late, late, b"data: " + junk + b"\n\n" + junk]


def _invalid_event(peer: Peer) -> list[bytes]:
    return [*_first_events(peer), b"data: {not JSON\n\n", wire.DONE]


def _unfinished(peer: Peer) -> list[bytes]:
    """An end mark without any finish_reason before it."""
    return [*_first_events(peer), wire.DONE]


def _broken(act: Act, *, waits: bool = False, end: End = End.ERROR) -> Scenario:
    return Scenario(act, Stage.STREAM, (200,), end, FIRST_TEXT, only_stream=True, waits=waits)


def _fine(act: Act, text: str = wire.TEXT) -> Scenario:
    return Scenario(act, Stage.FINE, text=text, only_stream=True)


_error = wire.chunk(wire.error_event())
_named_error = wire.chunk(b"event: error\n" + wire.error_event())

STREAMS: dict[str, Scenario] = {
    "reset_mid_stream": _broken(reset_mid_stream),
    "fin_mid_stream": _broken(breaking(then=Peer.fin)),
    "end_mid_stream": _broken(breaking(wire.LAST_CHUNK, then=_stay)),
    "stall_mid_stream": _broken(breaking(then=None), waits=True),
    "bad_chunk": _broken(breaking(b"ZZ\r\nnot a chunk", then=Peer.fin)),
    "chunk_overrun": _broken(breaking(b"2\r\ndata too long for its chunk\r\n", then=Peer.fin)),
    "half_event": _broken(half_event),
    "half_event_in_order": _broken(half_event_in_order),
    "error_event": _broken(breaking(_error, wire.chunk(wire.DONE), wire.LAST_CHUNK, then=_stay)),
    "error_event_without_done": _broken(breaking(_error, wire.LAST_CHUNK, then=_stay)),
    "error_event_then_fin": _broken(breaking(_error, then=Peer.fin)),
    "error_event_named": _broken(breaking(_named_error, wire.LAST_CHUNK, then=_stay)),
    "invalid_event": _broken(stream(_invalid_event), end=End.ANY),
    "done_without_finish": _broken(stream(_unfinished), end=End.ANY),
    "endless_stream": _broken(endless_stream, waits=True, end=End.OPEN),
    "endless_drip": _broken(endless_drip, waits=True, end=End.OPEN),
    "endless_line": _broken(endless_line, waits=True),
    "finish_then_fin": _fine(finish_then_fin),
    "finish_without_done": _fine(stream(_events)),
    "junk_after_done": _fine(stream(_junk)),
    "comments": _fine(stream(_comments)),
    "crlf": _fine(_joined(lambda event: event.replace(b"\n", b"\r\n"))),
    "cr": Scenario(_joined(lambda event: event.replace(b"\n", b"\r")), Stage.FINE, (200, 502), End.ANY, "", True),
    "no_space": _fine(_joined(lambda event: event.replace(b"data: ", b"data:"))),
    "multi_line": _fine(_joined(_multi_line)),
    "event_fields": _fine(_joined(lambda event: b"event: message\nid: 7\nretry: 10\n" + event)),
    "empty_data": _fine(_joined(lambda event: b"data:\n\ndata: \n\n" + event)),
    "byte_by_byte": _fine(byte_by_byte),
    "byte_chunks": _fine(byte_chunks),
    "one_write": _fine(one_write, "".join(MANY_WORDS)),
    "one_chunk": _fine(one_chunk, "".join(MANY_WORDS)),
    "long_line": _fine(stream(_long_line), FIRST_TEXT + LONG_TEXT),
    "usage_everywhere": _fine(stream(_usage_everywhere)),
    "usage_unasked": _fine(stream(_usage_unasked)),
    "usage_never": _fine(stream(_usage_never)),
    "llama_cpp": _fine(stream(_llama_cpp)),
    "drip": _fine(drip),
}
