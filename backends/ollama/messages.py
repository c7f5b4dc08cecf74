"""OpenAI's messages in the form that an Ollama daemon takes: one text each, images beside it, and the arguments of tool
calls as objects. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from backends.errors import Rejected, Unsupported
from backends.texts import joined

_IMAGE: Final = re.compile(r"data:image/(?:jpeg|jpg|png|webp|gif);base64,", re.IGNORECASE)


class RefuseField(Protocol):
    """Makes the 400 for a malformed field."""

    def __call__(self, message: str, param: str | None, code: str = ...) -> Rejected: ...


Cannot = Callable[[str, str], Unsupported]


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: Any = None


class _Call(msgspec.Struct, frozen=True):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


_decoder = msgspec.json.Decoder(list[_Message])


def messages(raw: msgspec.Raw, refuse: RefuseField, cannot: Cannot) -> list[dict[str, Any]]:
    """The conversation, from the client's member `messages`. Raises what `refuse` makes of what is malformed, and what
    `cannot` makes of what Ollama does not take.
    """
    try:
        given = _decoder.decode(raw)
    except msgspec.ValidationError as exc:
        raise refuse(f"'messages' is not a conversation: {_where(str(exc))}", "messages", "invalid_type") from exc
    if not given:
        # The daemon would load the model and generate nothing.
        raise refuse("'messages' is empty.", "messages")
    tool_names: dict[str, str] = {}  # by the ids of their calls
    return [_message(one, index, tool_names, refuse, cannot) for index, one in enumerate(given)]


def _where(text: str) -> str:
    return text.replace("$[...]", "a message").replace("`", "'")


def _message(
    given: _Message, index: int, tool_names: dict[str, str], refuse: RefuseField, cannot: Cannot
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "system" if given.role == "developer" else given.role}
    path = f"messages[{index}]"
    start = bytes(memoryview(given.content)[:1])
    if start == b'"':
        message["content"] = given.content
    elif start == b"[":
        try:
            parts = msgspec.json.decode(given.content)
        except msgspec.ValidationError as exc:
            raise refuse(f"'{path}.content' holds a number that is out of range.", "messages", "invalid_value") from exc
        message |= _parts(parts, path, refuse, cannot)
    elif start == b"n" and given.role == "assistant":
        message["content"] = given.refusal or ""
    else:
        raise refuse(f"'{path}.content' must be a string or a list of parts.", "messages", "invalid_type")
    thinking = given.reasoning or given.reasoning_content
    if thinking:
        message["thinking"] = thinking
    if given.tool_calls:
        message["tool_calls"] = [
            _call(call, number, path, tool_names, refuse) for number, call in enumerate(given.tool_calls)
        ]
    if given.tool_call_id is not None:
        message["tool_call_id"] = given.tool_call_id
        if given.tool_call_id in tool_names:
            message["tool_name"] = tool_names[given.tool_call_id]
    return message


def _call(call: _Call, number: int, path: str, tool_names: dict[str, str], refuse: RefuseField) -> dict[str, Any]:
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}")
        except (msgspec.DecodeError, RecursionError):
            arguments = arguments or None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise refuse(f"The arguments of a tool call in '{path}' are not a JSON object.", "messages")
    message: dict[str, Any] = {"function": {"index": number, "name": call.function.name, "arguments": arguments}}
    if call.id is not None:
        message["id"] = call.id
        tool_names[call.id] = call.function.name
    return message


def _parts(parts: list[Any], path: str, refuse: RefuseField, cannot: Cannot) -> dict[str, Any]:
    """A content of parts: its texts joined, and its images beside them."""
    texts: list[str] = []
    images: list[str] = []
    for part in parts:
        match part:
            case {"type": "text" | "input_text", "text": str() as text} | {"type": "refusal", "refusal": str() as text}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": str() as url}} | {
                "type": "image_url",
                "image_url": str() as url,
            }:
                images.append(_image(url, refuse, cannot))
            case {"type": str() as kind} if kind in ("text", "image_url"):
                raise refuse(f"A part of '{path}.content' does not match its type.", "messages", "invalid_type")
            case {"type": str()}:
                raise cannot("Ollama takes text and images in messages, no other parts.", "messages")
            case _:
                raise refuse(f"A part of '{path}.content' has no type.", "messages", "invalid_type")
    message: dict[str, Any] = {"content": joined(texts)}
    if images:
        message["images"] = images
    return message


def _image(url: str, refuse: RefuseField, cannot: Cannot) -> str:
    match = _IMAGE.match(url)
    if match is None:
        raise cannot("Ollama takes images as data URLs (data:image/png;base64,…) and does not fetch them.", "messages")
    data = url[match.end() :]
    if not data or not data.isascii():  # the daemon checks the rest: megabytes are not read twice
        raise refuse("An image is not valid base64.", "messages")
    return data
