"""What is kept of one model request: who asked, what answered, and what it took. Never what was said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

# What no store takes, as NaN, is damage: it must not hold up all others.
_Finite: TypeAlias = Annotated[float, msgspec.Meta(gt=-1e18, lt=1e18)]


class UsageRecord(msgspec.Struct, frozen=True, array_like=True):
    """One model request that has ended.

    `at`: when, in Unix seconds. `key`: the id of the client's key, with its name and team at that time; empty where no
    key is configured. `model`: its public name; of one behind a wildcard that no engine answered for, the wildcard.
    `backend`: who was asked last, empty where nobody was. `serving`: the digest of what the answer was made from.
    `route`: the path that was asked. `is_estimated`: the engine reported no usage, or its client left before it did:
    the events of its stream stand for the output tokens, and the request's size for those of its prompt.
    `cached_tokens` and `reasoning_tokens` are among the input and the output tokens. `money`: by the model's price at
    that time. `seconds`: from the last byte of the request's head to the answer's end; `load_s` and `queue_s` are the
    waits in it. `outcome`: `ok`, `client_left`, or the code of the error; `status`: 499 where the client left.
    `request_id`: the client may have chosen it.
    """

    at: Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
    key: str
    key_name: str
    team: str | None
    model: str
    backend: str
    serving: str | None
    operation: str
    route: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    is_estimated: bool
    money: _Finite
    seconds: _Finite
    first_token_s: _Finite | None
    load_s: _Finite
    queue_s: _Finite
    attempts: int
    outcome: str
    status: int
    request_id: str
    # What is added goes behind this, with a default, so that records of an earlier version can be read; and the last
    # byte of an encoded record is never 0 (segments.py).
    is_stream: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UsageRecord)


# A record, given as its members in their order: to make it an object first costs more than to encode it.
encoded: Final[Callable[[tuple[Any, ...]], bytes]] = _encoder.encode


def encoded_record(record: UsageRecord) -> bytes:
    """The same of a record."""
    return _encoder.encode(record)


def decoded(data: bytes) -> UsageRecord:
    """The record; ValueError for bytes that are none."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as exc:
        raise ValueError(f"it is no usage record: {exc}") from exc
