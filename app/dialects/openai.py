"""OpenAI's answers as engines send them: what a stream says in passing, and what is mended. Pure, synchronous.

Every edit made here is listed in docs/wire.md.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from app.dialects import sse
from app.dialects.reason import one_line
from backends.errors import Broken, Disconnected, EngineFailed, Taken

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = "text/event-stream; charset=utf-8"

# Only an event that holds one of these is decoded once the first token has been seen: substring searches cost
# 1 µs, decoding costs 3. Inside a JSON string the quotes would be escaped, so text cannot imitate them.
_MARKS = (
    b'"usage"',
    b'"error"',
    b"[DONE]",
    b'"timings"',
    b'"finish_reason":"',
    b'"finish_reason": "',
    b"data:\n",
    b"data: \n",
    b"\r",  # other line ends than LF are rare: no searches of their own
)
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')


class Tokens(msgspec.Struct, frozen=True):
    """OpenAI's `usage`, what we read of it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


def tokens(usage: Any) -> Tokens | None:
    """A `usage` of any shape; it is for counting only, so one that cannot be read counts as none."""
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    return Tokens(*(max(0, int(n)) if isinstance(n, int | float) and abs(n) < 2**53 else 0 for n in counts))


class Timings(msgspec.Struct, frozen=True):
    """llama.cpp's own count in its last chunk."""

    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


class _Choice(msgspec.Struct, frozen=True):
    index: Any = 0
    finish_reason: str | None = None
    delta: dict[str, Any] | None = None
    text: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: Any = None
    timings: Timings | None = None
    error: Any = None
    model: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """What an answer cost. `is_counted`: the engine gave no usage, output tokens are counted events."""

    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    is_counted: bool = False


_chunks = msgspec.json.Decoder(_Chunk)


class Reader:
    """One stream. `feed` takes bytes as they come and gives whole events."""

    def __init__(self, engine: str, *, name: str, hides_usage: bool, max_event_bytes: int, choices: int = 1) -> None:
        self.has_event = False
        self.has_token = False
        self.is_done = False
        self.error: Taken | None = None
        self.engine = engine
        self._name = name
        self._hides_usage = hides_usage
        self._framer = sse.Framer(max_event_bytes)
        self._rename: tuple[bytes, bytes] | None = None
        self._renamed: str | None = None  # the engine's name that `_rename` is for
        self._finish: str | None = None
        self._choices = choices  # as many as were asked for
        self._begun: set[str] = set()
        self._finished: set[str] = set()
        self._usage: Tokens | None = None
        self._timings: Timings | None = None
        self._events = 0

    def feed(self, chunk: bytes) -> bytes:
        """The whole events to pass on, possibly none; afterwards `error` says what ended the stream, if anything."""
        if self.is_done or self.error is not None:
            return b""
        try:
            whole = self._framer.feed(chunk)
        except ValueError as exc:
            self.error = Broken(self.engine, f"it sent {exc}")
            return b""
        if not whole:
            return b""
        if self.has_token and not any(mark in whole for mark in _MARKS):
            self._events += whole.startswith(b"data:") + whole.count(b"\ndata:")
            return whole.replace(*self._rename) if self._rename else whole
        kept: list[bytes] = []
        for event in sse.split(whole):
            try:
                kept.append(self._event(event))
            except Taken as exc:
                self.error = exc  # what came whole before it still goes out
                break
        return b"".join(kept)

    def end(self) -> bytes:
        """The stream's bytes are over: the end mark it lacked, or Disconnected when it was not finished."""
        if self.is_done:
            return b""
        rest = sse.data(self._framer.rest())
        if not self.is_finished and (rest is None or rest.strip() != b"[DONE]"):
            raise Disconnected(self.engine, "its stream ended before the answer was finished")
        self.is_done = True
        return DONE

    @property
    def is_finished(self) -> bool:
        """Whether every choice has its finish_reason: the answer is complete, whatever happens to the connection."""
        return len(self._finished) >= self._choices and self._begun <= self._finished

    def settle(self) -> Settlement:
        """What has been seen so far; may be asked at any time."""
        usage = self._usage
        if usage is not None and usage.completion_tokens:
            return Settlement(usage.prompt_tokens, usage.completion_tokens, self._finish)
        if self._timings is not None:
            t = self._timings
            return Settlement(t.prompt_n + t.cache_n, t.predicted_n, self._finish)
        # Ollama says zero in every event but the last.
        known = usage.prompt_tokens if usage is not None else 0
        return Settlement(known, self._events, self._finish, is_counted=self._events > 0 or usage is None)

    def _event(self, event: bytes) -> bytes:
        if self.is_done:
            return b""  # nothing behind the end mark is part of the answer
        data = sse.data(event)
        if data is None:
            return event if self.has_event else b""  # a comment before the first event is ours to send (dispatch)
        if data.strip() == b"[DONE]":
            self.is_done = True
            return DONE
        if data.strip() in (b"", b"null"):
            return b""  # llama.cpp begins the completion of several prompts with a null
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Broken(self.engine, "it sent an event that is not a chunk of an answer") from exc
        if chunk.error is not None:
            raise EngineFailed(self.engine, one_line(chunk.error))
        return self._chunk(chunk, event)

    def _chunk(self, chunk: _Chunk, event: bytes) -> bytes:
        self.has_event = True
        usage = tokens(chunk.usage)
        self._usage = usage or self._usage
        self._timings = chunk.timings or self._timings
        has_text = is_last = False
        for choice in chunk.choices or ():
            self._begun.add(str(choice.index))
            if choice.finish_reason is not None:
                self._finish = choice.finish_reason
                self._finished.add(str(choice.index))
            is_last = is_last or choice.finish_reason is not None
            if choice.text or (choice.delta and any(v for k, v in choice.delta.items() if k != "role")):
                has_text = True
        # Once there was a token, an event that says nothing else counts as one: `feed` does not look into it either.
        is_plain = bool(chunk.choices) and not is_last
        self.has_token = self.has_token or has_text
        self._events += has_text or (self.has_token and is_plain)
        if self._hides_usage and usage is not None and not chunk.choices:
            return b""
        if chunk.model and chunk.model != self._renamed:
            self._renamed, self._rename = chunk.model, renaming(event, chunk.model, self._name)
        return event.replace(*self._rename) if self._rename else event


def renaming(data: bytes, engine_name: str, name: str) -> tuple[bytes, bytes] | None:
    """What to replace so that an answer carries the name the client used; None when it already does."""
    if engine_name == name:
        return None
    for match in _MODEL.finditer(data):
        if _is_json(match.group(1), engine_name):
            old = match.group(0)
            return old, old[: -len(match.group(1))] + msgspec.json.encode(name)
    return None


def _is_json(text: bytes, value: str) -> bool:
    """Engines escape as they like: a slash, a quote or a letter beyond ASCII has more than one spelling."""
    try:
        return bool(msgspec.json.decode(text) == value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
