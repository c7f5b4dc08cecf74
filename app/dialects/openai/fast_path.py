"""Events of a stream that differ from one that was understood in their text only. Pure.

Engines write thousands of them for an answer. Decoding each would cost more than passing it on, so what is known of one
is compared as bytes: everything before and behind its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from app.dialects import sse

_INNER = rb'(?:[^"\\\x00-\x1f]++|\\.)*+'
_TEXTS = re.compile(rb'"(?:content|text|reasoning|reasoning_content|arguments)": ?"(' + _INNER + rb')"')
_INSIDE = re.compile(_INNER)
# Stands for the text while it is found out what becomes of an event.
_PLACE = b"(modelport:the-text)"


class _Choice(msgspec.Struct, frozen=True):
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_chunks = msgspec.json.Decoder(_Chunk)
_raws = msgspec.json.Decoder(msgspec.Raw)


class EventTemplate:
    """One event without its text, and what the client gets for it."""

    def __init__(self, given: list[bytes], made: list[bytes] | None) -> None:
        self._begin, *between, self._end = given
        self._between = between
        self._made = made  # None: the very same
        self._joint = self._end + self._begin
        self._size = len(self._begin) + len(self._end)

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """How many events these bytes are, and what the client gets for them; None when one is of another kind."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end) and len(whole) >= self._size):
            return None
        inner = whole[len(self._begin) : len(whole) - len(self._end)]
        if not self._between and _INSIDE.fullmatch(inner):
            return 1, whole if self._made is None else inner.join(self._made)
        texts = []
        for piece in inner.split(self._joint):
            text = self._text(piece)
            if text is None:
                return None
            texts.append(text)
        made = self._made
        return len(texts), whole if made is None else b"".join([text.join(made) for text in texts])

    def _text(self, piece: bytes) -> bytes | None:
        """The text of one event, which may say it more than once."""
        times = len(self._between) + 1
        size = (len(piece) - sum(map(len, self._between))) // times
        text = piece[: max(0, size)]
        is_it = piece == text.join([b"", *self._between, b""]) and _INSIDE.fullmatch(text) is not None
        return text if is_it else None


class LogprobsTemplate:
    """One event without its text and without the log probabilities behind it: these are JSON, whatever is in them."""

    def __init__(self, given: list[bytes], made: list[bytes] | None) -> None:
        self._begin, self._between, self._end = given
        self._made = made

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """As of Stencil, one event at a time."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end)):
            return None
        found = _INSIDE.match(whole, len(self._begin))
        at = found.end() if found else 0
        if not whole.startswith(self._between, at):
            return None
        raw = whole[at + len(self._between) : -len(self._end)]
        try:
            _raws.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return None
        if b"\n" in raw:
            return None
        if self._made is None:
            return 1, whole
        before, between, after = self._made
        return 1, b"".join((before, whole[len(self._begin) : at], between, raw, after))


def compile_template(event: bytes, made_of: Callable[[bytes], bytes]) -> EventTemplate | LogprobsTemplate | None:
    """The stencil of an event with text; None when it has none, or two that differ.

    `made_of`: what the client gets for an event like it.
    """
    found = [match for match in _TEXTS.finditer(event) if match.group(1)]
    if not found or len({match.group(1) for match in found}) > 1 or _PLACE in event:
        return None
    given, at = [], 0
    for match in found:
        given.append(event[at : match.start(1)])
        at = match.end(1)
    given.append(event[at:])
    probe = _PLACE.join(given)
    made = made_of(probe)
    pieces = made.split(_PLACE)
    if len(pieces) == 1:
        return None
    raw = _probabilities(event) if len(found) == 1 else b""
    if raw:
        if given[1].count(raw) != 1 or pieces[1].count(raw) != 1:
            return None
        given, pieces = [given[0], *given[1].split(raw)], [pieces[0], *pieces[1].split(raw)]
        return LogprobsTemplate(given, None if made == probe else pieces)
    return EventTemplate(given, None if made == probe else pieces)


def _probabilities(event: bytes) -> bytes:
    """The bytes of an event's log probabilities; empty where it has none."""
    if b'"logprobs"' not in event:
        return b""
    try:
        choices = _chunks.decode(sse.data(event) or b"").choices
    except (msgspec.DecodeError, RecursionError):
        return b""
    raw = bytes(choices[0].logprobs) if len(choices) == 1 else b""
    return raw if raw.startswith(b"{") else b""
