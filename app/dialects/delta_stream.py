"""Streams of engines that do not speak OpenAI's API: deltas come in, the client's bytes go out. Pure, synchronous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.dialects.openai.normalize import GAVE_UP, ResponseContext
from app.dialects.reasoning import splitter
from app.dialects.usage import EngineStats, Usage, settled
from backends.errors import Broken, Disconnected, EngineFailed, Taken
from backends.finish_reasons import OPENAI
from backends.http.delta import Delta, TokenCounts


class DeltaEncoder(Protocol):
    """Makes a client's events of deltas."""

    def next(self, delta: Delta) -> bytes:
        """The events for the next delta, possibly none; ValueError for what cannot be put into the client's dialect."""
        ...


class DeltaStream:
    """One stream, of one choice. It is used as StreamReader is, but takes deltas where that takes bytes."""

    def __init__(self, context: ResponseContext, encoder: DeltaEncoder) -> None:
        self.has_event = False
        self.has_token = False
        self.is_done = False
        self.error: Taken | None = None
        self.stats = EngineStats()
        self.engine = context.engine
        self._encode = encoder.next
        # Only chats have thinking; None where the text is left alone, or no tag can come any more.
        self._splitter = splitter(context.reasoning) if context.operation == "chat" else None
        self._finish: str | None = None
        self._usage: TokenCounts | None = None
        self._events = 0

    def feed(self, deltas: Sequence[Delta]) -> bytes:
        """What the client gets for these; afterwards `error` says what ended the stream, if anything."""
        out: list[bytes] = []
        for delta in deltas:
            if self.is_done or self.error is not None:
                break
            shown = delta if self._splitter is None else self._split(delta)
            if delta.finish is not None and delta.finish not in OPENAI:
                self.error = EngineFailed(self.engine, GAVE_UP)
                break
            self.has_event = True
            has_text = bool(shown.text or shown.thinking or shown.calls)
            is_held = bool(delta.text) and not has_text
            self.has_token = self.has_token or has_text
            # Once there was a token, a delta that adds nothing counts as one, as in OpenAI's streams; the end does not.
            self._events += has_text or is_held or (self.has_token and delta.finish is None)
            self._usage = delta.usage or self._usage
            self._finish = delta.finish
            self.is_done = delta.finish is not None
            try:
                out.append(self._encode(shown))
            except ValueError as exc:
                self.error = Broken(self.engine, f"it sent {exc}")
        return b"".join(out)

    def end(self) -> bytes:
        """No more comes: nothing is left to write. Raises Disconnected when the response was not finished."""
        if self.error is not None:
            raise self.error
        if not self.is_done:
            raise Disconnected(self.engine, "its stream ended before the answer was finished")
        return b""

    @property
    def is_finished(self) -> bool:
        """Whether the response is complete, whatever happens to the connection."""
        return self.is_done

    def settle(self) -> Usage:
        """What the stream has cost until now; may be asked at any time."""
        return settled(self._usage, self._finish, self._events, self.stats)

    def _split(self, delta: Delta) -> Delta:
        """Thinking out of the text, unless the engine tells them apart itself."""
        split = self._splitter
        assert split is not None
        if delta.thinking or delta.finish is not None:
            thinking, text = split.end()
            if not thinking and not text:
                return delta
            return msgspec.structs.replace(
                delta, thinking=delta.thinking + thinking, text=(delta.text or "") + text if text else delta.text
            )
        if not delta.text:
            return delta
        thinking, text = split.feed(delta.text)
        if split.is_over:
            self._splitter = None
        return delta if text == delta.text else msgspec.structs.replace(delta, thinking=thinking, text=text)
