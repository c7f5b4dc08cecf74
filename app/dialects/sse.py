"""Server-sent events as bytes: where one ends, and what its data is (WHATWG HTML, "server-sent events")."""

from __future__ import annotations

import re
from typing import Final

CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"
# Two line ends in a row, each CRLF, LF or CR. A CR at the very end may be half a CRLF, so it is not an end yet.
_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}|\r\r\Z")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Framer:
    """Cuts a stream of bytes into whole events, wherever the network cut it.

    `begun`: the pieces of an event that is not whole yet; empty between two events.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self.begun: list[bytes] = []  # joined only once it is whole
        self._size = 0
        self._tail = b""

    def feed(self, chunk: bytes) -> bytes:
        """All events that are whole now, unchanged and in one piece; ValueError when one is larger than the limit."""
        if not self.begun and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            return chunk
        seen = self._tail + chunk
        boundary = _last_boundary(seen)
        end = boundary - len(self._tail)
        if boundary == 0 or end < 0:
            self._keep(chunk)
            return b""
        whole = b"".join((*self.begun, chunk[:end]))
        self.begun, self._size, self._tail = [], 0, b""
        if end < len(chunk):
            self._keep(chunk[end:])
        return whole

    def rest(self) -> bytes:
        """The bytes of an event that has begun and is not whole yet."""
        return b"".join(self.begun)

    def _keep(self, chunk: bytes) -> None:
        self.begun.append(chunk)
        self._size += len(chunk)
        self._tail = (self._tail + chunk)[-3:]
        if self._size > self._max:
            raise ValueError(f"an event of more than {self._max} bytes")


def _last_boundary(data: bytes) -> int:
    """Just behind the last end of an event; 0 when there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    last = 0
    for match in _BOUNDARY.finditer(data):
        last = match.end()
    return last


def split(whole: bytes) -> list[bytes]:
    """Whole events, one by one, each with its end."""
    if b"\r" not in whole:
        return [event + b"\n\n" for event in whole.split(b"\n\n") if event]
    events, start = [], 0
    for match in _BOUNDARY.finditer(whole):
        events.append(whole[start : match.end()])
        start = match.end()
    return [event for event in [*events, whole[start:]] if event.strip()]


def data(event: bytes) -> bytes | None:
    """The event's data, lines joined by a line feed; None when it has none (a comment, a bare `event:` line)."""
    lines = data_lines(event)
    return b"\n".join(lines) if lines else None


def data_lines(event: bytes) -> list[bytes]:
    """The lines of the event's data."""
    if _is_plain(event):
        return [event[6:-2]]
    return [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]


def name(event: bytes) -> bytes:
    """The event's name, from its `event:` line; empty where there is none."""
    if b"event:" not in event:
        return b""
    names = [line[6:].strip() for line in _LINE_END.split(event) if line.startswith(b"event:")]
    return names[-1] if names else b""


def plain(event: bytes) -> bytes:
    """The event with LF as line ends and its data, which is JSON or a mark, on one line behind `data: `."""
    if _is_plain(event):
        return event
    lines = [line for line in _LINE_END.split(event) if line]
    others = [line for line in lines if not line.startswith(b"data:")]
    if len(others) < len(lines):
        others.append(b"data: " + b" ".join(data_lines(event)))
    return b"\n".join(others) + b"\n\n"


def _is_plain(event: bytes) -> bool:
    """One line of data and nothing else."""
    return event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event
