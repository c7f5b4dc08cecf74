"""Tool calls made safe: numbered from 0, each with id, type and name in its first piece, arguments as text. Pure.

openai-python puts `id` and `name` together from every piece that has one, finds a call by its number in a list, and
the AI SDK refuses a first piece that lacks one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(slots=True)
class _Call:
    at: int
    id: str
    is_own_id: bool  # the engine's
    name: str = ""
    is_begun: bool = False  # its first piece has gone out
    held: list[str] = field(default_factory=list)  # arguments that came before the name


class Calls:
    """The calls of one choice of a stream. ValueError for what is none."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}  # as the engine numbers them

    def mend(self, delta: dict[str, Any]) -> bool:
        """Put the pieces in a delta right; whether anything changed. A call without a name waits for it."""
        found, is_changed = delta.get("tool_calls"), False
        if found is None:
            return False
        if isinstance(found, dict):
            found, is_changed = [found], True
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ValueError("a tool call that is none")
        kept = []
        for entry in found:
            is_said, is_other = self._piece(entry)
            is_changed = is_changed or is_other
            kept += [entry] if is_said else []
        if is_changed:
            delta["tool_calls"] = kept
            if not kept:
                del delta["tool_calls"]
        return is_changed

    def end(self) -> None:
        """The answer is finished; ValueError when a call still waits for its name."""
        if any(not call.is_begun for call in self._calls):
            raise ValueError("a tool call without a name")

    def _piece(self, entry: dict[str, Any]) -> tuple[bool, bool]:
        """Whether it goes out now, and whether it was changed."""
        before = dict(entry)
        if entry.get("type") not in (None, "", "function"):  # OpenAI's `custom`: only its number and id are ours
            call = self._find(entry, "custom")
            call.is_begun = True
            entry["index"] = call.at
            entry.setdefault("id", call.id)
            return True, entry != before
        function = entry.get("function")
        if not isinstance(function, dict | None):
            raise ValueError("a tool call without a function")
        function = dict(function or {})
        name = text_of(function.get("name"))
        call = self._find(entry, name)
        entry["index"] = call.at
        if "arguments" in function and function["arguments"] is not None:
            function["arguments"] = arguments(function["arguments"])
        if call.is_begun:
            if name == call.name or not name:
                function.pop("name", None)
            if entry.get("id") in (call.id, None, ""):
                entry.pop("id", None)
        else:
            call.held.append(function.get("arguments") or "")
            if not name:
                return False, True
            call.name, call.is_begun = name, True
            function |= {"name": name, "arguments": "".join(call.held)}
            entry |= {"id": call.id, "type": "function"}
        if function != entry.get("function"):
            entry["function"] = function
        return True, entry != before

    def _find(self, entry: dict[str, Any], name: str) -> _Call:
        """The call that a piece belongs to. Some engines number none, some give every call the same number."""
        index, own = entry.get("index"), text_of(entry.get("id"))
        if isinstance(index, int) and not isinstance(index, bool):
            call = self._by_index.get(index)
            is_other = call is not None and call.is_own_id and own not in ("", call.id) and bool(name)
            if call is None or is_other:
                call = self._by_index[index] = self._new(own)
        else:
            same = next((each for each in self._calls if own and each.id == own), None)
            is_new = not self._calls or (bool(own or name) and same is None)
            call = self._new(own) if is_new else same or self._calls[-1]
        if own and not call.is_own_id and not call.is_begun:
            call.id, call.is_own_id = own, True
        return call

    def _new(self, own: str) -> _Call:
        at = len(self._calls)
        call = _Call(at, own or f"call_{self._token}{at}", bool(own))
        self._calls.append(call)
        return call


def mend_whole(message: dict[str, Any], token: str) -> bool:
    """The calls of a whole message; whether anything changed. ValueError for what is no call."""
    found = message.get("tool_calls")
    if found is None:
        return False
    entries = [found] if isinstance(found, dict) else found
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ValueError("a tool call that is none")
    whole = [_whole(entry, f"call_{token}{at}") for at, entry in enumerate(entries)]
    if whole == found:
        return False
    message["tool_calls"] = whole
    return True


def _whole(entry: dict[str, Any], spare: str) -> dict[str, Any]:
    kind = text_of(entry.get("type")) or "function"
    whole = {**entry, "id": text_of(entry.get("id")) or spare, "type": kind}
    if kind == "function":
        function = entry.get("function")
        if not isinstance(function, dict) or not text_of(function.get("name")):
            raise ValueError("a tool call without a name")
        whole["function"] = {**function, "arguments": arguments(function.get("arguments"))}
    return whole


def arguments(value: Any) -> str:
    """As text, however an engine writes them."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def text_of(value: Any) -> str:
    """A text member; what is no text counts as none."""
    return value if isinstance(value, str) else ""
