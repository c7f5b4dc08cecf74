"""Deltas as OpenAI's chunks, for clients that speak OpenAI and engines that do not. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from app.dialects.openai.completion_logprobs import Offsets, as_lists
from app.dialects.openai.normalize import CHUNKS, ResponseContext
from app.dialects.openai.stream_reader import DONE
from backends.http.delta import CallDelta, Delta


class ChunkEncoder:
    """One stream, of one choice. `hides_usage`: the client did not ask for the usage."""

    def __init__(self, context: ResponseContext, *, hides_usage: bool) -> None:
        self._head = {
            "id": context.id,
            "object": CHUNKS[context.operation],
            "created": context.created,
            "model": context.name,
        }
        self._is_chat = context.operation == "chat"
        self._hides_usage = hides_usage
        self._is_begun = False
        self._offsets = Offsets()

    def next(self, delta: Delta) -> bytes:
        """The chunk for a delta; for the last one those of the end: the usage, and the end mark."""
        content: dict[str, Any] = {"delta": self._delta(delta)} if self._is_chat else {"text": delta.text or ""}
        choice = {"index": 0, **content, "finish_reason": delta.finish}
        if delta.logprobs:
            choice["logprobs"] = {"content": delta.logprobs, "refusal": None}
            if not self._is_chat:
                as_lists(choice, self._offsets)
        chunk = b"data: " + msgspec.json.encode({**self._head, "choices": [choice]}) + b"\n\n"
        return chunk if delta.finish is None else chunk + self._usage(delta) + DONE

    def _delta(self, delta: Delta) -> dict[str, Any]:
        """The chunk's `delta`: text, thinking under both of its names, and the role the first time."""
        members: dict[str, Any] = {}
        if not self._is_begun:
            self._is_begun = True
            members = {"role": "assistant", "content": ""}
        if delta.text is not None:
            members["content"] = delta.text
        if delta.thinking:
            members["reasoning"] = members["reasoning_content"] = delta.thinking
        if delta.calls:
            members["tool_calls"] = [_call(call) for call in delta.calls]
        return members

    def _usage(self, delta: Delta) -> bytes:
        if delta.usage is None or self._hides_usage:
            return b""
        prompt, output = delta.usage.prompt_tokens, delta.usage.completion_tokens
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        return b"data: " + msgspec.json.encode({**self._head, "choices": [], "usage": usage}) + b"\n\n"


def _call(call: CallDelta) -> dict[str, Any]:
    if not call.is_new:
        return {"index": call.at, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.at, "id": call.id, "type": "function", "function": function}
