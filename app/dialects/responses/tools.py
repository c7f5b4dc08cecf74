"""The tools of `/v1/responses` as functions, the one kind that engines call, and their calls as the client's. Pure.

What only OpenAI can run (a search, a container) is left out and named: agents send such tools with every request, and
work without them. A namespace's tools become functions of their own, a tool of free text a function with one string.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from app.dialects.client_api import given, left_out, word
from app.errors import Problem, bad_request

MAX_NAME_CHARS: Final = 64  # what OpenAI's API takes, and so engines
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_INPUT: Final = "input"


class ClientTool(NamedTuple):
    """A tool as the client named it. `kind`: function or custom (free text)."""

    kind: str
    name: str
    namespace: str | None = None


class ClientTools(msgspec.Struct, frozen=True):
    """The tools as functions for an engine. `names`: the engine's name → the client's tool. `dropped`: the names of
    what engines are not told."""

    functions: Sequence[Mapping[str, Any]] = ()
    names: Mapping[str, ClientTool] = {}
    dropped: tuple[str, ...] = ()

    def called(self, tool: ClientTool) -> str:
        """The engine's name for a tool of the client's, also for one that is not offered any more."""
        return next((name for name, each in self.names.items() if each == tool), flat(tool))

    def told(self, name: str) -> ClientTool:
        """The client's tool behind an engine's name."""
        return self.names.get(name) or ClientTool("function", name)


NONE: Final = ClientTools()


def read(offered: Iterable[Mapping[str, Any]]) -> ClientTools:
    """The tools that a request, or an item of its history, offers; Problem (400) for one without a name."""
    functions: dict[str, dict[str, Any]] = {}
    names: dict[str, ClientTool] = {}
    dropped: list[str] = []
    for tool, namespace in _spread(offered):
        kind, name = tool.get("type"), tool.get("name")
        if kind not in ("function", "custom"):
            dropped.append(left_out("tools", kind))
            continue
        if not isinstance(name, str) or not name:
            hint = " beside its 'type', not inside 'function' as in chats" if "function" in tool else ""
            raise bad_request(f"tools: a {kind} tool has a 'name'{hint}.", param="tools", code="invalid_type")
        one = ClientTool(kind, name, namespace)
        if one in names.values():
            continue
        called = _free(flat(one), names)
        names[called] = one
        functions[called] = _function(called, tool) if kind == "function" else _free_text(called, tool)
        if kind == "custom" and _type_of(tool.get("format")) not in (None, "text"):
            dropped.append(f"tools.{flat(one)}.format")  # a grammar: what the model writes is not held to it
    return ClientTools(tuple(functions.values()), names, tuple(dict.fromkeys(dropped)))


def flat(tool: ClientTool) -> str:
    """The name of a tool as a function's: with its namespace before it."""
    name = tool.name if tool.namespace is None else f"{tool.namespace.rstrip('_')}__{tool.name}"
    if tool.kind == "function" and tool.namespace is None:
        return name  # as the client spells it
    name = _NOT_A_NAME.sub("_", name)
    if len(name) <= MAX_NAME_CHARS:
        return name
    return f"{name[: MAX_NAME_CHARS - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def choice(asked: str | Mapping[str, Any] | None, tools: ClientTools) -> tuple[Any, Sequence[Mapping[str, Any]]]:
    """A chat's `tool_choice`, and the functions that are left; Problem (400) for a tool that cannot be called."""
    match asked:
        case None | "auto" | "none":
            return (asked if tools.functions else None), tools.functions
        case "required":
            return _required(tools, tools.functions)
        case {"type": "function" | "custom" as kind, "name": str(name)}:
            return _named(ClientTool(kind, name, _namespace(asked)), tools), tools.functions
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            left = [each for each in tools.functions if _is_among(tools.names[each["function"]["name"]], allowed)]
            return _required(tools, left) if mode == "required" else ("auto" if left else None, left)
        case {"type": "function" | "custom"}:
            message = "tool_choice: 'name' is missing; it stands beside 'type' in this API."
            raise bad_request(message, param="tool_choice", code="missing_field")
        case {"type": "allowed_tools"}:
            message = "tool_choice: 'allowed_tools' has a 'mode' ('auto' or 'required') and a list of 'tools'."
            raise bad_request(message, param="tool_choice", code="invalid_type")
        case {"type": str(kind)}:
            raise _cannot(f"the tool type '{word(kind) or '?'}' is not run by this gateway")
    message = "tool_choice: 'auto', 'none', 'required', or an object that names a tool."
    raise bad_request(message, param="tool_choice", code="invalid_type")


def arguments(text: str) -> str:
    """A free text as the arguments of the function that stands for its tool."""
    return msgspec.json.encode({_INPUT: text}).decode()


def free_text(arguments: str) -> str:
    """The free text in the arguments of a call of that function; arguments of another shape are the text itself."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        texts = [value[_INPUT]] if _INPUT in value else list(value.values())
        if len(texts) == 1 and isinstance(texts[0], str):
            return texts[0]
    return arguments


def _spread(offered: Iterable[Mapping[str, Any]]) -> Iterable[tuple[Mapping[str, Any], str | None]]:
    """Each tool with its namespace."""
    for tool in offered:
        name, inner = tool.get("name"), tool.get("tools")
        if tool.get("type") == "namespace" and isinstance(name, str) and isinstance(inner, list):
            yield from ((each, name) for each in inner if isinstance(each, dict))
        else:
            yield tool, None


def _free(name: str, taken: Mapping[str, ClientTool]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name[: MAX_NAME_CHARS - 4]}_{number}", number + 1
    return free


def _function(name: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    rest = given(description=tool.get("description"), parameters=tool.get("parameters"), strict=tool.get("strict"))
    return {"type": "function", "function": {"name": name, **rest}}


def _free_text(name: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    """A grammar is put into the words that the model reads: nothing else would tell it what the tool takes."""
    form = tool.get("format")
    definition = form.get("definition") if isinstance(form, dict) else None
    about = f"The tool's whole input, as text. Its grammar:\n{definition}" if isinstance(definition, str) else ""
    text = {"type": "string", "description": about or "The tool's whole input, as text."}
    parameters = {"type": "object", "properties": {_INPUT: text}, "required": [_INPUT], "additionalProperties": False}
    return {
        "type": "function",
        "function": {"name": name, **given(description=tool.get("description")), "parameters": parameters},
    }


def _required(tools: ClientTools, left: Sequence[Mapping[str, Any]]) -> tuple[Any, Sequence[Mapping[str, Any]]]:
    if not left:
        why = "none of the tools sent can be run here" if tools.dropped else "there are no tools"
        raise _cannot(f"a tool must be called, and {why}")
    return "required", left


def _named(tool: ClientTool, tools: ClientTools) -> dict[str, Any]:
    names = [name for name, each in tools.names.items() if each == tool]
    if not names:  # a client may leave out the namespace where the name is the only one
        names = [name for name, each in tools.names.items() if (each.kind, each.name) == tool[:2]]
    if tool.namespace is not None or len(names) != 1:
        names = [name for name in names if tools.names[name].namespace == tool.namespace]
    if not names:
        raise _cannot("the tool that it names is not among the tools sent, or cannot be run here")
    return {"type": "function", "function": {"name": names[0]}}


def _is_among(tool: ClientTool, allowed: Iterable[Any]) -> bool:
    for each in allowed:
        if not isinstance(each, dict):
            continue
        is_namespace = each.get("type") == "namespace" and each.get("name") == tool.namespace
        is_tool = (each.get("type"), each.get("name")) == tool[:2] and _namespace(each) in (None, tool.namespace)
        if is_namespace or is_tool:
            return True
    return False


def _namespace(tool: Any) -> str | None:
    namespace = tool.get("namespace") if isinstance(tool, Mapping) else None
    return namespace if isinstance(namespace, str) and namespace else None


def _type_of(form: Any) -> Any:
    return form.get("type") if isinstance(form, dict) else None


def _cannot(why: str) -> Problem:
    return bad_request(f"tool_choice: {why}.", param="tool_choice", code="not_supported")
