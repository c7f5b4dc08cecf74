"""The messages and tools of a chat, as OpenAI's specification has them. Pure.

Long texts are not decoded: their first byte tells that they are texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from app.dialects import json_members
from app.errors import Problem, bad_request

NOTHING: Final = Raw(b"null")
_QUOTE: Final = ord('"')
TYPES: Final = {
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "float": "a number",
}


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: Raw = NOTHING


class _Call(msgspec.Struct, frozen=True):
    type: str | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: Raw = NOTHING
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None
    refusal: str | None = None
    reasoning_content: Raw = NOTHING


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: Raw = NOTHING
    refusal: Raw = NOTHING
    image_url: Raw = NOTHING
    input_audio: Raw = NOTHING
    file: Raw = NOTHING


class _Sound(msgspec.Struct, frozen=True):
    data: Raw
    format: str


class _Address(msgspec.Struct, frozen=True):
    url: Raw
    detail: str | None = None


class FunctionDescription(msgspec.Struct, frozen=True):
    """What a model is told of a function; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool that a model may call; the only `type` that engines have is `function`."""

    type: str
    function: FunctionDescription | None = None


_messages = msgspec.json.Decoder(list[_Message])
_tools = msgspec.json.Decoder(list[Tool])
_parts = msgspec.json.Decoder(list[_Part])
_addresses = msgspec.json.Decoder(_Address | str)
_sounds = msgspec.json.Decoder(_Sound)


def check_messages(raw: Raw) -> None:
    """Problem (400) unless these are messages: at least one, each with a role and what that role needs."""
    try:
        messages = _messages.decode(raw)
    except msgspec.ValidationError as exc:
        raise wrong("messages", "messages", str(exc)) from exc
    if not messages:
        raise bad_request("'messages' is empty: at least one is needed.", param="messages", code="missing_field")
    for index, message in enumerate(messages):
        # Nearly all have a role and a text, and nothing else that is checked.
        is_plain = (
            memoryview(message.content)[0] == _QUOTE
            and message.role not in ("", "tool")
            and message.reasoning_content is NOTHING
            and message.tool_calls is None
        )
        if not is_plain:
            _check_message(f"messages[{index}]", message)


def _check_message(place: str, message: _Message) -> None:
    if not message.role:
        raise _in_messages(f"'{place}.role' is empty.", "invalid_value")
    match bytes(memoryview(message.content)[:1]):
        case b'"':
            pass
        case b"[":
            _check_parts(f"{place}.content", message)
        case b"n":
            if message.role in ("user", "system", "developer", "tool"):
                raise _in_messages(f"'{place}.content' is missing.", "missing_field")
        case _:
            raise _in_messages(f"'{place}.content' must be a string or a list of parts.", "invalid_type")
    if bytes(memoryview(message.reasoning_content)[:1]) not in (b'"', b"n"):
        raise _in_messages(f"'{place}.reasoning_content' must be a string.", "invalid_type")
    if message.role == "tool" and message.tool_call_id is None:
        raise _in_messages(f"'{place}.tool_call_id' is missing: it says which call this answers.", "missing_field")
    for number, call in enumerate(message.tool_calls or ()):
        _check_call(f"{place}.tool_calls[{number}]", call)


def _check_call(place: str, call: _Call) -> None:
    if call.type not in (None, "function"):
        message = f"'{place}.type' must be 'function': the engine behind this name has no other tools."
        raise _in_messages(message, "not_supported")
    if call.function is None:
        raise _in_messages(f"'{place}.function' is missing.", "missing_field")
    if not call.function.name:
        raise _in_messages(f"'{place}.function.name' is empty.", "invalid_value")
    # Text by the specification; an object is what Ollama's clients send, and what chat templates take.
    if bytes(memoryview(call.function.arguments)[:1]) not in (b'"', b"{", b"n"):
        raise _in_messages(f"'{place}.function.arguments' must be a string that holds an object.", "invalid_type")


def _check_parts(place: str, message: _Message) -> None:
    try:
        parts = _parts.decode(message.content)
    except msgspec.ValidationError as exc:
        raise wrong("messages", place, str(exc)) from exc
    if not parts and message.role != "assistant":
        raise _in_messages(f"'{place}' has no parts.", "invalid_value")
    for number, part in enumerate(parts):
        where = f"{place}[{number}]"
        if part.type in ("text", "refusal"):
            if bytes(memoryview(getattr(part, part.type))[:1]) != b'"':
                raise _in_messages(f"'{where}.{part.type}' must be a string.", "invalid_type")
        elif part.type in ("image_url", "input_audio", "file"):
            _check_medium(where, part)


def _check_medium(place: str, part: _Part) -> None:
    place = f"{place}.{part.type}"
    raw: Raw = getattr(part, part.type)
    if bytes(memoryview(raw)[:1]) == b"n":
        raise _in_messages(f"'{place}' is missing.", "missing_field")
    try:
        if part.type == "file":
            json_members.decode(raw)
        else:
            medium = (_addresses if part.type == "image_url" else _sounds).decode(raw)
            text = medium.url if isinstance(medium, _Address) else medium.data if isinstance(medium, _Sound) else raw
            if bytes(memoryview(text)[:1]) != b'"':
                raise _in_messages(f"'{place}' must hold its content as a string.", "invalid_type")
    except msgspec.ValidationError as exc:
        raise wrong("messages", place, str(exc)) from exc


def wrong(field: str, place: str, reason: str) -> Problem:
    """The 400 for a value at `place` in a field, by msgspec's reason: "Expected `str`, got `int` - at `$[0].role`"."""
    inner = re.search(r"at `\$([^`]*)`", reason)
    where = place + (inner[1] if inner else "")
    lacks = re.search(r"missing required field `([^`]*)`", reason)
    if lacks is not None:
        return bad_request(f"'{where}.{lacks[1]}' is missing.", param=field, code="missing_field")
    expected = re.search(r"Expected `([^`]*)`", reason)
    wanted = TYPES.get((expected[1] if expected else "").split(" | ")[0], "of another type")
    return bad_request(f"'{where}' must be {wanted}.", param=field, code="invalid_type")


def _in_messages(message: str, code: str) -> Problem:
    return bad_request(message, param="messages", code=code)


def check_tools(raw: Raw) -> None:
    """Problem (400) unless this is null or a list of tools."""
    try:
        tools = _tools.decode(raw) if bytes(memoryview(raw)[:1]) != b"n" else ()
    except msgspec.ValidationError as exc:
        raise wrong("tools", "tools", str(exc)) from exc
    check_each(tools)


def check_each(tools: Sequence[Tool]) -> None:
    """Problem (400) for the first tool without a function's name, or of a type that no engine has."""
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if tool.type != "function":
            message = f"'{place}.type' must be 'function': the engine behind this name has no other tools."
            raise bad_request(message, param="tools", code="not_supported")
        if tool.function is None:
            raise bad_request(f"'{place}.function' is missing.", param="tools", code="missing_field")
        if not tool.function.name:
            raise bad_request(f"'{place}.function.name' is empty.", param="tools", code="invalid_value")
