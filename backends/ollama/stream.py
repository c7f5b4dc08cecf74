"""An Ollama daemon's stream (a JSON object per line) as deltas, wherever it is cut. Pure."""

from __future__ import annotations

from backends.errors import Broken, Disconnected, Taken
from backends.http.delta import Delta, TokenCounts
from backends.http.exchange import ResponseTimings
from backends.ollama.response import ResponseHead, line, logprobs_of, tool_calls


class OllamaStreamReader:
    """One stream. `feed` takes bytes as they come and gives deltas; afterwards `error` says what ended the stream."""

    def __init__(self, head: ResponseHead, max_line_bytes: int = 16 * 1024 * 1024) -> None:
        self.is_done = False
        self.error: Taken | None = None
        self.timings = ResponseTimings()
        self._head = head
        self._is_chat = head.asked.operation == "chat"
        self._max = max_line_bytes
        self._pieces: list[bytes] = []  # a line that has begun
        self._size = 0
        self._is_begun = False
        self._calls = 0

    def feed(self, data: bytes) -> list[Delta]:
        """What the lines say that are whole now, possibly nothing."""
        deltas: list[Delta] = []
        if self.is_done or self.error is not None:
            return deltas
        *lines, rest = data.split(b"\n")
        try:
            if lines:
                lines[0] = b"".join((*self._pieces, lines[0]))
                self._pieces, self._size = [], 0
            for each in lines:
                if each.strip() and not self.is_done:  # nothing behind the last line is part of the response
                    self._read(each, deltas)
            if rest:
                self._keep(rest)
        except Taken as exc:
            self.error = exc
        return deltas

    def end(self) -> list[Delta]:
        """The stream's bytes are over: what a last line without its end says; Disconnected when it is not finished."""
        if self.is_done:
            return []
        deltas = self.feed(b"\n") if self._pieces else []
        return deltas if self._is_over() else []

    def _is_over(self) -> bool:
        """True; raises what made it end before its time."""
        if self.error is not None:
            raise self.error
        if not self.is_done:
            raise Disconnected(self._head.engine, "its stream ended before the answer was finished")
        return True

    def _keep(self, rest: bytes) -> None:
        self._pieces.append(rest)
        self._size += len(rest)
        if self._size > self._max:
            raise Broken(self._head.engine, f"it sent a line of more than {self._max} bytes")

    def _read(self, data: bytes, deltas: list[Delta]) -> None:
        """Add what one line says: what it adds to the response, if anything, and the response's end."""
        one = line(self._head.engine, data, self._head.asked.num_ctx)
        logprobs = logprobs_of(one.logprobs)
        if not self._is_chat:
            if one.response or logprobs:
                deltas.append(Delta(one.response or None, logprobs=logprobs))
        else:
            message = one.message or {}
            text, thinking = message.get("content"), message.get("thinking")
            thinking = thinking if isinstance(thinking, str) else ""
            calls = tool_calls(message, self._head, self._calls) if "tool_calls" in message else ()
            self._calls += len(calls)
            # The first delta of a chat is one even if it says nothing: the response has begun.
            added = text if text and isinstance(text, str) else None if self._is_begun else ""
            if added is not None or thinking or calls or logprobs:
                deltas.append(Delta(added, thinking, calls, logprobs))
                self._is_begun = True
        if one.done is True:
            self.is_done = True
            self.timings = one.timings()
            counts = TokenCounts(*one.counts())
            usage = counts if self._head.asked.wants_usage else None
            deltas.append(Delta(finish=one.finish(self._calls > 0), usage=usage))
