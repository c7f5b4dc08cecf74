"""The members of a JSON object as bytes: read and changed without decoding their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.errors import bad_request

MAX_OPTIONS_BYTES = 4096

# The members of a JSON object by name, each value as its bytes; of a name that stands twice, the last one.
# msgspec.DecodeError, UnicodeDecodeError or RecursionError for what is not a JSON object.
decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def edit(body: bytes, fields: Mapping[str, bytes | None]) -> bytes:
    """The object with these members set to these JSON values, or without them (None); every other member's bytes and
    their order stay.
    """
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


def stream_options(body: bytes) -> bytes:
    """The body's `stream_options` as JSON, with `include_usage` on: how an engine is asked for the usage of a stream.

    Problem (400) when they are larger than MAX_OPTIONS_BYTES.
    """
    options = decode(body).get("stream_options")
    if options is not None and len(memoryview(options)) > MAX_OPTIONS_BYTES:
        raise bad_request("'stream_options' is too large.", param="stream_options", code="invalid_type")
    inner = bytes(options).strip() if options is not None else b"null"
    return b'{"include_usage":true}' if inner == b"null" else edit(inner, {"include_usage": b"true"})
