"""OpenAI's `/v1/responses` as chats: every request brings its whole conversation, and nothing is kept. Pure.

Never passed through, though some engines have the route: what they do with it differs, and chats are what all of them
do well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.dialects.client_api import TranslatedRequest, decoded, given, unknown, unknown_inside
from app.dialects.engine_options import LEVELS
from app.dialects.responses import items as responses_items
from app.dialects.responses import tools as responses_tools
from app.dialects.responses.items import unsupported
from app.dialects.responses.response import ResponsesEncoder
from app.dialects.responses.tools import ClientTools
from app.errors import bad_request

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
_INNER = {"reasoning": ("effort", "summary"), "text": ("format", "verbosity")}
_LOGPROBS = "message.output_text.logprobs"


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
    stream_options: Any = None
    max_output_tokens: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
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


class ResponsesApi:
    """The route `/v1/responses`. `clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def encoder(self, token: str) -> ResponsesEncoder:
        """For refusals; the model's name is not known yet."""
        return ResponsesEncoder("", token, self._clock, {})

    def translate(self, body: bytes, token: str) -> TranslatedRequest:
        """As a chat."""
        asked = decoded(_requests, body)
        for name in _KEPT:
            if getattr(asked, name):
                raise unsupported(f"'{name}'", name, "nothing is kept between requests: send the whole conversation")
        if not asked.input and not asked.instructions:
            raise bad_request("'input' is missing.", param="input", code="missing_field")
        if asked.max_output_tokens is not None and asked.max_output_tokens < 1:
            message = f"'max_output_tokens' must be a whole number of 1 or more, and is {asked.max_output_tokens}."
            raise bad_request(message, param="max_output_tokens", code="invalid_value")
        wants_logprobs = asked.top_logprobs is not None or _LOGPROBS in (asked.include or ())
        tools = responses_tools.read([*(asked.tools or ()), *responses_items.offered(asked.input)])
        messages, left = responses_items.messages(asked.input, asked.instructions, tools)
        fields = {"messages": messages, **_called(asked, tools), **given(response_format=_form(asked))}
        fields |= given(
            max_tokens=asked.max_output_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            stream=asked.stream,
            logprobs=wants_logprobs or None,
            top_logprobs=asked.top_logprobs,
            service_tier=_tier(asked),
        )
        encoder = ResponsesEncoder(asked.model or "", token, self._clock, _echo(asked), tools)
        extras = given(think=_think(asked))
        dropped = (*_dropped(asked), *tools.dropped, *left, *unknown(_Request, body), *unknown_inside(body, _INNER))
        return TranslatedRequest("/v1/chat/completions", asked.model, fields, encoder, extras, dropped)


def _tier(asked: _Request) -> str | None:
    """`flex`, which says that it may wait; nothing else has an effect."""
    return "flex" if asked.service_tier == "flex" else None


def _dropped(asked: _Request) -> list[str]:
    names = [name for name in _DROPPED if getattr(asked, name) not in (None, "disabled")]
    names = [name for name in names if name != "service_tier" or _tier(asked) is None]  # else who asks engines names it
    names += ["include"] if set(asked.include or ()) - {_LOGPROBS} else []
    names += ["text.verbosity"] if asked.text is not None and asked.text.verbosity else []
    names += ["stream_options"] if asked.stream_options not in (None, {}, {"include_obfuscation": False}) else []
    return names + (["reasoning.summary"] if asked.reasoning is not None and asked.reasoning.summary else [])


# -- parameters


def _called(asked: _Request, tools: ClientTools) -> dict[str, Any]:
    choice, functions = responses_tools.choice(asked.tool_choice, tools)
    if not functions:
        return {}
    return {"tools": functions, **given(tool_choice=choice, parallel_tool_calls=asked.parallel_tool_calls)}


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
    functions = {"name": None, "parameters": None, "strict": None}
    tools = [(functions if tool.get("type") == "function" else {}) | tool for tool in asked.tools or ()]
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
