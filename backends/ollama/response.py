"""An Ollama daemon's response as OpenAI's: what whole responses and streams have in common, and whole ones. Pure."""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

import msgspec

from backends.errors import Broken
from backends.finish_reasons import STOP, finish
from backends.http.delta import CallDelta
from backends.http.exchange import ResponseTimings
from backends.ollama.failures import in_stream
from backends.ollama.request import OllamaRequest

_NS: Final = 1e-9


class ResponseHead(msgspec.Struct, frozen=True):
    """What is the same in all parts of the response to one request. `created` is Unix seconds."""

    engine: str
    asked: OllamaRequest
    id: str
    created: int

    def members(self, kind: str) -> dict[str, Any]:
        """The members with which every object begins."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.asked.name}


class StreamLine(msgspec.Struct, frozen=True):
    """One JSON object of the daemon's: a whole response, or a line of a stream. It leaves out what is zero or empty.

    Durations are in nanoseconds.
    """

    message: dict[str, Any] | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    logprobs: list[dict[str, Any]] | None = None
    embeddings: list[list[float]] | None = None
    prompt_eval_count: int = 0
    eval_count: int = 0
    load_duration: int = 0
    prompt_eval_duration: int = 0
    eval_duration: int = 0
    error: Any = None

    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer; 0 for what can be no number of tokens."""
        prompt, output = (count if 0 <= count < 2**53 else 0 for count in (self.prompt_eval_count, self.eval_count))
        return prompt, output

    def usage(self) -> dict[str, int]:
        """As OpenAI's `usage`."""
        prompt, output = self.counts()
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    def timings(self) -> ResponseTimings:
        """In seconds; None for what it did not say."""
        took = (self.load_duration, self.prompt_eval_duration, self.eval_duration)
        return ResponseTimings(*(ns * _NS if ns else None for ns in took))

    def finish(self, has_calls: bool) -> str:
        """OpenAI's `finish_reason`."""
        if not self.done_reason:
            return "tool_calls" if has_calls else STOP
        reason = finish(self.done_reason) or "error"
        # It says "stop" behind calls as well.
        return "tool_calls" if has_calls and reason == STOP else reason


_lines = msgspec.json.Decoder(StreamLine)


def line(engine: str, data: bytes, num_ctx: int | None) -> StreamLine:
    """One object, decoded. Raises the daemon's error, and Broken for what is not a response of Ollama's."""
    try:
        decoded = _lines.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        what = "an empty body" if not data.strip() else "what is not an answer of Ollama's"
        raise Broken(engine, f"it sent {what}") from exc
    if decoded.error is not None:
        raise in_stream(engine, decoded.error, num_ctx)
    return decoded


def text_of(message: dict[str, Any], name: str) -> str:
    """The member of that name where it is text, else an empty text."""
    value = message.get(name)
    return value if isinstance(value, str) else ""


def _both(thinking: str) -> dict[str, str]:
    """Thinking under both of its names; clients read one or the other."""
    return {"reasoning": thinking, "reasoning_content": thinking} if thinking else {}


def tool_calls(message: dict[str, Any], head: ResponseHead, first: int) -> tuple[CallDelta, ...]:
    """A message's calls, each of them whole: numbered from `first`, with an id each, and arguments as text.

    Broken for a call without a name.
    """
    entries = message.get("tool_calls")
    calls: list[CallDelta] = []
    for entry in entries if isinstance(entries, list) else ():
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Broken(head.engine, "it sent a tool call without a name")
        number = first + len(calls)
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
        text = "{}" if text.strip() in ("", "null") else text
        own = entry.get("id")
        id_ = own if isinstance(own, str) and own else f"call_{head.id[-20:]}_{number}"
        calls.append(CallDelta(number, True, id_, function["name"], text))
    return tuple(calls)


def _openai_call(call: CallDelta) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.at, "id": call.id, "type": "function", "function": function}


def logprobs_of(tokens: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The log probabilities of a line as OpenAI's chats list them; None for a line without."""
    if not tokens:
        return None
    return [{"top_logprobs": [], **token, "token": text_of(token, "token")} for token in tokens]


def whole(head: ResponseHead, body: bytes) -> tuple[bytes, ResponseTimings]:
    """A complete response. Raises the daemon's error, which it may send with status 200, and Broken for what is not a
    finished response of Ollama's.
    """
    response = line(head.engine, body, head.asked.num_ctx)
    if head.asked.operation == "embeddings":
        return _embeddings(head, response), response.timings()
    is_chat = head.asked.operation == "chat"
    if response.done is not True or (response.message is None if is_chat else response.response is None):
        raise Broken(head.engine, "it sent an answer that is not finished")
    choice: dict[str, Any] = {"index": 0}
    if is_chat:
        message = response.message or {}
        calls = tool_calls(message, head, 0)
        text = text_of(message, "content")
        choice["message"] = {
            "role": "assistant",
            "content": None if calls and not text else text,
            **_both(text_of(message, "thinking")),
            **({"tool_calls": [_openai_call(call) for call in calls]} if calls else {}),
        }
        choice["finish_reason"] = response.finish(bool(calls))
    else:
        choice |= {"text": response.response, "finish_reason": response.finish(False)}
    logprobs = logprobs_of(response.logprobs)
    # In this shape also of a completion: it becomes lists where every engine's does.
    choice["logprobs"] = {"content": logprobs, "refusal": None} if logprobs else None
    kind = "chat.completion" if is_chat else "text_completion"
    answer = {**head.members(kind), "choices": [choice], "usage": response.usage()}
    return msgspec.json.encode(answer), response.timings()


def _embeddings(head: ResponseHead, response: StreamLine) -> bytes:
    if response.embeddings is None:
        raise Broken(head.engine, "it sent an answer without embeddings")
    vectors = [_packed(each) if head.asked.is_base64 else each for each in response.embeddings]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    prompt, _ = response.counts()
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return msgspec.json.encode({"object": "list", "data": data, "model": head.asked.name, "usage": usage})


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
