"""OpenAI's answers that come in one piece: whether they are sound, what is mended, what they cost, the name they carry.

Pure. Every edit made here is listed in docs/wire.md.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.dialects.delta import DeltaReader
from app.dialects.error_text import one_line
from app.dialects.openai.completion_logprobs import Offsets, as_lists
from app.dialects.openai.normalize import GAVE_UP, ResponseContext, failure, flat, listed, number
from app.dialects.openai.stream_reader import renaming
from app.dialects.openai.tool_calls import fill_arguments, mend_whole
from app.dialects.reasoning import give_both, splitter
from app.dialects.usage import EngineStats, Usage, timings, tokens
from backends.errors import Broken, EngineFailed
from backends.finish_reasons import CUT
from backends.finish_reasons import finish as ended
from backends.http.delta import Delta
from backends.prompt_too_long import failed


class _Vectors(msgspec.Struct, frozen=True):
    """An answer with embeddings; they are many, and stay bytes."""

    data: list[msgspec.Raw] | None = None
    usage: Any = None
    error: Any = None
    model: str | None = None


_vectors = msgspec.json.Decoder(_Vectors)
_values = msgspec.json.Decoder()


def settle(terms: ResponseContext, body: bytes) -> tuple[bytes, Usage]:
    """The answer with the client's name for the model, and its cost.

    Raises Broken for what is not an answer of that operation, EngineFailed for an error under status 200.
    """
    if terms.operation == "embeddings":
        return _embeddings(terms, body)
    value, model, is_mended = _sound(terms, body)
    if is_mended:
        return msgspec.json.encode(value | {"model": terms.name}), _usage(value)
    return _renamed(terms, model, body), _usage(value)


def settle_delta(terms: ResponseContext, body: bytes) -> tuple[Delta, Usage, EngineStats]:
    """The same of an answer with a text, for a client of another dialect than OpenAI's."""
    value, _, _ = _sound(terms, body)
    stats = EngineStats()
    stats.note(value.get("usage"), value.get("timings"))
    try:
        return DeltaReader(terms.token).read(value), _usage(value), stats
    except ValueError as exc:
        raise Broken(terms.engine, f"it sent {exc}") from exc


def _sound(terms: ResponseContext, body: bytes) -> tuple[dict[str, Any], Any, bool]:
    """The answer put right, the name for the model that it came with, and whether anything else changed."""
    value = _decoded(terms, _values, body)
    if not isinstance(value, dict):
        raise Broken(terms.engine, "it sent what is not a JSON answer")
    error = failure(value)
    if error is not None:
        raise failed(terms.engine, value, error)
    if value.get("choices") is None:
        raise Broken(terms.engine, "it sent JSON that is not an answer to this request")
    model = value.get("model")
    try:
        is_mended = _mend(terms, value)
    except ValueError as exc:
        raise Broken(terms.engine, f"it sent {exc}") from exc
    return value, model, is_mended


def _usage(answer: dict[str, Any]) -> Usage:
    finish = next((choice["finish_reason"] for choice in answer["choices"]), None)
    usage, times = tokens(answer.get("usage")), timings(answer.get("timings"))
    if usage is not None:
        return Usage(usage.prompt_tokens, usage.completion_tokens, finish)
    if times is not None:
        return Usage(times.prompt_n + times.cache_n, times.predicted_n, finish)
    return Usage(finish_reason=finish, is_counted=True)


def _embeddings(terms: ResponseContext, body: bytes) -> tuple[bytes, Usage]:
    answer: _Vectors = _decoded(terms, _vectors, body)
    if answer.error is not None:
        raise failed(terms.engine, answer.error, one_line(answer.error))
    if answer.data is None:
        raise Broken(terms.engine, "it sent JSON that is not an answer to this request")
    usage = tokens(answer.usage)
    cost = Usage(usage.prompt_tokens, usage.completion_tokens) if usage else Usage(is_counted=True)
    return _renamed(terms, answer.model, body), cost


def _decoded(terms: ResponseContext, decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        what = "an empty body" if not body.strip() else "what is not a JSON answer"
        raise Broken(terms.engine, f"it sent {what}") from exc


def _renamed(terms: ResponseContext, model: Any, body: bytes) -> bytes:
    rename = renaming(body, model, terms.name) if isinstance(model, str) else None
    return body.replace(*rename, 1) if rename else body


def _mend(terms: ResponseContext, answer: dict[str, Any]) -> bool:
    """Put an answer right; whether anything changed. ValueError for what is none."""
    kind = "chat.completion" if terms.operation == "chat" else "text_completion"
    is_changed = False
    for name, type_, spare in (
        ("id", str, terms.id),
        ("object", str, kind),
        ("created", int, terms.created),
        ("model", str, terms.name),
    ):
        value = answer.get(name)
        if type(value) is not type_ or not value:
            answer[name], is_changed = spare, True
    given = answer["choices"]
    answer["choices"] = choices = listed(given)
    is_changed = is_changed or choices is not given
    for at, choice in enumerate(choices):
        if type(choice.get("index")) is not int:
            choice["index"], is_changed = number(choice.get("index"), at), True
        is_said = _message(terms, choice) if terms.operation == "chat" else _text(choice)
        is_changed = _finish(terms, choice) or is_said or is_changed
    return is_changed


def _message(terms: ResponseContext, choice: dict[str, Any]) -> bool:
    message, is_changed = choice.get("message"), False
    if not isinstance(message, dict):
        if message is not None:
            raise ValueError("a message that is none")
        message = choice.pop("delta", None)
        if not isinstance(message, dict):
            if not isinstance(choice.get("text"), str):
                raise ValueError("a choice without a message")
            message = {"content": choice.pop("text")}
        choice["message"], is_changed = message, True
    if message.get("role") != "assistant":
        message["role"], is_changed = "assistant", True
    is_changed = mend_whole(message, f"{terms.token}{choice['index']}") or is_changed
    content = message.get("content")
    if not isinstance(content, str | None):
        message["content"], is_changed = flat(content), True
    if "content" not in message:
        message["content"], is_changed = None if message.get("tool_calls") else "", True
    split = splitter(terms.reasoning)
    if split is not None and message["content"] and not (message.get("reasoning") or message.get("reasoning_content")):
        thinking, text = (a + b for a, b in zip(split.feed(message["content"]), split.end(), strict=True))
        if thinking or text != message["content"]:
            message |= {"content": text, "reasoning": thinking, "reasoning_content": thinking}
            is_changed = True
    return give_both(message) or is_changed


def _text(choice: dict[str, Any]) -> bool:
    text, is_listed = choice.get("text"), as_lists(choice, Offsets())
    if isinstance(text, str):
        return is_listed
    message = choice.pop("message", None)
    if text is None and isinstance(message, dict):
        text = message.get("content")
    if text is None:
        raise ValueError("a choice without a text")
    choice["text"] = flat(text)
    return True


def _finish(terms: ResponseContext, choice: dict[str, Any]) -> bool:
    """The answer is whole, so each choice has ended somehow."""
    finish = choice.get("finish_reason")
    if finish:
        choice["finish_reason"] = ended(finish)
    else:
        has_calls = terms.operation == "chat" and bool(choice["message"].get("tool_calls"))
        choice["finish_reason"] = "tool_calls" if has_calls else "stop"
    if choice["finish_reason"] is None:
        raise EngineFailed(terms.engine, GAVE_UP)
    is_whole_chat = terms.operation == "chat" and choice["finish_reason"] not in CUT
    is_filled = is_whole_chat and fill_arguments(choice["message"])
    return is_filled or bool(choice["finish_reason"] != finish)
