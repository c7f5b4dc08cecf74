"""OpenAI's `/v1/responses` as chats: every request brings its whole conversation, and nothing is kept. Pure.

Never passed through, though some engines have the route: what they do with it differs, and chats are what all of them
do well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from app.dialects.fronts.extras import LEVELS
from app.dialects.fronts.front import Ask, decoded, given, unknown
from app.dialects.fronts.responses_answers import Response
from app.errors import Problem, bad_request

Item = Mapping[str, Any]
# What only a server that keeps conversations, or runs tools, can do: the answer would be another one without it.
_KEPT = ("previous_response_id", "conversation", "prompt", "background", "store")
# What changes no answer, or only how it is billed, cached and explained.
_DROPPED = (
    "truncation",
    "max_tool_calls",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_LOGPROBS = "message.output_text.logprobs"


class _Tool(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Format(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _Text(msgspec.Struct, frozen=True):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class _Request(msgspec.Struct, frozen=True):
    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: Any = None  # it only asks for padding
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    store: bool | None = None
    truncation: str | None = None
    max_tool_calls: int | None = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    user: Any = None


_requests = msgspec.json.Decoder(_Request)


class Responses:
    """The one route."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def tongue(self, token: str) -> Response:
        """Without a name yet."""
        return Response("", token, self._clock, {})

    def ask(self, body: bytes, token: str) -> Ask:
        """One chat."""
        asked = decoded(_requests, body)
        for name in _KEPT:
            if getattr(asked, name):
                raise _unsupported(f"'{name}'", name, "nothing is kept between requests: send the whole conversation")
        if not asked.input and not asked.instructions:
            raise bad_request("'input' is missing.", param="input", code="missing_field")
        wants_logprobs = asked.top_logprobs is not None or _LOGPROBS in (asked.include or ())
        fields = {"messages": _messages(asked), **_tools(asked), **given(response_format=_form(asked))}
        fields |= given(
            max_tokens=asked.max_output_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            stream=asked.stream,
            logprobs=wants_logprobs or None,
            top_logprobs=asked.top_logprobs,
        )
        tongue = Response(asked.model or "", token, self._clock, _echo(asked))
        extras = given(think=_think(asked))
        dropped = (*_dropped(asked), *unknown(_Request, body))
        return Ask("/v1/chat/completions", asked.model, fields, tongue, extras, dropped)


def _dropped(asked: _Request) -> list[str]:
    names = [name for name in _DROPPED if getattr(asked, name) not in (None, "disabled")]
    names += ["include"] if set(asked.include or ()) - {_LOGPROBS} else []
    names += ["text.verbosity"] if asked.text is not None and asked.text.verbosity else []
    return names + (["reasoning.summary"] if asked.reasoning is not None and asked.reasoning.summary else [])


# -- messages


def _messages(asked: _Request) -> list[dict[str, Any]]:
    """What a turn of the model was is one message in a chat: its thought, its text and its calls together."""
    items = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input or []
    messages: list[dict[str, Any]] = []
    if asked.instructions:
        messages.append({"role": "system", "content": asked.instructions})
    thought = ""
    for item in items:
        match item.get("type", "message"):
            case "message":
                message = _message(item)
                if message["role"] == "assistant" and thought:
                    message |= {"reasoning": thought, "reasoning_content": thought}
                thought = ""
                _add(messages, message)
            case "function_call":
                turn = _turn(messages)
                if thought:
                    turn |= {"reasoning": thought, "reasoning_content": thought}
                thought = ""
                function = {"name": _string(item, "name"), "arguments": _string(item, "arguments")}
                turn.setdefault("tool_calls", []).append(
                    {"id": _string(item, "call_id"), "type": "function", "function": function}
                )
            case "function_call_output":
                output = item.get("output")
                text = output if isinstance(output, str) else _joined(_parts(output), "function_call_output")
                messages.append({"role": "tool", "tool_call_id": _string(item, "call_id"), "content": text})
            case "reasoning":
                thought += "".join(_string(part, "text") for part in _thoughts(item))
            case "item_reference":
                raise _unsupported("an item of type 'item_reference'", "input", "nothing is kept between requests")
            case kind:
                raise _unsupported(f"an item of type '{_shown(kind)}'", "input", "")
    return messages


def _thoughts(item: Item) -> list[Item]:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        message = "input: 'content' and 'summary' of a reasoning item are lists of parts."
        raise bad_request(message, param="input", code="invalid_type")
    return parts


def _add(messages: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Several orders at the beginning are one: many chat templates take only one, and only there."""
    is_order = message["role"] == "system" and len(messages) == 1 and messages[0]["role"] == "system"
    if is_order and isinstance(message["content"], str):
        messages[0]["content"] += "\n\n" + message["content"]
    else:
        messages.append(message)


def _turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The model's turn that a call belongs to."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _message(item: Item) -> dict[str, Any]:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise bad_request("input: a role is 'user', 'assistant', 'system' or 'developer'.", param="input")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = _parts(content)
    if role != "user" or (len(parts) == 1 and parts[0]["type"] == "text"):
        return {"role": role, "content": _joined(parts, role)}
    return {"role": role, "content": parts}


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
            case {"type": "input_image", "image_url": str(url)}:
                detail = given(detail=part.get("detail"))
                parts.append({"type": "image_url", "image_url": {"url": url, **detail}})
            case {"type": "input_audio", "input_audio": dict(audio)}:
                parts.append({"type": "input_audio", "input_audio": audio})
            case {"type": "input_file" | "input_image"}:
                raise _unsupported("a file", "input", "nothing is kept here, and none is fetched")
            case _:
                kind = part.get("type") if isinstance(part, dict) else None
                raise _unsupported(f"a part of type '{_shown(kind)}'", "input", "")
    return parts


def _joined(parts: list[dict[str, Any]], whose: str) -> str:
    if any(part["type"] != "text" for part in parts):
        raise bad_request(f"input: only text is taken in a message of '{whose}'.", param="input")
    return "".join(part["text"] for part in parts)


# -- parameters


def _tools(asked: _Request) -> dict[str, Any]:
    tools = []
    for tool in asked.tools or ():
        if tool.type != "function" or not tool.name:
            raise _unsupported(
                f"the tool type '{_shown(tool.type)}'", "tools", "only functions of the client's own are"
            )
        function = {"name": tool.name, **given(description=tool.description, parameters=tool.parameters)}
        tools.append({"type": "function", "function": function | given(strict=tool.strict)})
    if not tools:
        return {}
    choice: Any = asked.tool_choice
    match choice:
        case None | "auto" | "none" | "required":
            pass
        case {"type": "function", "name": str(name)}:
            choice = {"type": "function", "function": {"name": name}}
        case _:
            raise _unsupported("this 'tool_choice'", "tool_choice", "")
    return {"tools": tools, **given(tool_choice=choice, parallel_tool_calls=asked.parallel_tool_calls)}


def _form(asked: _Request) -> dict[str, Any] | None:
    form = asked.text.format if asked.text is not None else None
    match form:
        case None | _Format(type="text"):
            return None
        case _Format(type="json_object"):
            return {"type": "json_object"}
        case _Format(type="json_schema"):
            rest = given(strict=form.strict, description=form.description)
            return {
                "type": "json_schema",
                "json_schema": {"name": form.name or "format", "schema": form.schema, **rest},
            }
    raise bad_request("text.format: the type is 'text', 'json_object' or 'json_schema'.", param="text")


def _think(asked: _Request) -> bool | str | None:
    effort = asked.reasoning.effort if asked.reasoning is not None else None
    if effort not in (None, "none", *LEVELS):
        raise bad_request(f"reasoning.effort: 'none' or one of {', '.join(LEVELS)}.", param="reasoning")
    return False if effort == "none" else effort


def _echo(asked: _Request) -> dict[str, Any]:
    """What a response repeats of its request; the SDK's types want most of it."""
    tools = [
        {"type": tool.type, "name": tool.name, "parameters": tool.parameters, "strict": tool.strict}
        | given(description=tool.description)
        for tool in asked.tools or ()
    ]
    form = asked.text.format if asked.text is not None and asked.text.format is not None else _Format("text")
    return {
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
        "temperature": asked.temperature,
        "text": {"format": given(**msgspec.structs.asdict(form))},
        "tool_choice": asked.tool_choice or "auto",
        "tools": tools,
        "top_p": asked.top_p,
    }


def _string(item: Item, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise bad_request(f"input: '{name}' of an item must be a string.", param="input", code="invalid_type")
    return value


def _shown(kind: Any) -> str:
    return kind[:40] if isinstance(kind, str) and kind.replace("_", "").isalnum() else "?"


def _unsupported(what: str, param: str, why: str) -> Problem:
    reason = f"; {why}" if why else ""
    return bad_request(f"{what} is not supported by this gateway{reason}.", param=param, code="not_supported")
