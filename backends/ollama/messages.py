"""OpenAI's messages as an Ollama daemon takes them: one text, images beside it, tool arguments as objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from backends.errors import Rejected, Unsupported
from backends.texts import joined

_IMAGE: Final = re.compile(r"data:image/(?:jpeg|jpg|png|webp|gif);base64,", re.IGNORECASE)


class RefuseField(Protocol):
    """A 400 for what is malformed."""

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
    """The conversation; raises what `refuse` and `cannot` make."""
    try:
        given = _decoder.decode(raw)
    except msgspec.ValidationError as exc:
        raise refuse(f"'messages' is not a conversation: {_where(str(exc))}", "messages", "invalid_type") from exc
    if not given:
        # The daemon would load the model and answer nothing.
        raise refuse("'messages' is empty.", "messages")
    tools: dict[str, str] = {}  # the names behind the ids of calls
    return [_message(one, index, tools, refuse, cannot) for index, one in enumerate(given)]


def _where(text: str) -> str:
    return text.replace("$[...]", "a message").replace("`", "'")


def _message(one: _Message, index: int, tools: dict[str, str], refuse: RefuseField, cannot: Cannot) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "system" if one.role == "developer" else one.role}
    place = f"messages[{index}]"
    start = bytes(memoryview(one.content)[:1])
    if start == b'"':
        made["content"] = one.content
    elif start == b"[":
        try:
            parts = msgspec.json.decode(one.content)
        except msgspec.ValidationError as exc:
            raise refuse(
                f"'{place}.content' holds a number that is out of range.", "messages", "invalid_value"
            ) from exc
        made |= _parts(parts, place, refuse, cannot)
    elif start == b"n" and one.role == "assistant":
        made["content"] = one.refusal or ""
    else:
        raise refuse(f"'{place}.content' must be a string or a list of parts.", "messages", "invalid_type")
    thinking = one.reasoning or one.reasoning_content
    if thinking:
        made["thinking"] = thinking
    if one.tool_calls:
        made["tool_calls"] = [_call(call, number, place, tools, refuse) for number, call in enumerate(one.tool_calls)]
    if one.tool_call_id is not None:
        made["tool_call_id"] = one.tool_call_id
        if one.tool_call_id in tools:
            made["tool_name"] = tools[one.tool_call_id]
    return made


def _call(call: _Call, number: int, place: str, tools: dict[str, str], refuse: RefuseField) -> dict[str, Any]:
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}")
        except (msgspec.DecodeError, RecursionError):
            arguments = arguments or None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise refuse(f"The arguments of a tool call in '{place}' are not a JSON object.", "messages")
    made: dict[str, Any] = {"function": {"index": number, "name": call.function.name, "arguments": arguments}}
    if call.id is not None:
        made["id"] = call.id
        tools[call.id] = call.function.name
    return made


def _parts(parts: list[Any], place: str, refuse: RefuseField, cannot: Cannot) -> dict[str, Any]:
    """The texts, a line each, and the images: a message of the daemon's has both."""
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
                raise refuse(f"A part of '{place}.content' is not what its type says.", "messages", "invalid_type")
            case {"type": str()}:
                raise cannot("Ollama takes text and images in messages, no other parts.", "messages")
            case _:
                raise refuse(f"A part of '{place}.content' has no type.", "messages", "invalid_type")
    made: dict[str, Any] = {"content": joined(texts)}
    if images:
        made["images"] = images
    return made


def _image(url: str, refuse: RefuseField, cannot: Cannot) -> str:
    match = _IMAGE.match(url)
    if match is None:
        raise cannot("Ollama takes images as data URLs (data:image/png;base64,…), and fetches none.", "messages")
    data = url[match.end() :]
    if not data or not data.isascii():  # the daemon checks the rest: megabytes are not looked through twice
        raise refuse("An image is not valid base64.", "messages")
    return data
