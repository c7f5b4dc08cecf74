"""OpenAI's answers read for other dialects: text, thinking, tool calls and the reason of the end. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from app.dialects import sse
from backends.finish_reasons import LENGTH, finish
from backends.http.exchange import ResponseTimings


class CallDelta(msgspec.Struct, frozen=True):
    """A tool call or a part of one. `at` counts an answer's calls from 0; id and name come with the first part."""

    at: int
    is_new: bool
    id: str
    name: str
    arguments: str


class Delta(msgspec.Struct, frozen=True):
    """What one event, or a whole answer, says. `stop` is the client's own stop sequence that ended it, where told."""

    thinking: str = ""
    text: str = ""
    calls: list[CallDelta] = []
    finish: str | None = None
    stop: str | None = None
    logprobs: list[dict[str, Any]] | None = None


class EngineStats(msgspec.Struct):
    """What an engine tells of its work besides the counts: milliseconds, and tokens cached or thought."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None
    load_ms: float | None = None
    cached: int = 0
    reasoned: int = 0


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()


class _Said(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM's: the stop sequence, or a token's number
    logprobs: Any = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: Any = None
    timings: Any = None


_chunks = msgspec.json.Decoder(_Chunk)
_NOTHING = _Said()


class DeltaReader:
    """One answer, event by event or whole; ValueError for what is not OpenAI's."""

    def __init__(self, token: str) -> None:
        self.details = EngineStats()
        self._token = token
        self._calls: dict[int, int] = {}  # the engine's index → ours

    def events(self, events: bytes) -> list[Delta]:
        """What whole events say, in their order."""
        pieces = []
        for event in sse.split(events):
            data = sse.data(event)
            if data is not None and data.strip() not in (b"", b"[DONE]"):
                pieces.append(self.read(data))
        return pieces

    def read(self, data: bytes) -> Delta:
        """One event's data, or a whole answer."""
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ValueError("what is not a chunk of an answer") from exc
        self._note(chunk.usage, chunk.timings)
        choice = next((each for each in chunk.choices or () if each.index == 0), None)
        if choice is None:
            return Delta()
        said = choice.message or choice.delta or _NOTHING
        return Delta(
            thinking=said.reasoning_content or said.reasoning or "",
            text=said.content or said.refusal or choice.text or "",
            calls=[self._call(call) for call in said.tool_calls or ()],
            finish=(finish(choice.finish_reason) or LENGTH) if choice.finish_reason else None,
            stop=choice.stop_reason if isinstance(choice.stop_reason, str) else None,
            logprobs=_logprobs(choice.logprobs),
        )

    def note(self, timings: ResponseTimings | None) -> None:
        """What the engine told of its time otherwise than in OpenAI's words."""
        for phase, seconds in (timings.phases() if timings is not None else {}).items():
            setattr(self.details, {"load": "load_ms", "prompt": "prompt_ms"}.get(phase, "predicted_ms"), seconds * 1e3)

    def _call(self, call: _Call) -> CallDelta:
        # Some engines number no call; a new one then shows by its id.
        last = max(self._calls, default=-1)
        index = call.index if call.index is not None else (last + 1 if call.id or last < 0 else last)
        is_new = index not in self._calls
        at = self._calls.setdefault(index, len(self._calls))
        arguments = call.function.arguments
        if not isinstance(arguments, str | None):
            arguments = msgspec.json.encode(arguments).decode()
        return CallDelta(at, is_new, call.id or f"call_{self._token}{at}", call.function.name or "", arguments or "")

    def _note(self, usage: Any, timings: Any) -> None:
        for name in ("prompt_ms", "predicted_ms", "load_ms"):
            value = timings.get(name) if isinstance(timings, dict) else None
            if isinstance(value, int | float) and value >= 0:
                setattr(self.details, name, float(value))
        self.details.cached = _cached(usage, timings) or self.details.cached
        self.details.reasoned = _count(usage, "completion_tokens_details", "reasoning_tokens") or self.details.reasoned


def _cached(usage: Any, timings: Any) -> int:
    """Tokens of the prompt that were read from a cache, where an engine says it."""
    members = usage if isinstance(usage, dict) else {}
    others = (members.get("cached_tokens"), members.get("prompt_cache_hit_tokens"))  # Moonshot's, DeepSeek's
    own = timings.get("cache_n") if isinstance(timings, dict) else None  # llama.cpp's
    found = [_count(usage, "prompt_tokens_details", "cached_tokens"), *map(_number, (*others, own))]
    return next((count for count in found if count), 0)


def _count(usage: Any, part: str, name: str) -> int:
    details = usage.get(part) if isinstance(usage, dict) else None
    return _number(details.get(name)) if isinstance(details, dict) else 0


def _number(found: Any) -> int:
    return found if type(found) is int and 0 <= found < 2**53 else 0


def _logprobs(logprobs: Any) -> list[dict[str, Any]] | None:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) and all(isinstance(each, dict) for each in content) else None
