"""Anthropic's `/v1/messages` and `/v1/messages/count_tokens` as OpenAI chats. Pure.

Never passed through, though vLLM and llama.cpp have routes of that name: theirs differ from each other, and a failure
in the middle of a stream would not be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.dialects.anthropic.response import AnthropicEncoder
from app.dialects.client_api import (
    TranslatedRequest,
    decoded,
    given,
    left_out,
    unknown,
    unknown_inside,
    with_results,
    word,
)
from app.dialects.engine_options import LEVELS
from app.errors import Problem, bad_request
from backends.texts import joined

Block = Mapping[str, Any]
_Content = str | list[dict[str, Any]]
_INNER = {"output_config": ("effort", "format"), "thinking": ("type", "budget_tokens")}
_NO_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# What Anthropic does beyond the model; none of it changes what the model is asked.
_DROPPED = ("container", "context_management", "inference_geo", "mcp_servers", "metadata", "service_tier", "speed")


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: _Content


class _Tool(msgspec.Struct, frozen=True):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = _NO_SCHEMA
    strict: bool | None = None


class _Choice(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct, frozen=True):
    type: str
    budget_tokens: int | None = None


class _Format(msgspec.Struct, frozen=True):
    type: str
    schema: msgspec.Raw = msgspec.Raw(b"{}")


class _Output(msgspec.Struct, frozen=True):
    effort: str | None = None
    format: _Format | None = None


class _Request(msgspec.Struct, frozen=True):
    model: str | None = None
    messages: list[_Message] | None = None
    max_tokens: int | None = None
    system: _Content | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None
    mcp_servers: Any = None
    metadata: Any = None
    container: Any = None
    context_management: Any = None
    inference_geo: Any = None
    service_tier: Any = None
    speed: Any = None


_requests = msgspec.json.Decoder(_Request)


class AnthropicMessagesApi:
    """`/v1/messages`, and with `counts` the route that counts tokens, which needs no `max_tokens`."""

    def __init__(self, *, counts: bool) -> None:
        self._counts = counts

    def encoder(self, token: str) -> AnthropicEncoder:
        """For refusals; the model's name is not known yet."""
        return AnthropicEncoder("", token)

    def translate(self, body: bytes, token: str) -> TranslatedRequest:
        """As a chat."""
        asked = decoded(_requests, body)
        if not asked.messages:
            raise bad_request("messages: at least one message is required.", param="messages", code="missing_field")
        if not self._counts and (asked.max_tokens is None or asked.max_tokens < 1):
            raise bad_request(
                "max_tokens: a number of 1 or more is required.", param="max_tokens", code="missing_field"
            )
        conversation = _Conversation()
        messages = conversation.messages(asked)
        tools, left = _tools(asked)
        fields = {"messages": messages, **tools, **given(response_format=_form(asked))}
        fields |= given(
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            stop=asked.stop_sequences or None,
            stream=asked.stream,
        )
        extras = given(top_k=asked.top_k, think=_think(asked))
        if asked.messages[-1].role == "assistant":
            extras["prefill"] = True
        dropped = [name for name in _DROPPED if getattr(asked, name) not in (None, [])] + unknown(_Request, body)
        dropped += [*left, *dict.fromkeys(conversation.dropped)]
        dropped += unknown_inside(body, _INNER)
        if self._counts and asked.tool_choice is not None:
            dropped.append("tool_choice")  # tokens are counted as if the model were free
        if asked.thinking is not None and asked.thinking.budget_tokens is not None:
            dropped.append("thinking.budget_tokens")
        encoder = AnthropicEncoder(asked.model or "", token, asked.stop_sequences or ())
        return TranslatedRequest("/v1/chat/completions", asked.model, fields, encoder, extras, tuple(dropped))


# -- messages


class _Conversation:
    """The messages of one request. `dropped`: names of blocks that are left out; agents send their whole history with
    every request, so a block that says nothing to this model must not end the conversation."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def messages(self, asked: _Request) -> list[dict[str, Any]]:
        """The messages in OpenAI's shape; Problem (400) where none is left."""
        messages: list[dict[str, Any]] = []
        if asked.system:
            messages.append({"role": "system", "content": _text(asked.system, "system")})
        for said in asked.messages or ():
            match said.role:
                case "user":
                    messages += self._user(said.content)
                case "assistant":
                    messages.append(self._assistant(said.content))
                case "system" | "developer":
                    messages.append({"role": "system", "content": _text(said.content, "messages")})
                case _:
                    raise bad_request("messages: a role is 'user' or 'assistant'.", param="messages")
        if not messages:
            message = "messages: nothing is left that a model can read: all of their blocks were left out."
            raise bad_request(message, param="messages", code="missing_field")
        return with_results(messages)

    def _user(self, content: _Content) -> Iterator[dict[str, Any]]:
        """Results of tools are messages of their own in OpenAI's API, before what the user says."""
        if isinstance(content, str):
            yield {"role": "user", "content": content}
            return
        parts: list[dict[str, Any]] = []
        for block in content:
            match block.get("type"):
                case "tool_result":
                    inner = list(self._result(block))
                    text = joined(part["text"] for part in inner if part["type"] == "text")
                    # OpenAI's API has no word for a failure.
                    text = f"Error: {text}" if block.get("is_error") is True else text
                    shown = [part for part in inner if part["type"] != "text"]
                    id_ = _string(block, "tool_use_id")
                    yield {"role": "tool", "tool_call_id": id_, "content": text, "shown": shown}
                case "container_upload":  # a file for a container of Anthropic's
                    self.dropped.append("messages.container_upload")
                case _:
                    parts += _parts([block])
        if len(parts) == 1 and parts[0]["type"] == "text":
            yield {"role": "user", "content": parts[0]["text"]}
        elif parts:
            yield {"role": "user", "content": parts}

    def _result(self, block: Block) -> Iterator[dict[str, Any]]:
        """A result's parts; where one is not supported the model is told so in its place."""
        content = block.get("content")
        if content is not None and not isinstance(content, str | list):
            message = "messages: 'content' of a tool_result is a string or a list of blocks."
            raise bad_request(message, param="messages", code="invalid_type")
        if isinstance(content, list) and not all(isinstance(each, str) or _is_block(each) for each in content):
            content = _json(content)  # what is not a list of blocks is passed on as text
        for each in [content] if isinstance(content, str) else content or ():
            try:
                yield from _parts(each if isinstance(each, str) else [each])
            except Problem as problem:
                if problem.code != "not_supported":
                    raise
                kind = each["type"] if isinstance(each, dict) else None
                self.dropped.append(left_out("messages", kind))
                yield {"type": "text", "text": f"[{word(kind) or '?'}: left out, it cannot be shown here]"}

    def _assistant(self, content: _Content) -> dict[str, Any]:
        if isinstance(content, str):
            return {"role": "assistant", "content": content}
        texts, thoughts, calls = [], [], []
        for block in content:
            match block.get("type"):
                case "text":
                    texts.append(_string(block, "text"))
                case "thinking":
                    thoughts.append(_string(block, "thinking"))
                case "redacted_thinking":
                    pass  # only Anthropic can read it
                case "tool_use":
                    function = {"name": _string(block, "name"), "arguments": _input(block)}
                    calls.append({"id": _string(block, "id"), "type": "function", "function": function})
                case kind:  # what Anthropic's own tools did
                    self.dropped.append(left_out("messages", kind))
        message: dict[str, Any] = {"role": "assistant", "content": joined(texts)}
        if thoughts:
            # Two names for one thing: vLLM reads the first, llama.cpp the second.
            message |= {"reasoning": joined(thoughts), "reasoning_content": joined(thoughts)}
        return message | ({"tool_calls": calls} if calls else {})


def _is_block(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("type"), str)


def _input(block: Block) -> str:
    value = block.get("input")
    if not isinstance(value, dict | None):
        message = "messages: 'input' of a tool_use block must be an object."
        raise bad_request(message, param="messages", code="invalid_type")
    return _json(value or {})


def _parts(content: _Content) -> Iterator[dict[str, Any]]:
    """Text and pictures."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}
        return
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        source = block.get("source") if isinstance(block, dict) else None
        match kind, source:
            case "text", _:
                yield {"type": "text", "text": _string(block, "text")}
            case "image", {"type": "base64", "media_type": str(media), "data": str(data)}:
                yield {"type": "image_url", "image_url": {"url": f"data:{media};base64,{data}"}}
            case "image", {"type": "url", "url": str(url)}:
                yield {"type": "image_url", "image_url": {"url": url}}
            case "document", {"type": "text", "data": str(data)}:
                yield {"type": "text", "text": joined([*_about(block), data])}
            case "document", {"type": "content", "content": (str() | list()) as inner}:
                yield from ({"type": "text", "text": each} for each in _about(block))
                yield from _parts(inner)
            case "search_result", _ if isinstance(block.get("content"), str | list):
                about = [_string(block, name) for name in ("title", "source") if block.get(name) is not None]
                yield from ({"type": "text", "text": each} for each in about)
                yield from _parts(block["content"])
            case "tool_reference", _:  # what a search for tools has found
                yield {"type": "text", "text": _string(block, "tool_name")}
            case _:
                raise _unsupported(f"a block of type '{word(kind) or '?'}'" + (" with this source" if source else ""))


def _about(block: Block) -> list[str]:
    """What a document is called, and what else is said of it: the model reads it before the document."""
    return [_string(block, name) for name in ("title", "context") if block.get(name) is not None]


def _text(content: _Content, field: str) -> str:
    parts = list(_parts(content))
    if any(part["type"] != "text" for part in parts):
        raise bad_request(f"{field}: only text is taken there.", param=field)
    return joined(part["text"] for part in parts)


# -- parameters


def _tools(asked: _Request) -> tuple[dict[str, Any], list[str]]:
    """The functions, and the names of tools that are left out: those that Anthropic runs or defines."""
    tools: list[dict[str, Any]] = []
    left: list[str] = []
    for tool in asked.tools or ():
        if tool.type not in (None, "custom"):
            left.append(left_out("tools", tool.type))
            continue
        if not tool.name:
            raise bad_request("tools: a tool has a name.", param="tools", code="invalid_type")
        function = {"name": tool.name, **given(description=tool.description, strict=tool.strict)}
        schema = _NO_SCHEMA if bytes(memoryview(tool.input_schema)[:1]) == b"n" else tool.input_schema
        tools.append({"type": "function", "function": function | {"parameters": schema}})
    choice = asked.tool_choice
    if choice is None or (choice.type in ("auto", "none") and not tools):
        return ({"tools": tools} if tools else {}), left
    if choice.type == "tool":
        if choice.name not in [tool["function"]["name"] for tool in tools]:
            raise _no_tool("the tool that it names is not among the tools sent, or cannot be run here")
        named: Any = {"type": "function", "function": {"name": choice.name}}
    elif choice.type in _CHOICES:
        if not tools:
            why = "none of the tools sent can be run here" if left else "there are no tools"
            raise _no_tool(f"a tool must be called, and {why}")
        named = _CHOICES[choice.type]
    else:
        raise bad_request("tool_choice: the type is 'auto', 'any', 'tool' or 'none'.", param="tool_choice")
    parallel = {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
    return {"tools": tools, "tool_choice": named, **parallel}, left


def _no_tool(why: str) -> Problem:
    return bad_request(f"tool_choice: {why}.", param="tool_choice", code="not_supported")


def _form(asked: _Request) -> dict[str, Any] | None:
    form = asked.output_config.format if asked.output_config and asked.output_config.format else asked.output_format
    if form is None:
        return None
    if form.type != "json_schema":
        raise bad_request("output_config.format: the type is 'json_schema'.", param="output_config")
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": form.schema}}


def _think(asked: _Request) -> bool | str | None:
    effort = asked.output_config.effort if asked.output_config else None
    if effort is not None and effort not in LEVELS:
        raise bad_request(f"output_config.effort: one of {', '.join(LEVELS)}.", param="output_config")
    match asked.thinking:
        case None:
            return effort
        case _Thinking(type="disabled"):
            return False
        case _Thinking(type="enabled" | "adaptive"):
            return effort or True
    raise bad_request("thinking: the type is 'enabled', 'adaptive' or 'disabled'.", param="thinking")


def _string(block: Block, name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise bad_request(f"messages: '{name}' of a block must be a string.", param="messages", code="invalid_type")
    return value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _unsupported(what: str) -> Problem:
    return bad_request(f"{what} is not supported by this gateway.", code="not_supported")
