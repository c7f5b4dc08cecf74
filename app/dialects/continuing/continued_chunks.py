"""What an engine writes that goes on with an answer, as chunks of the stream that the first engine began. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.dialects import sse
from app.dialects.continuing.token_record import TokenRecord
from backends.errors import Broken

_OF_ONE_CHUNK: Final = ("choices", "usage", "timings", "prompt_token_ids")


class ContinuedChunks:
    """The stream of a completion, written anew: with the id, the time, the name and the index of the stream that it
    goes on with, and usage as if one engine had written all of it.

    `kept`: tokens of the answer that this engine was given. `repeats`: the text that it writes first, and that the
    client has: it is left out. `wants_usage`: a chat's usage is to come in an event of its own.
    """

    def __init__(
        self,
        record: TokenRecord,
        *,
        engine: str,
        kept: int,
        repeats: str,
        wants_usage: bool,
        max_event_bytes: int,
    ) -> None:
        first = record.first or {}
        self._engine = engine
        self._head = {name: value for name, value in first.items() if name not in _OF_ONE_CHUNK}
        choices = first.get("choices") or [{}]
        self._choice = {name: value for name, value in choices[0].items() if name not in ("delta", "text")}
        self._is_chat = record.operation == "chat"
        self._kept = kept
        self._repeats = repeats
        self._wants_usage = wants_usage
        self._framer = sse.Framer(max_event_bytes)

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the engine's, as events of the first stream. Raises Broken where it writes another text
        than the client has."""
        try:
            whole = self._framer.feed(data)
        except ValueError as exc:
            raise Broken(self._engine, f"it sent {exc}") from exc
        return b"".join([self._event(event) for event in sse.split(whole)]) if whole else b""

    def _event(self, event: bytes) -> bytes:
        data = sse.data(event)
        if data is None:
            return b""
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event  # the end mark; whoever reads the stream knows what else it may be
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            return event
        self._correct(chunk)
        if not choices:
            return self._written(chunk, [])
        return self._of_choice(chunk, choices[0])

    def _of_choice(self, chunk: dict[str, Any], choice: dict[str, Any]) -> bytes:
        text, reason = choice.get("text"), choice.get("finish_reason")
        text = self._new(text) if isinstance(text, str) else ""
        if reason is not None and self._repeats:
            raise Broken(self._engine, "it did not write what the client had already")
        if not text and reason is None and "usage" not in chunk:
            return b""
        now: dict[str, Any] = {**self._choice, "finish_reason": reason}
        if "stop_reason" in choice:
            now["stop_reason"] = choice["stop_reason"]
        if self._is_chat:
            now["delta"] = {"content": text} if text else {}
        else:
            now["text"] = text
        usage = chunk.pop("usage", None) if self._is_chat and reason is not None else None
        written = self._written(chunk, [now])
        return written + self._written({"usage": usage}, []) if usage and self._wants_usage else written

    def _new(self, text: str) -> str:
        """The part of a text that the client has not got yet."""
        repeats = self._repeats
        if not repeats:
            return text
        size = min(len(repeats), len(text))
        if text[:size] != repeats[:size]:
            raise Broken(self._engine, "it did not write what the client had already")
        self._repeats = repeats[size:]
        return text[size:]

    def _correct(self, chunk: dict[str, Any]) -> None:
        """Count the tokens that it was given as ones that it wrote."""
        usage, timings = chunk.get("usage"), chunk.get("timings")
        if isinstance(usage, dict):
            for name, more in (("prompt_tokens", -self._kept), ("completion_tokens", self._kept)):
                if type(usage.get(name)) is int:
                    usage[name] = max(0, usage[name] + more)
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict) and type(details.get("cached_tokens")) is int:
                details["cached_tokens"] = min(details["cached_tokens"], usage.get("prompt_tokens") or 0)
        if isinstance(timings, dict):
            left = self._kept
            for name in ("prompt_n", "cache_n"):
                count = timings.get(name)
                if type(count) is int:
                    taken = min(left, count)
                    timings[name], left = count - taken, left - taken
            if type(timings.get("predicted_n")) is int:
                timings["predicted_n"] += self._kept

    def _written(self, chunk: dict[str, Any], choices: list[dict[str, Any]]) -> bytes:
        more = {name: chunk[name] for name in ("usage", "timings") if name in chunk}
        return b"data: " + msgspec.json.encode({**self._head, "choices": choices, **more}) + b"\n\n"
