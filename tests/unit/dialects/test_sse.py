"""Events are cut out of a stream whole, wherever the network cut it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.sse import Framer, data, split

LIMIT = 1 << 20
ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
PLAIN = 'data: {"a":1}\n\n: a comment\n\nevent: x\nid: 7\ndata: zwölf 十二\ndata: 🙂\n\ndata:no space\n\n'.encode()
STREAMS = {name: PLAIN.replace(b"\n", end) for name, end in ENDS.items()}
MIXED = {
    "lf then crlf": b"data: 1\n\r\ndata: 2\r\n\ndata: 3\r\n\r\n",
    "lf then cr": b"data: 1\n\rdata: 2\n\rdata: 3\n\n",
    "cr then crlf": b"data: 1\r\r\ndata: 2\r\n\rdata: 3\n\n",
    "cr then lf lines": b"data: 1\r\rdata: 2\n\ndata: 3\r\n\r\n",
}


def framed(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What came out whole, and what is left."""
    framer = Framer(LIMIT)
    return b"".join(framer.feed(piece) for piece in pieces), framer.rest()


def lines(stream: bytes) -> list[bytes | None]:
    return [data(event) for event in split(stream)]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_nothing_is_lost_and_only_whole_events_come_out_wherever_it_is_cut(stream: bytes) -> None:
    for cut in range(len(stream) + 1):
        whole, rest = framed([stream[:cut], stream[cut:]])

        assert whole == stream
        assert rest == b""


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_cut_stream_gives_exactly_the_events_that_are_complete(stream: bytes) -> None:
    end = ENDS[next(name for name, each in STREAMS.items() if each is stream)]
    for cut in range(len(stream) + 1):
        whole, rest = framed([stream[:cut]])

        complete = stream[:cut].rfind(end * 2)
        expected = stream[: complete + 2 * len(end)] if complete >= 0 else b""
        assert whole + rest == stream[:cut]
        assert whole == expected


@pytest.mark.parametrize("stream", [*STREAMS.values(), *MIXED.values()], ids=[*STREAMS, *MIXED])
def test_byte_by_byte_gives_the_same_events_as_in_one_piece(stream: bytes) -> None:
    whole, rest = framed([bytes([byte]) for byte in stream])

    assert whole + rest == stream
    assert lines(whole) == lines(stream)


@pytest.mark.parametrize("stream", MIXED.values(), ids=MIXED)
def test_each_event_of_mixed_line_ends_comes_out_as_soon_as_it_is_whole(stream: bytes) -> None:
    for cut in range(1, len(stream)):
        framer = Framer(LIMIT)
        first, second = framer.feed(stream[:cut]), framer.feed(stream[cut:])

        assert first + second + framer.rest() == stream
        assert lines(first) + lines(second) == [b"1", b"2", b"3"]


def test_the_next_events_first_byte_ends_an_event_whose_last_line_end_could_have_been_half() -> None:
    """`\\r` at the end of a piece may become `\\r\\n`; once another byte has come, the event is whole and must go."""
    framer = Framer(LIMIT)

    held = framer.feed(b"data: 1\n\r")
    freed = framer.feed(b"d")

    assert (held, freed, framer.rest()) == (b"", b"data: 1\n\r", b"d")


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b":", b"y", "ü".encode()]), max_size=30), st.data())
def test_any_bytes_in_any_pieces_come_out_in_order_and_frame_alike(parts: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(parts) + b"\n\n"
    pieces, left = [], stream
    while left:
        size = draw.draw(st.integers(1, len(left)))
        pieces.append(left[:size])
        left = left[size:]

    whole, rest = framed(pieces)

    assert whole + rest == stream
    assert [d for d in lines(whole) if d is not None] == [d for d in lines(stream) if d is not None]


@pytest.mark.parametrize("size", [1, 10, 100])
def test_an_event_beyond_the_limit_is_refused_while_it_is_still_coming(size: int) -> None:
    framer = Framer(100)

    assert [framer.feed(b"x" * size) for _ in range(100 // size)] == [b""] * (100 // size)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        framer.feed(b"x" * size)


def test_many_small_events_are_no_large_one() -> None:
    framer = Framer(100)

    whole = b"".join(framer.feed(b"data: 12345\n" + b"\n") for _ in range(1000))

    assert whole.count(b"12345") == 1000


EVENTS = {
    b"data: x\n\n": b"x",
    b"data:x\n\n": b"x",
    b"data:  x\n\n": b" x",
    b"data: a\ndata: b\n\n": b"a\nb",
    b"event: e\nid: 1\nretry: 3\r\ndata: x\r\n\r\n": b"x",
    b"data:\n\n": b"",
    b": data: x\n\n": None,
    b"event: e\n\n": None,
    b"database: x\n\n": None,
    b"": None,
}


@pytest.mark.parametrize(("event", "expected"), EVENTS.items())
def test_the_data_of_an_event_is_what_the_specification_says(event: bytes, expected: bytes | None) -> None:
    assert data(event) == expected


@pytest.mark.parametrize("stream", [*STREAMS.values(), *MIXED.values()], ids=[*STREAMS, *MIXED])
def test_split_gives_every_event_once_with_its_end(stream: bytes) -> None:
    events = split(stream)

    assert re.sub(rb"[\r\n]", b"", b"".join(events)) == re.sub(rb"[\r\n]", b"", stream)
    assert all(event.endswith((b"\n", b"\r")) for event in events)
