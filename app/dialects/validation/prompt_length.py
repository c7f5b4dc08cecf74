"""The least number of tokens that a request has, so that what cannot fit is refused before an engine works on it. Pure.

No token is longer than the longest of the vocabulary, and every message that a template writes out between marks of its
own takes at least one. What a template may leave out or shorten is not counted.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from backends.endpoint import ModelFacts
from backends.prompt_too_long import Length, TooLong

_WHOLE: Final = ("user", "assistant")
_STEP_BYTES: Final = 64 * 1024


class _Message(msgspec.Struct, frozen=True):
    role: Any = None
    content: Raw = Raw(b"null")


class _Body(msgspec.Struct, frozen=True):
    messages: Raw = Raw(b"null")
    prompt: Raw = Raw(b"null")
    input: Raw = Raw(b"null")


class _Part(msgspec.Struct, frozen=True):
    text: Raw = Raw(b"null")


_bodies = msgspec.json.Decoder(_Body)
_messages = msgspec.json.Decoder(list[_Message])
_parts = msgspec.json.Decoder(list[_Part])
_lists = msgspec.json.Decoder(list[Raw])
_texts = msgspec.json.Decoder(str)


def check(operation: str, body: bytes, engine: str, facts: ModelFacts | None) -> None:
    """TooLong for a request that cannot fit the model's context. Costs one comparison for nearly all requests: their
    bodies have fewer bytes than the context has tokens.
    """
    limit = facts.context_length if facts is not None else None
    if facts is None or limit is None or len(body) <= limit:
        return
    prompts = _bodies.decode(body)
    if operation == "chat":
        tokens = _of_messages(prompts.messages, facts)
    elif operation in ("text_completion", "embeddings"):
        tokens = _of_prompts(prompts.prompt if operation == "text_completion" else prompts.input, facts)
    else:
        return
    if tokens > limit:
        raise TooLong(engine, Length(prompt=tokens, limit=limit, is_least=True))


def _of_messages(raw: Raw, facts: ModelFacts) -> int:
    if not facts.keeps_messages:
        return 0
    try:
        messages = _messages.decode(raw)
        size = sum(_size(message.content) for message in messages if message.role == "user")
    except msgspec.DecodeError:
        return 0  # refused elsewhere
    count = sum(1 for message in messages if message.role in _WHOLE)
    return max(count, _tokens(size, facts))


def _size(content: Raw) -> int:
    """How many bytes the texts of a message have, without blanks at either end, which templates cut off."""
    start = bytes(memoryview(content)[:1])
    if start == b'"':
        return len(_texts.decode(content).strip().encode())
    return sum(_size(part.text) for part in _parts.decode(content)) if start == b"[" else 0


def _of_prompts(raw: Raw, facts: ModelFacts) -> int:
    """The tokens of the longest prompt."""
    view = memoryview(raw)
    if bytes(view[:1]) == b'"':
        return _tokens(len(_texts.decode(raw).encode()), facts)
    if bytes(view[:1]) != b"[":
        return 0
    if not any(mark in bytes(view[1:_STEP_BYTES]) for mark in (b'"', b"[")):
        return _commas(view) + 1
    return max((_of_prompts(each, facts) for each in _lists.decode(raw)), default=0)


def _commas(view: memoryview) -> int:
    return sum(bytes(view[at : at + _STEP_BYTES]).count(b",") for at in range(0, len(view), _STEP_BYTES))


def _tokens(size: int, facts: ModelFacts) -> int:
    return -(-size // facts.token_bytes) if facts.token_bytes else 0
