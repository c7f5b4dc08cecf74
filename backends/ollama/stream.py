"""An Ollama daemon's stream (a JSON object per line) as OpenAI's (server-sent events), wherever it is cut. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from backends.errors import Broken, Disconnected, Taken
from backends.http.exchange import ResponseTimings
from backends.ollama.response import ResponseHead, StreamLine, both, line, logprobs, text_of, tool_calls

DONE: Final = b"data: [DONE]\n\n"


class OllamaStreamReader:
    """One stream. `feed` takes bytes as they come and gives whole events; afterwards `error` says what ended it."""

    def __init__(self, head: ResponseHead, max_line_bytes: int = 16 * 1024 * 1024) -> None:
        self.is_done = False
        self.error: Taken | None = None
        self.timings = ResponseTimings()
        self._head = head
        self._is_chat = head.asked.operation == "chat"
        self._kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        self._max = max_line_bytes
        self._pieces: list[bytes] = []  # a line that has begun
        self._size = 0
        self._is_begun = False
        self._calls = 0
        self._length = 0  # of the text whose tokens have been told

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now, possibly none."""
        if self.is_done or self.error is not None:
            return b""
        *lines, rest = data.split(b"\n")
        events: list[bytes] = []
        try:
            if lines:
                lines[0] = b"".join((*self._pieces, lines[0]))
                self._pieces, self._size = [], 0
            for one in lines:
                events.append(self._line(one))  # noqa: PERF401  # those before a failure still go out
            self._keep(rest)
        except Taken as exc:
            self.error = exc
        return b"".join(events)

    def end(self) -> bytes:
        """The stream's bytes are over: what a last line without its end says; Disconnected when it is not finished."""
        if self.is_done:
            return b""
        events = self.feed(b"\n") if self._pieces else b""
        return events if self._is_over() else b""

    def _is_over(self) -> bool:
        """True; raises what made it end before its time."""
        if self.error is not None:
            raise self.error
        if not self.is_done:
            raise Disconnected(self._head.engine, "its stream ended before the answer was finished")
        return True

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self._max:
                raise Broken(self._head.engine, f"it sent a line of more than {self._max} bytes")

    def _line(self, data: bytes) -> bytes:
        if self.is_done or not data.strip():
            return b""  # nothing behind the last line is part of the answer
        found = line(self._head.engine, data, self._head.asked.num_ctx)
        delta, tokens = (self._delta(found) if self._is_chat else self._text(found)), found.logprobs
        events = b"" if delta is None and not tokens else self._event(delta or {}, tokens)
        if found.done is not True:
            return events
        self.is_done = True
        self.timings = found.timings()
        return events + self._last(found) + DONE

    def _delta(self, found: StreamLine) -> dict[str, Any] | None:
        """What one line adds to a chat; None for nothing."""
        message = found.message or {}
        text, thinking = text_of(message, "content"), text_of(message, "thinking")
        calls = tool_calls(message, self._head, self._calls)
        self._calls += len(calls)
        if not text and not thinking and not calls and self._is_begun:
            return None
        delta: dict[str, Any] = {} if self._is_begun else {"role": "assistant", "content": ""}
        if text:
            delta["content"] = text
        delta |= both(thinking)
        if calls:
            delta["tool_calls"] = calls
        self._is_begun = True
        return {"delta": delta}

    def _text(self, found: StreamLine) -> dict[str, Any] | None:
        return {"text": found.response} if found.response else None

    def _event(self, members: dict[str, Any], tokens: list[dict[str, Any]] | None, finish: str | None = None) -> bytes:
        empty: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        choice = {"index": 0, **empty, **members, "finish_reason": finish}
        if tokens:
            choice["logprobs"] = logprobs(tokens, is_chat=self._is_chat, begin=self._length)
            self._length += sum(len(text_of(token, "token")) for token in tokens)
        return self._sse([choice])

    def _last(self, found: StreamLine) -> bytes:
        events = self._event({}, None, found.finish(self._calls > 0))
        return events + self._sse([], usage=found.usage()) if self._head.asked.wants_usage else events

    def _sse(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {**self._head.members(self._kind), "choices": choices, **more}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
