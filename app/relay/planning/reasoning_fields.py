"""The reasoning of earlier turns of a request, under both of its names: engines read one or the other. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from app.dialects import json_members
from app.dialects.reasoning import NAMES

MARK = b'"reasoning'  # both names begin so


class _Body(msgspec.Struct, frozen=True):
    messages: list[msgspec.Raw] = []


class _Message(msgspec.Struct, frozen=True):
    role: Any = None
    reasoning: Any = None
    reasoning_content: Any = None


_bodies = msgspec.json.Decoder(_Body)
_messages = msgspec.json.Decoder(_Message)


def with_both_names(body: bytes) -> bytes:
    """A chat's body in which each message of an assistant that has its reasoning under one name has it under the other
    too. Everything else keeps its bytes; a body whose messages cannot be read is left as it is.
    """
    if MARK not in body:
        return body
    try:
        messages: list[msgspec.Raw | bytes] = [*_bodies.decode(body).messages]
        is_changed = False
        for index, message in enumerate(messages):
            made = _with_both(bytes(message))
            if made is not None:
                messages[index], is_changed = made, True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    return (
        json_members.edit(body, {"messages": b"[" + b",".join(map(memoryview, messages)) + b"]"})
        if is_changed
        else body
    )


def _with_both(message: bytes) -> bytes | None:
    """The message with both names; None where nothing is missing."""
    if MARK not in message:
        return None
    turn = _messages.decode(message)
    first, second = turn.reasoning, turn.reasoning_content
    value = first or second
    if turn.role != "assistant" or not isinstance(value, str) or not value or (first and second):
        return None
    return json_members.edit(message, {NAMES[1] if first else NAMES[0]: msgspec.json.encode(value)})
