"""OpenAI's whole responses: whether they are sound, what they cost, and the name for the model that they carry. Pure.

docs/wire.md lists everything that is changed in them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from app.dialects.delta import DeltaReader
from app.dialects.error_text import one_line
from app.dialects.openai.normalize import ResponseContext, WholeNormalizer
from app.dialects.openai.stream_reader import renaming
from app.dialects.usage import EngineStats, Usage, cached_tokens, reasoning_tokens, timings, tokens
from backends.errors import Broken
from backends.http.delta import Delta
from backends.prompt_too_long import failed


class _Vectors(msgspec.Struct, frozen=True):
    """A response with embeddings; they are many, and stay bytes."""

    data: list[msgspec.Raw] | None = None
    usage: Any = None
    error: Any = None
    model: str | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _PlainUsage(msgspec.Struct, frozen=True):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None
    cached_tokens: Any = None
    prompt_cache_hit_tokens: Any = None


class _PlainMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["assistant"]
    content: str
    refusal: None = None
    annotations: Any = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], msgspec.Meta(max_length=0)] | None = None
    reasoning: None = None
    reasoning_content: None = None


class _PlainChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    message: _PlainMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None
    stop_reason: Any = None
    token_ids: Any = None


class _PlainAnswer(msgspec.Struct, frozen=True):
    """A whole chat response that says one text and in which there is nothing to put right: nearly every one.

    What it takes is a part of what WholeNormalizer leaves as it is (a test holds that).
    """

    id: _Text
    object: Literal["chat.completion"]
    created: Annotated[int, msgspec.Meta(ge=1)]
    model: _Text
    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: _PlainUsage
    error: None = None


_plain = msgspec.json.Decoder(_PlainAnswer)


def as_plain(body: bytes) -> _PlainAnswer | None:
    """The response, where it is a plain one."""
    try:
        return _plain.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_vectors = msgspec.json.Decoder(_Vectors)
_values = msgspec.json.Decoder()


def settle(context: ResponseContext, body: bytes) -> tuple[bytes, Usage]:
    """The response with the client's name for the model, and its cost.

    Raises Broken for what is not a response to that operation, EngineFailed for an error under status 200.
    """
    if context.operation == "embeddings":
        return _embeddings(context, body)
    if context.operation == "chat" and context.reasoning == "keep":
        plain = as_plain(body)
        if plain is not None:
            usage = _plain_usage(plain)
            return body if plain.model == context.name else _renamed(context, plain.model, body), usage
    value, model, is_changed = _sound(context, body)
    if is_changed:
        return msgspec.json.encode(value | {"model": context.name}), _usage(value)
    return _renamed(context, model, body), _usage(value)


def settle_delta(context: ResponseContext, body: bytes) -> tuple[Delta, Usage, EngineStats]:
    """The same of a chat or a completion, for a client of another dialect than OpenAI's."""
    value, _, _ = _sound(context, body)
    stats = EngineStats()
    stats.note(value.get("usage"), value.get("timings"))
    try:
        return DeltaReader(context.token).read(value), _usage(value), stats
    except ValueError as exc:
        raise Broken(context.engine, f"it sent {exc}") from exc


def _sound(context: ResponseContext, body: bytes) -> tuple[dict[str, Any], Any, bool]:
    """The response put right, the name for the model that it came with, and whether anything else changed."""
    value = _decoded(context, _values, body)
    if not isinstance(value, dict):
        raise Broken(context.engine, "it sent what is not a JSON answer")
    model = value.get("model")
    return value, model, WholeNormalizer(context).normalize(value)


def _plain_usage(plain: _PlainAnswer) -> Usage:
    counts, finish = plain.usage, plain.choices[0].finish_reason
    prompt, completion = counts.prompt_tokens_details, counts.completion_tokens_details
    if prompt is completion is counts.cached_tokens is counts.prompt_cache_hit_tokens is None:
        return Usage(counts.prompt_tokens, counts.completion_tokens, finish)
    members = msgspec.structs.asdict(counts)
    cached, reasoned = cached_tokens(members), reasoning_tokens(members)
    return Usage(
        counts.prompt_tokens, counts.completion_tokens, finish, cached_tokens=cached, reasoning_tokens=reasoned
    )


def _usage(answer: dict[str, Any]) -> Usage:
    finish = next((choice["finish_reason"] for choice in answer["choices"]), None)
    reported = answer.get("usage")
    usage, times = tokens(reported), timings(answer.get("timings"))
    cached, reasoned = cached_tokens(reported, answer.get("timings")), reasoning_tokens(reported)
    if usage is not None:
        spent = usage.prompt_tokens, usage.completion_tokens
        return Usage(*spent, finish, cached_tokens=cached, reasoning_tokens=reasoned)
    if times is not None:
        return Usage(times.prompt_n + times.cache_n, times.predicted_n, finish, cached_tokens=cached)
    return Usage(finish_reason=finish, is_counted=True)


def _embeddings(context: ResponseContext, body: bytes) -> tuple[bytes, Usage]:
    answer: _Vectors = _decoded(context, _vectors, body)
    if answer.error is not None:
        raise failed(context.engine, answer.error, one_line(answer.error))
    if answer.data is None:
        raise Broken(context.engine, "it sent JSON that is not an answer to this request")
    usage = tokens(answer.usage)
    cost = Usage(usage.prompt_tokens, usage.completion_tokens) if usage else Usage(is_counted=True)
    return _renamed(context, answer.model, body), cost


def _decoded(context: ResponseContext, decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        what = "an empty body" if not body.strip() else "what is not a JSON answer"
        raise Broken(context.engine, f"it sent {what}") from exc


def _renamed(context: ResponseContext, model: Any, body: bytes) -> bytes:
    rename = renaming(body, model, context.name) if isinstance(model, str) else None
    return body.replace(*rename, 1) if rename else body
