"""A whole response put together from the chunks of a stream. Pure.

For engines that notice that a client has gone only while they stream to it
(docs/decisions.md, "Whole answers from streams"). What comes out is what the engine itself sends where it is
not asked for a stream.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.dialects import sse

_OBJECTS: Final = {"chat.completion.chunk": "chat.completion"}
# Texts that come whole; every other text is continued by the next chunk.
_ONCE: Final = frozenset({"role", "id", "type", "name", "finish_reason", "object"})


class Collector:
    """One response. `add` each event, normalized ones only (by `stream_reader.py`), then take `response`."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[Any, dict[str, Any]] = {}

    def add(self, event: bytes) -> None:
        """Take over what one whole event says."""
        data = sse.data(event)
        if data is None or data.strip() == b"[DONE]":
            return
        chunk: dict[str, Any] = msgspec.json.decode(data)
        for name, value in chunk.items():
            if name != "choices" and (value is not None or name not in self._head):
                self._head[name] = value
        for choice in chunk.get("choices") or ():
            index = choice.get("index", 0)
            _merge(self._choices.setdefault(index, {"index": index}), choice)

    def response(self) -> bytes:
        """The response that says what all events have said."""
        choices = [_choice(choice) for _, choice in sorted(self._choices.items(), key=lambda item: str(item[0]))]
        kind = str(self._head.get("object"))
        named = {name: self._head[name] for name in ("id", "object", "created", "model") if name in self._head}
        if kind in _OBJECTS:
            named["object"] = _OBJECTS[kind]
        return msgspec.json.encode(
            {**named, "choices": choices, **{k: v for k, v in self._head.items() if k not in named}}
        )


class _Text(list[str]):
    """A text in pieces, joined once at the end."""


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = _joined(choice)
    if "delta" in whole:
        message = whole.pop("delta")
        if message.get("content") is None and not message.get("tool_calls"):
            message["content"] = ""
        for call in message.get("tool_calls") or ():
            call.pop("index", None)
        whole["message"] = {"role": "assistant", **message}
    return whole


def _merge(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        before = whole.get(name)
        if value is None or (name in _ONCE and before):
            whole.setdefault(name, None)
        elif isinstance(value, str) and name not in _ONCE:
            whole[name] = before if isinstance(before, _Text) else _Text()
            whole[name].append(value)
        elif isinstance(value, dict):
            whole[name] = before if isinstance(before, dict) else {}
            _merge(whole[name], value)
        elif name == "tool_calls" and isinstance(value, list):
            whole[name] = before if isinstance(before, list) else []
            _merge_calls(whole[name], value)
        elif isinstance(value, list):
            whole[name] = before if isinstance(before, list) else []
            whole[name].extend(value)
        else:
            whole[name] = value


def _merge_calls(calls: list[dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    for piece in pieces:
        index = piece.get("index", 0)
        call = next((one for one in calls if one.get("index", 0) == index), None)
        if call is None:
            call = {"index": index}
            calls.append(call)
        _merge(call, piece)


def _joined(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    return [_joined(inner) for inner in value] if isinstance(value, list) else value
