"""Tool calls made safe: numbered from 0, each with id, type and name in its first part, arguments as text. Pure.

A call without arguments gets `{}` when it is finished, since clients decode them; one that was cut off may only lack
them yet.

openai-python puts `id` and `name` together from every part that has one, and finds a call by its number in a list; the
AI SDK refuses a first part that lacks one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

NOTHING: Final = "{}"


@dataclass(slots=True)
class _Call:
    at: int
    id: str
    is_own_id: bool  # the engine's
    index: int | None = None  # as the engine numbers it
    has_arguments: bool = False
    name: str = ""
    is_begun: bool = False  # its first part has gone out
    held: list[str] = field(default_factory=list)  # arguments that came before the name


class ToolCalls:
    """The calls of one choice of a stream. ValueError for what is not a valid call."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}  # as the engine numbers them, the latest of each number
        self._old: _Call | None = None  # `function_call`, which there was before there were several

    @property
    def is_settled(self) -> bool:
        """Whether every call that has begun has arguments."""
        return all(call.has_arguments for call in self._calls)

    def normalize(self, delta: dict[str, Any]) -> bool:
        """Put the parts of calls in a delta right; whether anything changed. A call without a name waits for it."""
        given, is_changed = delta.get("tool_calls"), self._former(delta)
        if given is None:
            return is_changed
        entries = _listed(given)
        is_changed = is_changed or entries is not given
        kept = []
        for entry in entries:
            is_ready, is_other = self._part(entry)
            is_changed = is_changed or is_other
            kept += [entry] if is_ready else []
        if is_changed:
            delta["tool_calls"] = kept
            if not kept:
                del delta["tool_calls"]
        return is_changed

    def end(self, delta: dict[str, Any], *, is_cut: bool) -> bool:
        """The response is finished with this delta; whether the delta changed. ValueError for a call without a name."""
        if any(not call.is_begun for call in self._calls):
            raise ValueError("a tool call without a name")
        if is_cut:
            return False
        bare = [call for call in self._calls if not call.has_arguments]
        entries = delta.get("tool_calls") or []
        for call in bare:
            own = next((entry for entry in entries if entry["index"] == call.at), None)
            if own is None:
                entries.append(own := {"index": call.at, "function": {}})
            own["function"] = {**own["function"], "arguments": NOTHING}
        if bare:
            delta["tool_calls"] = entries
        if self._old is not None and not self._old.has_arguments:
            delta["function_call"] = {**(delta.get("function_call") or {}), "arguments": NOTHING}
            return True
        return bool(bare)

    def _former(self, delta: dict[str, Any]) -> bool:
        """Put a part of a `function_call` right; whether it changed."""
        function = delta.get("function_call")
        if not isinstance(function, dict):
            return False
        if self._old is None:
            self._old = _Call(0, "", False)
        given = function.get("arguments")
        text = self._arguments(self._old, given)
        if "arguments" in function and text != given:
            delta["function_call"] = {**function, "arguments": text}
        return delta["function_call"] is not function

    def _arguments(self, call: _Call, given: Any) -> str:
        """The arguments in one part of a call as text, empty for a `null` that stands before any others."""
        text = arguments(given)
        if call.has_arguments:
            return text
        call.has_arguments = not says_nothing(text)
        return text if call.has_arguments else text.replace("null", "")

    def _part(self, entry: dict[str, Any]) -> tuple[bool, bool]:
        """Put one part of a call right; whether it goes out now, and whether it changed."""
        before = dict(entry)
        if entry.get("type") not in (None, "", "function"):  # OpenAI's `custom`: only its number and id are ours
            call = self._find(entry, "custom")
            call.is_begun = call.has_arguments = True
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
        if "arguments" in function:
            function["arguments"] = self._arguments(call, function["arguments"])
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
        """The call that a part belongs to. Some engines number no call, some give every call the same number."""
        index, own = entry.get("index"), text_of(entry.get("id"))
        if isinstance(index, int) and not isinstance(index, bool):
            call = self._by_index.get(index)
            if call is not None and call.is_own_id and own not in ("", call.id):
                # Several calls have this number: by its id it is one of them, by a name a new one.
                same = next((each for each in self._calls if each.index == index and each.id == own), None)
                call = same or (None if name else call)
            if call is None:
                call = self._new(own)
                call.index = index
            self._by_index[index] = call
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


def normalize_whole(message: dict[str, Any], token: str) -> bool:
    """Put the calls of a whole message right; whether anything changed. ValueError for what is not a valid call."""
    given = message.get("tool_calls")
    if given is None:
        return False
    whole = [_whole(entry, f"call_{token}{at}") for at, entry in enumerate(_listed(given))]
    if whole == given:
        return False
    message["tool_calls"] = whole
    return True


def _listed(calls: Any) -> list[dict[str, Any]]:
    """Calls as a list of objects, the same list when they are one; ValueError for what cannot be read as that."""
    entries = [calls] if isinstance(calls, dict) else calls
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("what is not a valid tool call")
    return entries


def _whole(entry: dict[str, Any], spare: str) -> dict[str, Any]:
    kind = text_of(entry.get("type")) or "function"
    whole = {**entry, "id": text_of(entry.get("id")) or spare, "type": kind}
    if kind == "function":
        function = entry.get("function")
        if not isinstance(function, dict) or not text_of(function.get("name")):
            raise ValueError("a tool call without a name")
        whole["function"] = {**function, "arguments": arguments(function.get("arguments"))}
    return whole


def says_nothing(text: str) -> bool:
    """Whether this stands for no arguments."""
    return text.strip() in ("", "null")


def fill_arguments(message: dict[str, Any]) -> bool:
    """Give the calls of a whole message that is not cut off arguments where they have none; whether it changed.

    `normalize_whole` comes before.
    """
    called = [entry["function"] for entry in message.get("tool_calls") or () if entry["type"] == "function"]
    old = message.get("function_call")
    functions = [*called, *([old] if isinstance(old, dict) else [])]
    bare = [function for function in functions if says_nothing(arguments(function.get("arguments")))]
    for function in bare:
        function["arguments"] = NOTHING
    return bool(bare)


def arguments(value: Any) -> str:
    """A call's arguments as text, however an engine writes them."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def text_of(value: Any) -> str:
    """A member that should be text; empty for anything else."""
    return value if isinstance(value, str) else ""
