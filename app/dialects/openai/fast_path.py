"""Events of a stream that differ from one that was understood in their text only. Pure.

Engines write thousands of them for an answer. Decoding each would cost more than passing it on, so what is known of one
is compared as bytes: everything before and behind its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import msgspec

from app.dialects import sse
from app.dialects.delta import token_logprobs
from backends.http.delta import Delta

_INNER = rb'(?:[^"\\\x00-\x1f]++|\\.)*+'
_TEXTS = re.compile(rb'"(?:content|text|reasoning|reasoning_content|arguments)": ?"(' + _INNER + rb')"')
_INSIDE = re.compile(_INNER)
_inside = _INSIDE.fullmatch
# Of chunks of how many sizes it is kept how they begin: most tokens are of ten lengths.
MAX_SIZES = 32
# Stands for the text while it is found out what becomes of an event.
_PLACE = b"(modelport:the-text)"


class _Choice(msgspec.Struct, frozen=True):
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_chunks = msgspec.json.Decoder(_Chunk)
_raws = msgspec.json.Decoder(msgspec.Raw)
_strings = msgspec.json.Decoder(str)


class Template(Protocol):
    """What is known of an event, but for its text."""

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """How many events these bytes are, and what the client gets for them; None when one is of another kind."""
        ...

    def fill_chunk(self, framed: bytes) -> bytes | None:
        """The chunk that the client gets for one chunk of HTTP with one event in it; None for anything else."""
        ...

    def fill_chunks(self, framed: bytes) -> tuple[int, bytes] | None:
        """How many events there are in these chunks, each of which carries one, and the chunks that the client gets for
        them; None for anything else.
        """
        ...


class EventTemplate:
    """One event without its text, and what the client gets for it."""

    def __init__(self, given: list[bytes], made: list[bytes] | None) -> None:
        self._begin, *between, self._end = given
        self._between = between
        self._made = made  # None: the very same
        self._joint = self._end + self._begin
        self._begin_size = len(self._begin)
        self._size = self._begin_size + len(self._end)
        self._chunk_begins: dict[int, bytes] = {}  # by the chunk's size, framing included
        self._chunk_end = self._end + b"\r\n"
        self._chunk_end_size = len(self._chunk_end)

    def fill_chunk(self, framed: bytes) -> bytes | None:
        """As of Template."""
        size = len(framed)
        begin = self._chunk_begins.get(size) or self._chunk_begin(framed, size)
        if not (framed.startswith(begin) and framed.endswith(self._chunk_end)):
            return None
        at, until = len(begin), size - self._chunk_end_size
        if self._between:
            return _as_chunk(self, framed, at - self._begin_size)
        if _inside(framed, at, until) is None:
            return None
        made = self._made
        return framed if made is None else chunk(framed[at:until].join(made))

    def _chunk_begin(self, framed: bytes, size: int) -> bytes:
        """How one chunk with one event begins, if it is of this size with its framing: kept where these bytes do."""
        # Of a size that no chunk has, the beginning is not that of one either.
        carried = size - (6 if size < 262 else 7 if size < 4103 else 8)
        begin = (b"%X\r\n%b" if framed[:3].isupper() else b"%x\r\n%b") % (carried, self._begin)
        if len(self._chunk_begins) < MAX_SIZES and framed.startswith(begin):
            self._chunk_begins[size] = begin
        return begin

    def fill_chunks(self, framed: bytes) -> tuple[int, bytes] | None:
        """As of Template."""
        if self._between or not framed.endswith(self._chunk_end):
            return None
        # No text holds what an event begins with: there are quotes in it that a text would write otherwise.
        head, *pieces = framed.split(self._begin)
        texts = []
        for piece in pieces:
            text, end, next_head = piece.partition(self._chunk_end)
            size = len(text) + self._size
            if head not in (b"%x\r\n" % size, b"%X\r\n" % size) or not end or _inside(text) is None:
                return None
            texts.append(text)
            head = next_head
        if head or not texts:
            return None
        made = self._made
        return len(texts), framed if made is None else chunk(b"".join([text.join(made) for text in texts]))

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """As of Template."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end) and len(whole) >= self._size):
            return None
        inner = whole[len(self._begin) : len(whole) - len(self._end)]
        if not self._between and _INSIDE.fullmatch(inner):
            return 1, whole if self._made is None else inner.join(self._made)
        texts = self._texts(inner)
        if texts is None:
            return None
        made = self._made
        return len(texts), whole if made is None else b"".join([text.join(made) for text in texts])

    def _texts(self, inner: bytes) -> list[bytes] | None:
        """The text of each event, of which the first's beginning and the last's end are cut off."""
        texts = []
        for piece in inner.split(self._joint):
            text = self._text(piece)
            if text is None:
                return None
            texts.append(text)
        return texts

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

    def fill_chunk(self, framed: bytes) -> bytes | None:
        """As of Template."""
        head, end, _ = framed[:8].partition(b"\r\n")
        at = len(head) + 2
        size = len(framed) - at - 2
        is_one = end and head in (b"%x" % size, b"%X" % size) and framed.endswith(b"\r\n")
        return _as_chunk(self, framed, at) if is_one else None

    def fill_chunks(self, framed: bytes) -> tuple[int, bytes] | None:
        """As of Template: one by one, they are unpacked as well."""
        return None

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """As of Template, one event at a time."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end)):
            return None
        text = _INSIDE.match(whole, len(self._begin))
        at = text.end() if text else 0
        if not whole.startswith(self._between, at):
            return None
        raw = whole[at + len(self._between) : -len(self._end)]
        try:
            _raws.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return None
        if b"\n" in raw or _lacks_a_number(raw):
            return None
        if self._made is None:
            return 1, whole
        before, between, after = self._made
        return 1, b"".join((before, whole[len(self._begin) : at], between, raw, after))


class DeltaTemplate(EventTemplate):
    """One event without its text, for a client of another dialect than OpenAI's.

    `made`: the delta of a text; `encode`: what the client gets for a delta.
    """

    def __init__(self, given: list[bytes], made: Callable[[str], Delta], encode: Callable[[Delta], bytes]) -> None:
        super().__init__(given, None)
        self._delta = made
        self._encode = encode

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """As of Template."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end) and len(whole) >= self._size):
            return None
        inner = whole[len(self._begin) : len(whole) - len(self._end)]
        is_one = not self._between and _INSIDE.fullmatch(inner)
        texts = [inner] if is_one else self._texts(inner)
        if texts is None:
            return None
        try:
            deltas = [self._delta(_strings.decode(b'"%b"' % text)) for text in texts]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # an escape that JSON does not have
        return len(deltas), b"".join([self._encode(delta) for delta in deltas])


class LogprobsDeltaTemplate(LogprobsTemplate):
    """The same as DeltaTemplate of one event with a text and log probabilities, which are decoded."""

    def __init__(self, given: list[bytes], encode: Callable[[Delta], bytes]) -> None:
        super().__init__(given, None)
        self._encode = encode

    def fill(self, whole: bytes) -> tuple[int, bytes] | None:
        """As of Template, one event at a time."""
        if not (whole.startswith(self._begin) and whole.endswith(self._end)):
            return None
        match = _INSIDE.match(whole, len(self._begin))
        at = match.end() if match else 0
        raw = whole[at + len(self._between) : -len(self._end)]
        if not whole.startswith(self._between, at) or b"\n" in raw or _lacks_a_number(raw):
            return None
        try:
            text = _strings.decode(b'"%b"' % whole[len(self._begin) : at])
            logprobs = token_logprobs(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return 1, self._encode(Delta(text or None, logprobs=logprobs))


def chunk(data: bytes) -> bytes:
    """A chunk of HTTP that carries this, which is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _as_chunk(template: Template, framed: bytes, at: int) -> bytes | None:
    event = framed[at:-2]
    filled = template.fill(event)
    if filled is None or filled[0] != 1:
        return None
    return framed if filled[1] == event else chunk(filled[1])


def compile_template(event: bytes, made_of: Callable[[bytes], bytes]) -> Template | None:
    """The template of an event with text; None when it has none, or two that differ.

    `made_of`: what the client gets for an event like it.
    """
    given = _around_text(event)
    if given is None:
        return None
    probe = _PLACE.join(given)
    made = made_of(probe)
    pieces = made.split(_PLACE)
    if len(pieces) == 1:
        return None
    raw = _probabilities(event) if len(given) == 2 else b""
    if raw:
        if given[1].count(raw) != 1 or pieces[1].count(raw) != 1:
            return None
        given, pieces = [given[0], *given[1].split(raw)], [pieces[0], *pieces[1].split(raw)]
        return LogprobsTemplate(given, None if made == probe else pieces)
    return EventTemplate(given, None if made == probe else pieces)


def compile_delta_template(
    event: bytes, delta_of: Callable[[bytes], Delta], encode: Callable[[Delta], bytes]
) -> Template | None:
    """The same for a client of another dialect.

    `delta_of`: what an event like it says; `encode`: as of DeltaTemplate.
    """
    given = _around_text(event)
    if given is None:
        return None
    delta, place = delta_of(_PLACE.join(given)), _PLACE.decode()
    raw = _probabilities(event)
    if raw:
        is_text = len(given) == 2 and given[1].count(raw) == 1 and delta == Delta(place, logprobs=delta.logprobs)
        return LogprobsDeltaTemplate([given[0], *given[1].split(raw)], encode) if is_text else None
    made = _made(delta, place)
    return DeltaTemplate(given, made, encode) if made is not None else None


def _made(delta: Delta, place: str) -> Callable[[str], Delta] | None:
    """What makes a delta like this one of a text, which stands at its `place`; None where that is not all it says."""
    ways: list[Callable[[str], Delta]] = [Delta, lambda text: Delta(thinking=text)]
    if len(delta.calls) == 1 and not delta.calls[0].is_new:
        call = delta.calls[0]
        ways.append(lambda text: Delta(calls=(msgspec.structs.replace(call, arguments=text),)))
    return next((way for way in ways if way(place) == delta), None)


def _around_text(event: bytes) -> list[bytes] | None:
    """What stands before, between and behind the places of an event's text; None for no text, or two that differ."""
    texts = [match for match in _TEXTS.finditer(event) if match.group(1)]
    if not texts or len({match.group(1) for match in texts}) > 1 or _PLACE in event:
        return None
    given, at = [], 0
    for match in texts:
        given.append(event[at : match.start(1)])
        at = match.end(1)
    return [*given, event[at:]]


def _lacks_a_number(raw: bytes) -> bool:
    """Whether `null` may stand for a log probability: the engine computed no number then."""
    if b"null" not in raw or raw == b"null":
        return False
    return b"null" in raw.replace(b'"refusal":null', b"").replace(b'"refusal": null', b"")


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
