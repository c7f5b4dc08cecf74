"""OTLP's `ExportTraceServiceRequest` as protobuf, written by hand: a tenth of what OpenTelemetry's encoder takes
(docs/decisions.md). Pure; the field numbers are those of opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from app.relay.tracing.spans import Span, SpanEvent, Value

_FIXED64: Final = struct.Struct("<Q").pack
_FIXED32: Final = struct.Struct("<I").pack
_DOUBLE: Final = struct.Struct("<d").pack
_STATUS_ERROR: Final = b"\x18\x02"
# Span.flags: the second byte says that it is known whether the parent is of another process.
_KNOWS_REMOTE, _IS_REMOTE = 0x100, 0x200
# Longer texts (identifiers) and larger numbers do not come again: they are not worth to be remembered.
_LONGEST_REPEATED: Final = 31
_MOST_REPEATED: Final = 1023


def encoded(spans: Iterable[Span]) -> bytes:
    """These spans, as a piece of a request."""
    return b"".join([_field(2, _span(span)) for span in spans])


def request(resource: Mapping[str, Value], scope: str, version: str, pieces: Iterable[bytes]) -> bytes:
    """The whole request: the spans of one resource, made by one scope (a part of a program) of this version."""
    of_scope = _field(1, _field(1, scope.encode()) + _field(2, version.encode()))
    scoped = b"".join([of_scope, *pieces])
    return _field(1, _field(1, _attributes(1, resource)) + _field(2, scoped))


def _span(span: Span) -> bytes:
    flags = span.flags | _KNOWS_REMOTE | (_IS_REMOTE if span.kind == 2 and span.parent_id else 0)
    parts = [
        b"\x0a\x10",
        bytes.fromhex(span.trace_id),
        b"\x12\x08",
        bytes.fromhex(span.span_id),
        _field(3, span.trace_state.encode()) if span.trace_state else b"",
        b"\x22\x08" + bytes.fromhex(span.parent_id) if span.parent_id else b"",
        _named(5, span.name),
        b"\x30",
        bytes((span.kind,)),
        b"\x39",
        _FIXED64(span.start_ns),
        b"\x41",
        _FIXED64(span.end_ns),
        _attributes(9, span.attributes),
        *[_field(11, _event(event)) for event in span.events],
        _field(15, _field(2, span.error.encode()) + _STATUS_ERROR) if span.error else b"",
        b"\x85\x01" + _FIXED32(flags),
    ]
    return b"".join(parts)


def _event(event: SpanEvent) -> bytes:
    return b"\x09" + _FIXED64(event.at_ns) + _named(2, event.name) + _attributes(3, event.attributes)


def _attributes(number: int, attributes: Mapping[str, Value]) -> bytes:
    return b"".join(
        [
            # The type belongs to what is looked up: True == 1 == 1.0.
            _pair(number, name, value)
            if (type(value) is str and len(value) > _LONGEST_REPEATED)
            or (type(value) is int and value > _MOST_REPEATED)
            else _repeated(number, name, type(value).__name__, value)
            for name, value in attributes.items()
        ]
    )


@lru_cache(maxsize=4096)
def _repeated(number: int, name: str, kind: str, value: Value) -> bytes:
    """An attribute whose value probably comes again: names of models, of backends, small numbers."""
    return _pair(number, name, value)


@lru_cache(maxsize=256)
def _named(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _pair(number: int, name: str, value: Value) -> bytes:
    return _field(number, _field(1, name.encode()) + _field(2, _any(value)))


def _any(value: Value) -> bytes:
    match value:
        case str():
            return _field(1, value.encode("utf-8", "replace"))
        case bool():
            return b"\x10" + bytes((value,))
        case int():
            return b"\x18" + _varint(value & 0xFFFFFFFFFFFFFFFF)
        case float():
            return b"\x21" + _DOUBLE(value)
        case _:
            return _field(5, b"".join([_field(1, _any(each)) for each in value]))


def _field(number: int, payload: bytes) -> bytes:
    """A field of length-delimited bytes."""
    size = len(payload)
    return (
        bytes((number << 3 | 2, size)) + payload if size < 0x80 else bytes((number << 3 | 2,)) + _varint(size) + payload
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
