"""One of the answers of a comparison: written as events when it comes, and kept with its figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from app.dialects.sse import CONTENT_TYPE
from app.dialects.usage import EngineStats, Usage
from app.errors import JSON, Problem
from app.relay.http.request import ADJUSTED, DROPPED, Request
from backends.errors import Broken
from backends.http.delta import CallDelta, Delta

_PRECISION: Final = 4  # digits behind the point: tenths of a millisecond
_SAID: Final = ("content", "reasoning", "tool_calls")
_NO_ANSWER: Final = Problem(502, "no_answer", "This model has given no whole answer; which one it is stays hidden.")


def event(name: str, **members: Any) -> bytes:
    """One event of the stream."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(members))


def problem_event(problem: Problem) -> bytes:
    """The event of a comparison that comes to nothing."""
    return event("error", index=None, error=_members(problem))


def _members(problem: Problem) -> dict[str, Any]:
    return {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}


class ComparedAnswer:
    """The answer of one model, and the encoder that the data path writes it with.

    `index`: its place among the answers. `is_shown`: it is written as it comes; else it is only kept. `max_bytes`: of
    its text, thinking and log probabilities as JSON. The data path is given `request`, made of the client's.
    """

    whole_type = JSON
    stream_type = CONTENT_TYPE
    event_codes: frozenset[str] = frozenset()

    def __init__(
        self,
        index: int,
        name: str,
        request: Request,
        sink: Callable[[bytes], None],
        *,
        is_shown: bool,
        max_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.index = index
        self.name = name
        self.error: dict[str, Any] | None = None
        self.finish_reason: str | None = None
        self.response = request.response.part(clock(), sink)
        self.request = request.part(index, self.response, self)
        self._is_shown = is_shown
        self._left_bytes = max_bytes
        self._clock = clock
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._usage: Usage | None = None
        self._first_at: float | None = None
        self._ended_at: float | None = None

    def __repr__(self) -> str:
        return f"<ComparedAnswer {self.index} {self.name} {self.finish_reason}>"

    # -- what the data path writes (app/dialects/client_api.py)

    def refused(self, problem: Problem) -> bytes:
        """The event of a model that has not begun to answer."""
        return self.failed(problem)

    def failed(self, problem: Problem) -> bytes:
        """The event of a model that has failed."""
        self.error = _members(problem)
        return event("error", index=self.index, error=self.error) if self._is_shown else b""

    def waiting(self, what: str) -> bytes:
        """What it waits for."""
        return event("waiting", index=self.index, **{"for": what}) if self._is_shown else b""

    def next(self, delta: Delta) -> bytes:
        """The event of what has come."""
        shown = self._kept(delta)
        if not shown:
            return b""
        if self._first_at is None:
            self._first_at = self._clock()
        return event("model", index=self.index, delta=shown) if self._is_shown else b""

    def end(self, usage: Usage, stats: EngineStats) -> bytes:
        """The last event, with the figures."""
        self._ended_at = self._clock()
        self._usage = usage
        if not self._is_shown:
            return b""
        ended = {"finish_reason": self.finish_reason, **self.figures()}
        return event("model", index=self.index, delta={}, **ended)

    def whole(self, delta: Delta, usage: Usage, stats: EngineStats) -> bytes:
        """An answer in one piece; what is asked here is always a stream."""
        return self.next(delta) + self.end(usage, stats)

    def embeddings(self, answer: bytes, usage: Usage) -> bytes:
        """There are none."""
        raise ValueError("embeddings")

    # -- what is known of it in the end

    @property
    def is_whole(self) -> bool:
        """Whether it has come to its end."""
        return self._ended_at is not None and self.error is None

    def figures(self) -> dict[str, Any]:
        """Tokens, times, length, and whose answer it is; None for what is not known."""
        return {
            "usage": self._tokens(),
            "timing": self._timing(),
            "length": {"characters": sum(map(len, self._text))},
            "backend": self.response.backend,
            "serving": self.response.serving,
            "adjusted": self.request.reported(ADJUSTED),
            "dropped": self.request.reported(DROPPED),
        }

    def delta(self) -> dict[str, Any]:
        """All of it as one delta."""
        parts = {"content": "".join(self._text), "reasoning": "".join(self._thinking)}
        lists = {"logprobs": self._logprobs, "tool_calls": self._calls}
        return {name: value for name, value in {**parts, **lists}.items() if value}

    def entry(self) -> dict[str, Any]:
        """All of it, as it stands in a response that is no stream."""
        given = self.delta()
        return {
            "index": self.index,
            "model": self.name,
            **{name: given.get(name) for name in ("content", "reasoning", "tool_calls", "logprobs")},
            "finish_reason": self.finish_reason,
            **self.figures(),
            "error": self.error,
        }

    # -- the same where nothing may tell whose answer it is

    def blind_entry(self) -> dict[str, Any]:
        """What it says, and nothing of its model; of a failure only that there was one."""
        given = self._said()
        said = {name: given.get(name) for name in _SAID}
        return {"index": self.index, **said, "finish_reason": self.finish_reason, "error": self._hidden_error()}

    def blind_events(self) -> bytes:
        """The same as events."""
        error = self._hidden_error()
        if error is not None:
            return event("error", index=self.index, error=error)
        return event("model", index=self.index, delta=self._said(), finish_reason=self.finish_reason)

    def _said(self) -> dict[str, Any]:
        """What it says as one delta. Calls of tools have ids of ours: those of engines look different on each."""
        said = {name: value for name, value in self.delta().items() if name in _SAID}
        if self._calls:
            said["tool_calls"] = [{**call, "id": f"call_{at}"} for at, call in enumerate(self._calls)]
        return said

    def _hidden_error(self) -> dict[str, Any] | None:
        return None if self.is_whole else _members(_NO_ANSWER)

    # -- the parts

    def _kept(self, delta: Delta) -> dict[str, Any]:
        """Keep a delta; what of it is new, as an event shows it."""
        shown: dict[str, Any] = {}
        if delta.text:
            self._text.append(delta.text)
            shown["content"] = delta.text
        if delta.thinking:
            self._thinking.append(delta.thinking)
            shown["reasoning"] = delta.thinking
        if delta.logprobs:
            self._logprobs += delta.logprobs
            shown["logprobs"] = delta.logprobs
        if delta.calls:
            shown["tool_calls"] = [self._call(call) for call in delta.calls]
        self.finish_reason = delta.finish or self.finish_reason
        self._left_bytes -= len(delta.text or "") + len(delta.thinking) + 256 * len(delta.logprobs or ())
        if self._left_bytes < 0:
            raise Broken(self.response.backend or self.name, "its answer is larger than server.max_answer_bytes")
        return shown

    def _call(self, call: CallDelta) -> dict[str, Any]:
        """A part of a tool call in OpenAI's shape; the whole one is kept."""
        if call.is_new:
            function = {"name": call.name, "arguments": call.arguments}
            self._calls.append({"index": call.at, "id": call.id, "type": "function", "function": dict(function)})
            return {"index": call.at, "id": call.id, "type": "function", "function": function}
        known = next(each for each in self._calls if each["index"] == call.at)
        known["function"]["arguments"] += call.arguments
        return {"index": call.at, "function": {"arguments": call.arguments}}

    def _tokens(self) -> dict[str, int] | None:
        usage = self._usage
        if usage is None or usage.is_counted:
            return None
        counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
        return {**counts, "total_tokens": usage.input_tokens + usage.output_tokens}

    def _timing(self) -> dict[str, float | None]:
        asked, first, ended = self.response.asked_at, self._first_at, self._ended_at
        tokens = self._tokens()
        more = tokens["completion_tokens"] - 1 if tokens is not None else 0
        is_measured = first is not None and ended is not None and more > 0 and ended > first
        return {
            "waited_s": _seconds(self.response.arrived, asked),
            "first_token_s": _seconds(asked, first),
            "seconds": _seconds(asked, ended),
            "tokens_per_second": round(more / (ended - first), 2) if is_measured and ended and first else None,
        }


def _seconds(start: float | None, end: float | None) -> float | None:
    return round(end - start, _PRECISION) if start is not None and end is not None else None
