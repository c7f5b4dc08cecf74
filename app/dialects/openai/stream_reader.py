"""OpenAI's streams as engines send them: what is counted, what is changed, what ends them. Pure, synchronous.

docs/wire.md lists everything that is changed here.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, Final

import msgspec

from app.dialects import sse
from app.dialects.client_api import ResponseEncoder
from app.dialects.delta import DeltaReader
from app.dialects.error_text import one_line
from app.dialects.openai.fast_path import Template, compile_delta_template, compile_template
from app.dialects.openai.normalize import ResponseContext, StreamNormalizer, failure
from app.dialects.openai.usage_sum import UsageSum
from app.dialects.usage import EngineStats, LlamaTimings, Usage, cached_tokens, settled, timings, tokens
from backends.errors import Broken, Disconnected, Taken
from backends.http.delta import Delta, TokenCounts
from backends.prompt_too_long import failed

DONE = b"data: [DONE]\n\n"

# Kinds of event that are known at a time: one for each choice, or for text, thinking and the calls of tools.
MAX_TEMPLATES = 4
# To compile a template costs as much as three events: too much for a stream in which no kind comes twice.
MAX_COMPILED = 8
_DONE: Final = object()
_NOT_JSON: Final = object()
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')


class StreamReader:
    """One stream. `feed` takes bytes as they come and gives what the client gets for the whole events in them.

    `encoder`: the client's, where it speaks another dialect than OpenAI's; the end of such a stream is the encoder's.
    """

    def __init__(
        self,
        context: ResponseContext,
        *,
        hides_usage: bool,
        max_event_bytes: int,
        choices: int = 1,
        encoder: ResponseEncoder | None = None,
    ) -> None:
        self.has_event = False
        self.has_token = False
        self.is_done = False
        self.error: Taken | None = None
        self.stats = EngineStats()
        self.engine = context.engine
        self._name = context.name
        self._encoder = encoder
        self._deltas = DeltaReader(context.token)
        self._done = DONE if encoder is None else b""
        self._normalizer = StreamNormalizer(context)
        self._templates: list[Template] = []  # the latest first
        self._compilations_left = MAX_COMPILED
        self._hides_usage = hides_usage
        self._framer = sse.Framer(max_event_bytes)
        self._is_at_start = True
        self._rename: tuple[bytes, bytes] | None = None
        self._renamed: str | None = None  # the engine's name that `_rename` is for
        self._finish: str | None = None
        self._choices = choices  # as many as were asked for
        self._usage: TokenCounts | None = None
        self._timings: LlamaTimings | None = None
        self._sum = UsageSum(context.reports, context.copies) if context.reports > 1 else None
        self._copies = context.copies
        self._events = 0

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets now, possibly nothing; afterwards `error` says what ended the stream, if anything."""
        if self.is_done or self.error is not None:
            return b""
        try:
            whole = self._framer.feed(chunk)
        except ValueError as exc:
            self.error = Broken(self.engine, f"it sent {exc}")
            return b""
        if not whole:
            return b""
        for template in self._templates:
            filled = template.fill(whole)
            if filled is not None:
                self._events += filled[0]
                self._compilations_left = MAX_COMPILED
                return filled[1]
        return self._each(sse.split(whole))

    @property
    def is_learned(self) -> bool:
        """Whether an event is known of which others differ in their text only, and `pass_chunks` may be asked."""
        return bool(self._templates)

    def pass_chunks(self, framed: bytes) -> bytes | None:
        """What the client gets for bytes that begin with a chunk of HTTP: chunks, too, mostly the very same. None where
        they are not whole chunks with a known event in each, and have to be unpacked for `feed`; nothing was read then.
        """
        # Of other line ends it is not certain before the next byte that they end an event.
        if self._framer.begun or not framed.endswith(b"\n\n\r\n"):
            return None
        for template in self._templates:
            made = template.fill_chunk(framed)
            if made is not None:
                self._events += 1
                self._compilations_left = MAX_COMPILED
                return made
        for template in self._templates:
            filled = template.fill_chunks(framed)
            if filled is not None:
                self._events += filled[0]
                self._compilations_left = MAX_COMPILED
                return filled[1]
        return None

    def end(self) -> bytes:
        """The stream's bytes are over: what the client gets for the rest, as far as it is whole, and the end mark.
        Raises Disconnected when the answer was not finished.
        """
        if self.is_done:
            return b""
        rest = self._framer.rest()
        # An event without the blank line behind it counts when its data is whole.
        is_complete = _is_complete(sse.data_lines(rest) or [rest])
        events = self._each([rest.rstrip(b"\r\n") + b"\n\n"]) if is_complete else b""
        if self.error is not None:
            raise self.error
        return events + self._end_mark()

    @property
    def is_finished(self) -> bool:
        """Whether every choice has its finish_reason: the response is complete, whatever happens to the connection."""
        return self._normalizer.finished >= self._choices and not self._normalizer.is_open

    def settle(self) -> Usage:
        """What the stream has cost until now; may be asked at any time."""
        is_counted_by_engine = self._usage is not None and self._usage.completion_tokens
        if self._timings is not None and not is_counted_by_engine:
            t = self._timings
            cached, prompt = t.cache_n // self._copies, (t.prompt_n + t.cache_n) // self._copies
            return Usage(prompt, t.predicted_n, self._finish, cached_tokens=cached)
        return settled(self._usage, self._finish, self._events, self.stats)

    def _each(self, events: list[bytes]) -> bytes:
        kept: list[bytes] = []
        for event in events:
            try:
                kept.append(self._event(event))
            except Taken as exc:
                self.error = exc  # what came whole before it still goes out
            if self.error is not None:
                break
        return b"".join(kept)

    def _event(self, event: bytes) -> bytes:
        if self.is_done:
            return b""  # nothing behind the end mark is part of the response
        if self._is_at_start:
            event, self._is_at_start = event.removeprefix(codecs.BOM_UTF8), False
        for template in self._templates:
            filled = template.fill(event)
            if filled is not None:
                self._events += 1
                return filled[1]
        lines = sse.data_lines(event)
        if not lines:
            return self._without_data(event)
        value = _decoded(b"\n".join(lines))
        if value is not _NOT_JSON:
            return self._value(value, event, is_error=sse.name(event) == b"error")
        if len(lines) > 1 and _is_complete(lines):  # no blank lines between the events
            return self._each([b"data: " + line + b"\n\n" for line in lines])
        if sse.name(event) == b"error":
            text = b" ".join(lines).decode("utf-8", "replace")
            raise failed(self.engine, text, one_line(text))
        raise self._not_a_chunk()

    def _without_data(self, event: bytes) -> bytes:
        """What the client gets for a comment, or for an error that is written as bare JSON or behind `error:`."""
        text = event.strip()
        is_error = text.startswith(b"error:")
        if not is_error and not text.startswith(b"{"):
            # Before the first event comments are the gateway's own; other dialects have none from engines.
            return sse.plain(event) if self.has_event and self._encoder is None else b""
        value = _decoded(text.removeprefix(b"error:"))
        if value is _NOT_JSON:
            raise self._not_a_chunk()
        return self._value(value, b"data: " + msgspec.json.encode(value) + b"\n\n", is_error=is_error)

    def _value(self, value: Any, event: bytes, *, is_error: bool) -> bytes:
        if value is None or value is _DONE:
            return self._mark(value)
        if is_error and not isinstance(value, dict):
            raise failed(self.engine, value, one_line(value))
        if not isinstance(value, dict):
            raise self._not_a_chunk()
        if is_error and failure(value) is None:
            raise failed(self.engine, value, one_line(value))
        return self._chunk(value, event)

    def _mark(self, value: object) -> bytes:
        """The end mark; or an event without data, which llama.cpp begins the completion of several prompts with."""
        if value is None:
            return b""
        if self.has_event and (self._normalizer.is_open or not self._normalizer.finished):
            raise self._unfinished()
        self.is_done = True
        return self._done

    def _chunk(self, chunk: dict[str, Any], given: bytes) -> bytes:
        event = sse.plain(given)
        model = chunk.get("model")
        if model and isinstance(model, str) and model != self._renamed:
            self._renamed, self._rename = model, renaming(event, model, self._name)
        is_changed = self._normalizer.normalize(chunk)
        self.has_event = True
        choices = chunk["choices"]
        if chunk.get("usage") or chunk.get("timings"):
            self.stats.note(chunk.get("usage"), chunk.get("timings"))
        self._timings = self._timed(chunk) or self._timings
        if self._sum is not None:
            is_changed = self._add_up(self._sum, chunk) or is_changed
            if not choices and "usage" not in chunk:
                return b""
        usage = tokens(chunk.get("usage"))
        self._usage = usage or self._usage
        has_text = any(_has_text(choice) for choice in choices)
        ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None]
        self._finish = ends[-1] if ends else self._finish
        # Once there was a token, an event that says nothing else counts as one: a template does not look into it.
        self.has_token = self.has_token or has_text
        is_plain = bool(choices) and not ends
        self._events += has_text or self._normalizer.is_held or (self.has_token and is_plain)
        if self._hides_usage and usage is not None and not choices:
            return b""
        written = self._written(chunk, event, is_changed=is_changed)
        if is_changed and any(_delta(choice).get("tool_calls") for choice in choices):
            self._templates = []  # the same bytes may now belong to another call
        elif has_text and not ends and len(choices) == 1:
            self._learn(given)
        return written

    def _add_up(self, total: UsageSum, chunk: dict[str, Any]) -> bool:
        """One usage for all choices, at the end; whether the chunk changed."""
        usage = chunk.pop("usage", None)
        if not isinstance(usage, dict):
            return False
        is_last = total.add(usage)
        self._usage = tokens(total.usage)
        if is_last:
            chunk["usage"] = total.usage
            self.stats.cached = cached_tokens(total.usage)
        return True

    def _timed(self, chunk: dict[str, Any]) -> LlamaTimings | None:
        """llama.cpp's counts, added up over the choices until now."""
        latest, before = timings(chunk.get("timings")), self._timings
        if latest is None or before is None or self._sum is None:
            return latest
        counts = zip(msgspec.structs.astuple(before), msgspec.structs.astuple(latest), strict=True)
        return LlamaTimings(*(one + other for one, other in counts))

    def _written(self, chunk: dict[str, Any], event: bytes, *, is_changed: bool) -> bytes:
        """What the client gets for a sound chunk; `event` are its bytes before it was changed."""
        if self._encoder is not None:
            try:
                return self._encoder.next(self._deltas.read(chunk))
            except ValueError as exc:
                raise Broken(self.engine, f"it sent {exc}") from exc
        if is_changed:
            return b"data: " + msgspec.json.encode(chunk | {"model": self._name}) + b"\n\n"
        return event.replace(*self._rename) if self._rename else event

    def _learn(self, event: bytes) -> None:
        """Compile a template, by which events that differ from this one in their text only are known."""
        if self._compilations_left == 0 or not self._normalizer.is_settled:
            return
        self._compilations_left -= 1
        if self._encoder is None:
            template = compile_template(event, self._remade)
        else:
            template = compile_delta_template(event, self._delta_of, self._encoder.next)
        if template is not None:
            self._templates = [template, *self._templates[: MAX_TEMPLATES - 1]]

    def _remade(self, event: bytes) -> bytes:
        chunk = _decoded(sse.data(event) or b"")
        return self._written(chunk, sse.plain(event), is_changed=self._normalizer.normalize(chunk))

    def _delta_of(self, event: bytes) -> Delta:
        chunk = _decoded(sse.data(event) or b"")
        self._normalizer.normalize(chunk)
        return self._deltas.read(chunk)

    def _end_mark(self) -> bytes:
        """The end mark of a stream without one; nothing where it has come."""
        if self.is_done:
            return b""
        if not self.is_finished:
            raise self._unfinished()
        self.is_done = True
        return self._done

    def _not_a_chunk(self) -> Broken:
        return Broken(self.engine, "it sent an event that is not a chunk of an answer")

    def _unfinished(self) -> Disconnected:
        return Disconnected(self.engine, "its stream ended before the answer was finished")


def _decoded(data: bytes) -> Any:
    """The JSON in an event's data; _DONE for the end mark, None for no data, _NOT_JSON for anything else."""
    if data == b"[DONE]":
        return _DONE
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = data.strip()
        return _DONE if text == b"[DONE]" else _NOT_JSON if text else None


def _is_complete(lines: list[bytes]) -> bool:
    """Whether there is a line, and each of them is JSON or a mark by itself."""
    return any(line.strip() for line in lines) and all(_decoded(line) is not _NOT_JSON for line in lines)


def _has_text(choice: dict[str, Any]) -> bool:
    if choice.get("text"):
        return True
    return any(value for name, value in _delta(choice).items() if name != "role")


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice's delta; empty where it has none, as in completions, where anything may stand in its place."""
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}


def renaming(data: bytes, engine_name: str, name: str) -> tuple[bytes, bytes] | None:
    """The bytes to replace, and by which, so that a response carries the client's name for the model; None where it
    does.
    """
    if engine_name == name:
        return None
    for match in _MODEL.finditer(data):
        if _is_json(match.group(1), engine_name):
            old = match.group(0)
            return old, old[: -len(match.group(1))] + msgspec.json.encode(name)
    return None


def _is_json(text: bytes, value: str) -> bool:
    """Whether this JSON is that string: a slash, a quote or a letter beyond ASCII has more than one spelling."""
    try:
        return bool(msgspec.json.decode(text) == value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
