"""The items of `/v1/responses` as a chat's messages. Pure.

Agents send their whole history with every request, so an item that says nothing to the model must not end the
conversation: it is left out and named. What a tool was asked and what came of it is kept, whoever ran it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from app.dialects.client_api import given, left_out, with_results, word
from app.dialects.responses.tools import ClientTool, ClientTools, arguments
from app.errors import Problem, bad_request
from backends.texts import joined

Item = Mapping[str, Any]
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
# Where the items of other tools have what was asked, and where what came of it, if the same item has both.
_ASKED = ("arguments", "action", "operation", "actions", "code", "queries", "input")
_CAME = {"mcp_call": ("output", "error"), "code_interpreter_call": ("outputs",), "file_search_call": ("results",)}
# What offers further tools; the request's own list does not have them.
OFFERS = ("additional_tools", "tool_search_output")
_PARTS = ("input_text", "output_text", "text", "input_image", "input_audio", "input_file")


def offered(items: str | Iterable[Item] | None) -> Iterator[Item]:
    """The tools that items of the history offer."""
    for item in () if isinstance(items, str) or items is None else items:
        tools = item.get("tools") if item.get("type") in OFFERS else None
        yield from (tool for tool in tools if isinstance(tool, dict)) if isinstance(tools, list) else ()


def messages(
    items: str | Sequence[Item] | None, orders: str | None, tools: ClientTools
) -> tuple[list[dict[str, Any]], list[str]]:
    """The conversation, and the names of what is left out of it; Problem (400) where nothing is left."""
    chat = _Chat(tools)
    if orders:
        chat.messages.append({"role": "system", "content": orders})
    if isinstance(items, str):
        chat.messages.append({"role": "user", "content": items})
    else:
        for item in items or ():
            chat.take(item)
    if not chat.messages:
        message = "'input' holds nothing that a model can read: all of its items were left out."
        raise bad_request(message, param="input", code="missing_field")
    return with_results(chat.messages), list(dict.fromkeys(chat.dropped))


class _Chat:
    """Puts a turn of the model into one message of a chat: its reasoning, its text and its calls."""

    def __init__(self, tools: ClientTools) -> None:
        self.messages: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self._tools = tools
        self._thoughts: list[str] = []
        self._asked: set[str] = set()  # ids of calls, whose results are to come

    def take(self, item: Item) -> None:
        """Add the next item; Problem (400) for one that is not valid or not supported."""
        kind = item.get("type") or "message"
        match kind:
            case "message":
                self._say(_message(item))
            case "reasoning":
                self._thoughts += [_string(part, "text") for part in _thoughts(item)]
            case "function_call":
                tool = ClientTool("function", _string(item, "name"), _namespace(item))
                self._call(item, self._tools.called(tool), _arguments(item))
            case "custom_tool_call":
                tool = ClientTool("custom", _string(item, "name"), _namespace(item))
                self._call(item, self._tools.called(tool), arguments(_string(item, "input")))
            case "function_call_output" | "custom_tool_call_output":
                self._result(_string(item, "call_id"), item.get("output"))
            case "item_reference":
                raise unsupported("an item of type 'item_reference'", "input", "nothing is kept between requests")
            case str():
                self._other(kind, item)
            case _:
                raise bad_request("input: the type of an item is a string.", param="input", code="invalid_type")

    def _say(self, message: dict[str, Any]) -> None:
        if message["role"] == "assistant":
            message |= self._thought()
        self._thoughts = []
        first = self.messages[0] if len(self.messages) == 1 else None
        # Several orders at the beginning are one: many chat templates take only one, and only there.
        if first is not None and first["role"] == message["role"] == "system":
            first["content"] += "\n\n" + message["content"]
        else:
            self.messages.append(message)

    def _thought(self) -> dict[str, str]:
        thought = joined(self._thoughts)
        self._thoughts = []
        return {"reasoning": thought, "reasoning_content": thought} if thought else {}

    def _call(self, item: Item, name: str, arguments: str) -> None:
        id_ = _string(item, "call_id")
        self._asked.add(id_)
        self._add(id_, name, arguments)

    def _add(self, id_: str, name: str, arguments: str) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        turn = self.messages[-1]
        turn |= self._thought()
        function = {"name": name, "arguments": arguments or "{}"}
        turn.setdefault("tool_calls", []).append({"id": id_, "type": "function", "function": function})

    def _result(self, id_: str, output: Any) -> None:
        parts = [{"type": "text", "text": output}] if isinstance(output, str) else self._shown_parts(output)
        text = joined(part["text"] for part in parts if part["type"] == "text")
        shown = [part for part in parts if part["type"] != "text"]
        self.messages.append({"role": "tool", "tool_call_id": id_, "content": text, "shown": shown})

    def _shown_parts(self, output: Any) -> list[dict[str, Any]]:
        """A result's parts. One that is not supported is replaced by a note, since the result stays in the history for
        good; an output that is not a list of parts is passed on as text."""
        if not isinstance(output, list):
            return [{"type": "text", "text": "" if output is None else _json(output)}]
        if not all(isinstance(part, str) or _kind(part) for part in output):
            return [{"type": "text", "text": _json(output)}]
        parts: list[dict[str, Any]] = []
        for part in output:
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
                continue
            try:
                parts += _parts([part])
            except Problem:
                kind = _kind(part)
                self._drop(kind)
                parts.append({"type": "text", "text": f"[{word(kind) or '?'}: left out, it cannot be shown here]"})
        return parts

    def _drop(self, kind: Any) -> None:
        self.dropped.append(left_out("input", kind))

    def _other(self, kind: str, item: Item) -> None:
        """An item of a tool that is not called here: what it was asked and what came of it stays."""
        id_ = item.get("call_id") or item.get("id")
        if kind.endswith("_output") and isinstance(id_, str) and id_ in self._asked:
            self._result(id_, _output(item))
        elif kind in _CAME and isinstance(id_, str) and any(item.get(name) for name in _CAME[kind]):
            self._add(id_, _name(kind, item), _asked(item))
            self._result(id_, _json({name: item[name] for name in _CAME[kind] if item.get(name)}))
        elif kind.endswith("_call") and isinstance(item.get("call_id"), str):
            self._call(item, _name(kind, item), _asked(item))
        elif kind not in OFFERS:
            self._drop(kind)


def _name(kind: str, item: Item) -> str:
    """The name of what the model called: an MCP server's tools have names of their own."""
    name = item.get("name")
    return name if isinstance(name, str) and name else kind.removesuffix("_call")


def _asked(item: Item) -> str:
    for name in _ASKED:
        value = item.get(name)
        if isinstance(value, str):
            is_object = name == "arguments" and value.lstrip().startswith("{")
            return value if is_object else _json({name: value})
        if value:
            return _json(value if isinstance(value, dict) else {name: value})
    return "{}"


def _output(item: Item) -> Any:
    """The output of a tool: text, or parts; of any other shape its JSON. Of a search for tools: their names."""
    if item.get("type") == "tool_search_output":
        return joined(str(tool.get("name", "")) for tool in offered([item]))
    output = item.get("output")
    match output:
        case {"type": "computer_screenshot", "image_url": str(url)}:
            return [{"type": "input_image", "image_url": url}]
        case [*parts] if parts and not all(isinstance(part, dict) and part.get("type") in _PARTS for part in parts):
            return _json(output)
    return output


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _thoughts(item: Item) -> list[Item]:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        message = "input: 'content' and 'summary' of a reasoning item are lists of parts."
        raise bad_request(message, param="input", code="invalid_type")
    return parts


def _message(item: Item) -> dict[str, Any]:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise bad_request("input: a role is 'user', 'assistant', 'system' or 'developer'.", param="input")
    content = item.get("content")
    if content is None and role == "assistant":
        content = ""  # a turn of calls only, as chats have it
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = _parts(content)
    if role != "user" or (len(parts) == 1 and parts[0]["type"] == "text"):
        return {"role": role, "content": _text(parts, role)}
    return {"role": role, "content": parts}


def _kind(part: Any) -> str | None:
    """The part's type; None for what is not a part."""
    kind = part.get("type") if isinstance(part, dict) else None
    return kind if isinstance(kind, str) and kind else None


def _parts(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise bad_request("input: a content is a string or a list of parts.", param="input", code="invalid_type")
    parts: list[dict[str, Any]] = []
    for part in content:
        match part:
            case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
                parts.append({"type": "text", "text": text})
            case {"type": "refusal", "refusal": str(text)}:
                parts.append({"type": "text", "text": text})
            case {"type": "input_image" | "image_url", "image_url": str(url) | {"url": str(url)} as image}:
                holder = image if isinstance(image, dict) else part
                parts.append({"type": "image_url", "image_url": {"url": url, **given(detail=holder.get("detail"))}})
            case {"type": "input_audio", "input_audio": dict(audio)}:
                parts.append({"type": "input_audio", "input_audio": audio})
            case {"type": "input_file" | "input_image"}:
                raise unsupported("a file", "input", "nothing is kept here, and none is fetched")
            case {"type": "input_text" | "output_text" | "text" | "refusal" | "image_url" | "input_audio" as kind}:
                message = f"input: a part of type '{kind}' does not hold what its type says."
                raise bad_request(message, param="input", code="invalid_type")
            case _ if not _kind(part):
                message = "input: a part of a content is an object with a 'type', such as 'input_text'."
                raise bad_request(message, param="input", code="invalid_type")
            case _:
                raise unsupported(f"a part of type '{word(_kind(part)) or '?'}'", "input", "")
    return parts


def _text(parts: list[dict[str, Any]], whose: str) -> str:
    if any(part["type"] != "text" for part in parts):
        raise bad_request(f"input: only text is taken in a message of '{whose}'.", param="input")
    return joined(part["text"] for part in parts)


def _namespace(item: Item) -> str | None:
    namespace = item.get("namespace")
    return namespace if isinstance(namespace, str) and namespace else None


def _arguments(item: Item) -> str:
    """Text, as the specification has it. Also taken: null for no arguments, and an object (Ollama's clients)."""
    value = item.get("arguments")
    return "" if value is None else _json(value) if isinstance(value, dict) else _string(item, "arguments")


def _string(item: Item, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise bad_request(f"input: '{name}' of an item must be a string.", param="input", code="invalid_type")
    return value


def unsupported(what: str, param: str, why: str) -> Problem:
    """Problem (400) that says that `what` is not supported, and why."""
    reason = f"; {why}" if why else ""
    return bad_request(f"{what} is not supported by this gateway{reason}.", param=param, code="not_supported")
