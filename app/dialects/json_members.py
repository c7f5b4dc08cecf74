"""The members of a JSON object as bytes: read and changed without decoding their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.errors import bad_request

MAX_OPTIONS_BYTES = 4096
_USAGE = b'{"include_usage":true}'

# The members of a JSON object by name, each value as its bytes; of a name that stands twice, the last one.
# msgspec.DecodeError, UnicodeDecodeError or RecursionError for what is not a JSON object.
decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def edit(body: bytes, fields: Mapping[str, bytes | None]) -> bytes:
    """The object with these members set to these JSON values, or without them (None); every other member's bytes and
    their order stay.
    """
    if not fields:
        return body
    members = decode(body)
    for name, value in fields.items():
        if value is None:
            members.pop(name, None)
        else:
            members[name] = msgspec.Raw(value)
    # Views, not copies: a large member is copied once, by the join.
    pairs = [(msgspec.json.encode(name), b":", memoryview(value), b",") for name, value in members.items()]
    pieces = [piece for pair in pairs for piece in pair]
    return b"".join((b"{", *pieces[:-1], b"}"))


def with_usage(stream_options: msgspec.Raw | None) -> bytes:
    """A body's `stream_options` with `include_usage` on: how an engine is asked for the usage of a stream.
    None: the body has none.

    Problem (400) when they are larger than MAX_OPTIONS_BYTES.
    """
    if stream_options is None:
        return _USAGE
    if len(memoryview(stream_options)) > MAX_OPTIONS_BYTES:
        raise bad_request("'stream_options' is too large.", param="stream_options", code="invalid_type")
    inner = bytes(stream_options).strip()
    return _USAGE if inner == b"null" else edit(inner, {"include_usage": b"true"})
