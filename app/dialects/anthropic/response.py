"""Responses as Anthropic's API has them: a message of content blocks, or the events that build one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.dialects.call_order import CallOrderer, OrderedPart
from app.dialects.sse import CONTENT_TYPE
from app.dialects.usage import EngineStats, Usage
from app.errors import JSON, Problem
from backends.finish_reasons import CUT
from backends.http.delta import CallDelta, Delta
from backends.prompt_too_long import Length

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}


class AnthropicEncoder:
    """Writes one message. `stops` are the client's stop sequences: an engine may report which one ended the message."""

    whole_type = JSON
    stream_type = CONTENT_TYPE
    event_codes: frozenset[str] = frozenset()

    def __init__(self, name: str, token: str, stops: Sequence[str] = ()) -> None:
        self._name = name
        self._id = f"msg_{token}"
        self._stops = stops
        self._orderer = CallOrderer()
        self._is_begun = False
        self._at = -1  # the block that is open, or was the last
        self._open: str | int | None = None  # "text", "thinking", or a call's number
        self._arguments: dict[int, list[str]] = {}  # of each call, as far as they have come
        self._finish: str | None = None
        self._stop: str | None = None

    def refused(self, problem: Problem) -> bytes:
        """Anthropic's error object."""
        type_ = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "api_error")
        message = problem.message if problem.length is None else _too_long(problem.length)
        return msgspec.json.encode({"type": "error", "error": {"type": type_, "message": message}})

    def failed(self, problem: Problem) -> bytes:
        """Anthropic's error event."""
        return b"event: error\ndata: " + self.refused(problem) + b"\n\n"

    def waiting(self, what: str) -> bytes:
        """Anthropic's ping, or a comment as long as there is no message."""
        return _event({"type": "ping"}) if self._is_begun else f": waiting for {what}\n\n".encode()

    def next(self, delta: Delta) -> bytes:
        """Events that open content blocks, add to them and close them."""
        out = [] if self._is_begun else self._begin()
        if delta.calls or delta.finish or delta.stop:
            self._keep(delta)
        out += self._write(self._orderer.next(delta))
        return b"".join(out)

    def end(self, usage: Usage, stats: EngineStats) -> bytes:
        """The events with the stop reason and the token counts, which are only known now."""
        self._inputs()
        ended = {"type": "message_delta", "delta": self._reason(), "usage": _usage(usage, stats.cached)}
        out = [*self._begin(), *self._write(self._orderer.rest()), *self._leave()]
        return b"".join([*out, _event(ended), _event({"type": "message_stop"})])

    def whole(self, delta: Delta, usage: Usage, stats: EngineStats) -> bytes:
        """The message with all its content blocks."""
        self._keep(delta)
        content: list[dict[str, Any]] = []
        if delta.thinking:
            content.append({"type": "thinking", "thinking": delta.thinking, "signature": ""})
        if delta.text:
            content.append({"type": "text", "text": delta.text})
        inputs = self._inputs()
        called = [call for call in delta.calls if call.at in inputs]
        content += [{"type": "tool_use", "id": c.id, "name": c.name, "input": inputs[c.at]} for c in called]
        return msgspec.json.encode(self._message(content, _usage(usage, stats.cached)) | self._reason())

    def embeddings(self, answer: bytes, usage: Usage) -> bytes:
        """This API has none."""
        raise ValueError("embeddings")

    # -- within

    def _write(self, parts: Sequence[OrderedPart]) -> list[bytes]:
        out: list[bytes] = []
        for part in parts:
            if part.thinking:
                out += self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                out.append(self._delta({"type": "thinking_delta", "thinking": part.thinking}))
            if part.text:
                out += self._enter("text", {"type": "text", "text": ""})
                out.append(self._delta({"type": "text_delta", "text": part.text}))
            if part.call is not None:
                out += self._call(part.call)
        return out

    def _keep(self, delta: Delta) -> None:
        self._finish = delta.finish or self._finish
        self._stop = delta.stop if delta.stop in self._stops else self._stop
        for call in delta.calls:
            self._arguments.setdefault(call.at, []).append(call.arguments)

    def _inputs(self) -> dict[int, dict[str, Any]]:
        """The calls' arguments as objects, without those of a call that was cut off: the stop reason says that it was.
        ValueError for arguments that are no object.
        """
        inputs = {}
        is_cut = self._finish in CUT
        for at, parts in self._arguments.items():
            try:
                inputs[at] = msgspec.json.decode("".join(parts) or ("" if is_cut else "{}"), type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as exc:
                if not is_cut:
                    raise ValueError("a tool call whose arguments are not a JSON object") from exc
        return inputs

    def _reason(self) -> dict[str, Any]:
        if self._stop is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": self._stop}
        # Some engines end a named tool's call with "stop".
        default = "tool_use" if self._arguments else "end_turn"
        return {"stop_reason": _REASONS.get(self._finish or "", default), "stop_sequence": None}

    def _message(self, content: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._name,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _begin(self) -> list[bytes]:
        if self._is_begun:
            return []
        self._is_begun = True
        return [_event({"type": "message_start", "message": self._message([], _usage(Usage(), 0))})]

    def _enter(self, kind: str | int, block: dict[str, Any]) -> list[bytes]:
        """The events that make this the open block; none where it is."""
        if kind == self._open:
            return []
        left = self._leave()
        self._at += 1
        self._open = kind
        return [*left, _event({"type": "content_block_start", "index": self._at, "content_block": block})]

    def _leave(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [_event({"type": "content_block_stop", "index": self._at})]

    def _call(self, call: CallDelta) -> list[bytes]:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        entered = self._enter(call.at, block)
        delta = {"type": "input_json_delta", "partial_json": call.arguments}
        return [*entered, self._delta(delta)] if call.arguments else entered

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._at, "delta": delta})


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def _usage(usage: Usage, cached: int) -> dict[str, int]:
    """Anthropic counts the tokens that were read from a cache apart from the others."""
    cached = min(cached, usage.input_tokens)
    return {
        "input_tokens": usage.input_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
    }


def _too_long(length: Length) -> str:
    """Anthropic's own words: clients look for them, and begin to compact the conversation."""
    if length.is_of_answer:
        sum_ = f"{length.prompt} + {length.output} > {length.limit}"
        advice = "decrease input length or `max_tokens` and try again"
        return f"input length and `max_tokens` exceed context limit: {sum_}, {advice}"
    if length.limit is None:
        return "prompt is too long: it is beyond the model's maximum"
    is_known = length.prompt is not None and length.prompt > length.limit
    has = str(length.prompt) if is_known else f"at least {length.limit + 1}"
    return f"prompt is too long: {has} tokens > {length.limit} maximum"
