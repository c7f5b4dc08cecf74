"""Responses as Ollama's API has them: lines of JSON, or one object. Pure.

Durations are whole nanoseconds; what the engine did not tell is measured where it can be, else left out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.dialects.client_api import ErrorEncoder
from app.dialects.usage import EngineStats, Usage
from app.errors import Problem
from backends.finish_reasons import CUT
from backends.http.delta import Delta

# A reason that no daemon gives passes as it is: "stop" would stand for a complete response.
_REASONS = {"tool_calls": "stop", "function_call": "stop"}


class Kind(enum.Enum):
    """The route whose lines are written."""

    CHAT = "chat"
    GENERATE = "generate"


class OllamaErrorEncoder(ErrorEncoder):
    """Ollama's errors, which are the same on every route; the subclasses write responses.

    `name` is the client's own for the model.
    """

    whole_type = "application/json; charset=utf-8"
    stream_type = "application/x-ndjson"

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._began = clock()

    def refused(self, problem: Problem) -> bytes:
        """One object with one string; clients look for Ollama's own words in it."""
        text = problem.message
        if problem.code == "model_not_found":
            text = f"model '{self._name[:256]}' not found: {text}"
        elif problem.code == "missing_field" and problem.param == "model":
            text = "model is required"
        return msgspec.json.encode({"error": text})

    def failed(self, problem: Problem) -> bytes:
        """The last line of a stream that breaks."""
        return self.refused(problem) + b"\n"

    def _ns(self) -> int:
        return max(0, int((self._clock() - self._began) * 1e9))


class OllamaChatEncoder(OllamaErrorEncoder):
    """A response of `/api/chat` or `/api/generate`."""

    def __init__(self, kind: Kind, name: str, token: str, clock: Callable[[], float]) -> None:
        super().__init__(name, clock)
        self._kind = kind
        self._first: float | None = None
        self._finish: str | None = None
        self._calls: dict[int, dict[str, Any]] = {}  # calls are written whole, so they are kept until the end

    def waiting(self, what: str) -> bytes:
        """A line with an empty text: in lines of JSON there is no room for comments."""
        return self._line("", {})

    def next(self, delta: Delta) -> bytes:
        """A line for its thinking, and one for its text or log probabilities."""
        if delta.finish or delta.calls:
            self._keep(delta)
        if self._first is None and (delta.text or delta.thinking or delta.calls):
            self._first = self._clock()
        line = self._line("", {}, thinking=delta.thinking) if delta.thinking else b""
        if delta.logprobs:
            return line + self._line(delta.text or "", {"logprobs": delta.logprobs})
        return line + self._line(delta.text, {}) if delta.text else line

    def end(self, usage: Usage, stats: EngineStats) -> bytes:
        """The calls, then the line that says what it took."""
        calls = [self._line("", {}, tool_calls=[call]) for call in self._whole_calls()]
        return b"".join([*calls, self._line("", self._end(usage, stats))])

    def whole(self, delta: Delta, usage: Usage, stats: EngineStats) -> bytes:
        """The one object, with everything in it."""
        self._keep(delta)
        calls = self._whole_calls()
        more = {"logprobs": delta.logprobs} if delta.logprobs else {}
        message: dict[str, Any] = {"thinking": delta.thinking} if delta.thinking else {}
        message |= {"tool_calls": calls} if calls else {}
        return self._line(delta.text or "", self._end(usage, stats) | more, **message)[:-1]

    def loaded(self) -> bytes:
        """The response to a request that asks for nothing but that the model be loaded."""
        return self._line("", {"done": True, "done_reason": "load"})[:-1]

    def _keep(self, delta: Delta) -> None:
        self._finish = delta.finish or self._finish
        for call in delta.calls:
            kept = self._calls.setdefault(call.at, {"id": call.id, "name": "", "arguments": []})
            kept["name"] = kept["name"] or call.name  # some engines repeat it with every part
            kept["arguments"].append(call.arguments)

    def _whole_calls(self) -> list[dict[str, Any]]:
        """The calls in Ollama's words, in which arguments are an object, without one that was cut off: the reason says
        that it was. ValueError for arguments that are no object.
        """
        calls = []
        is_cut = self._finish in CUT
        for at, call in self._calls.items():
            try:
                text = "".join(call["arguments"]) or ("" if is_cut else "{}")
                arguments = msgspec.json.decode(text, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as exc:
                if is_cut:
                    continue
                raise ValueError("a tool call whose arguments are not a JSON object") from exc
            calls.append({"id": call["id"], "function": {"index": at, "name": call["name"], "arguments": arguments}})
        return calls

    def _line(self, text: str, more: dict[str, Any], **members: Any) -> bytes:
        line: dict[str, Any] = {"model": self._name, "created_at": _time(self._clock())}
        if self._kind is Kind.CHAT:
            line["message"] = {"role": "assistant", "content": text, **members}
        else:
            line |= {"response": text, **members}
        return msgspec.json.encode({**line, "done": False, **more}) + b"\n"

    def _end(self, usage: Usage, stats: EngineStats) -> dict[str, Any]:
        first_s = None if self._first is None else self._first - self._began
        rest_s = None if self._first is None else self._clock() - self._first
        numbers = {
            "total_duration": self._ns(),
            "load_duration": _ns_of(stats.load_ms, None),
            "prompt_eval_count": usage.input_tokens,
            "prompt_eval_duration": _ns_of(stats.prompt_ms, first_s),
            "eval_count": usage.output_tokens,
            "eval_duration": _ns_of(stats.predicted_ms, rest_s),
        }
        reason = _REASONS.get(self._finish or "", self._finish or "stop")
        return {"done": True, "done_reason": reason} | {name: n for name, n in numbers.items() if n}


class OllamaEmbedEncoder(OllamaErrorEncoder):
    """A response of `/api/embed`, or of the older `/api/embeddings`."""

    def __init__(self, name: str, clock: Callable[[], float], *, is_old: bool) -> None:
        super().__init__(name, clock)
        self._is_old = is_old

    def embeddings(self, answer: bytes, usage: Usage) -> bytes:
        """Ollama's object; the numbers keep their bytes."""
        try:
            data = sorted(_vectors.decode(answer).data, key=lambda each: each.index)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ValueError("what is not a list of vectors") from exc
        return self._object([each.embedding for each in data], usage.input_tokens)

    def loaded(self) -> bytes:
        """The response to a request without a text: no vector."""
        return self._object([], 0)

    def _object(self, vectors: list[msgspec.Raw], tokens: int) -> bytes:
        if self._is_old:
            return msgspec.json.encode({"embedding": vectors[0] if vectors else []})
        counts = {"prompt_eval_count": tokens} if tokens else {}
        return msgspec.json.encode({"model": self._name, "embeddings": vectors, "total_duration": self._ns(), **counts})


class _Vector(msgspec.Struct, frozen=True):
    embedding: msgspec.Raw
    index: int = 0


class _Vectors(msgspec.Struct, frozen=True):
    data: list[_Vector]


_vectors = msgspec.json.Decoder(_Vectors)


def _ns_of(reported_ms: float | None, measured_s: float | None) -> int:
    """Nanoseconds that the engine reported, else those that were measured, else 0."""
    if reported_ms is not None:
        return int(reported_ms * 1e6)
    return max(0, int(measured_s * 1e9)) if measured_s is not None else 0


def _time(now: float) -> str:
    """RFC 3339 in UTC; `now` is Unix seconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
