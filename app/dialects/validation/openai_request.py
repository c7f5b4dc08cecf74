"""Whether a request is what OpenAI's specification allows: types, shapes and ranges. Pure.

For engines on this machine only: a remote one decides for itself what it takes. Where the specification is stricter
than real clients are (null for what is left out, empty lists), it is read leniently (docs/wire.md). Long texts are not
decoded: their first byte shows that they are texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from app.dialects.validation.messages import NOTHING, TYPES, FunctionDescription, Tool, check_each, check_messages
from app.dialects.validation.prompts import check_prompt
from app.errors import Problem, bad_request

MAX_STOPS: Final = 4
MAX_INPUTS: Final = 2048
MAX_SHOWN: Final = 32
_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")

_Upwards = Annotated[float, Meta(ge=1, multiple_of=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Heat = Annotated[float, Meta(ge=0, le=2)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Choice(msgspec.Struct, frozen=True):
    type: str
    function: _Named | None = None


class _Schema(msgspec.Struct, frozen=True):
    name: str
    schema: dict[str, Raw] | None = None
    strict: bool | None = None
    description: str | None = None


class _Form(msgspec.Struct, frozen=True):
    type: str
    json_schema: _Schema | None = None


class _Sampling(msgspec.Struct, frozen=True):
    temperature: _Heat | None = None
    top_p: _Share | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    seed: Annotated[float, Meta(ge=-(2**63), le=2**63, multiple_of=1)] | None = None
    n: _Upwards | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    user: str | None = None


class _Chat(_Sampling, frozen=True):
    max_tokens: _Upwards | None = None
    max_completion_tokens: _Upwards | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[float, Meta(ge=0, le=20, multiple_of=1)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDescription] | None = None
    function_call: str | _Named | None = None
    response_format: _Form | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    metadata: dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Raw] | None = None
    prediction: dict[str, Raw] | None = None
    web_search_options: dict[str, Raw] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class _Text(_Sampling, frozen=True):
    max_tokens: Annotated[float, Meta(ge=0, multiple_of=1)] | None = None
    max_completion_tokens: _Upwards | None = None
    logprobs: Annotated[float, Meta(ge=0, le=5, multiple_of=1)] | None = None
    best_of: Annotated[float, Meta(ge=1, multiple_of=1)] | None = None
    echo: bool | None = None
    suffix: str | None = None


class _Embedding(msgspec.Struct, frozen=True):
    encoding_format: str | None = None
    dimensions: _Upwards | None = None
    user: str | None = None


class _Translated(msgspec.Struct, frozen=True):
    """What is checked of a request from another dialect, by whose rules its numbers were checked."""

    tools: list[Tool] | None = None
    response_format: _Form | None = None


_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "chat": msgspec.json.Decoder(_Chat),
    "text_completion": msgspec.json.Decoder(_Text),
    "embeddings": msgspec.json.Decoder(_Embedding),
}
_translated = msgspec.json.Decoder(_Translated)


# What a field must be, where its type alone does not say it.
_WANTED: Final = {
    "temperature": "a number from 0 to 2",
    "top_p": "a number from 0 to 1",
    "presence_penalty": "a number from -2 to 2",
    "frequency_penalty": "a number from -2 to 2",
    "seed": "a whole number of 64 bits",
    "n": "a whole number of 1 or more",
    "best_of": "a whole number of 1 or more",
    "stop": "a string or a list of strings",
    "logit_bias": "an object with a number from -100 to 100 for each token",
    "max_tokens": "a whole number of 1 or more",
    "max_completion_tokens": "a whole number of 1 or more",
    "logprobs": "true or false in a chat, and in a completion a whole number from 0 to 5",
    "top_logprobs": "a whole number from 0 to 20",
    "dimensions": "a whole number of 1 or more",
    "metadata": "an object of strings, with names of at most 64 and values of at most 512 characters",
    "response_format": "an object with a 'type', and of 'json_schema' with a 'json_schema' that has a 'name'",
    "tools": "a list of objects with 'type' and 'function', which has a 'name'",
    "tool_choice": "'none', 'auto', 'required' or an object that names a function",
    "functions": "a list of objects with a 'name'",
    "function_call": "'none', 'auto' or an object with a 'name'",
}
_WORDS: Final = {
    "tool_choice": ("none", "auto", "required"),
    "function_call": ("none", "auto"),
    "reasoning_effort": _EFFORTS,
    "verbosity": ("low", "medium", "high"),
    "service_tier": ("auto", "default", "flex", "scale", "priority", "standard_only"),
    "encoding_format": ("float", "base64"),
}


def check(operation: str, body: bytes, members: Mapping[str, Raw], *, is_translated: bool = False) -> None:
    """Problem (400) that names the first field that is wrong, and what it must be. `is_translated`: the request came in
    another dialect, by whose rules its numbers were checked.
    """
    decoder = _DECODERS.get(operation)
    if decoder is None:
        return
    try:
        asked = (_translated if is_translated else decoder).decode(body)
    except msgspec.ValidationError as exc:
        raise _wrong(str(exc), members) from exc
    if not is_translated:
        _check_words(asked)
        _check_stops(asked)
    if operation == "chat":
        check_messages(members.get("messages", NOTHING))
        if asked.tools:
            check_each(asked.tools)
        if asked.response_format is not None:
            _check_form(asked.response_format)
    elif operation == "text_completion":
        check_prompt("prompt", members.get("prompt", NOTHING))
    else:
        check_prompt("input", members.get("input", NOTHING), most=MAX_INPUTS)


def _wrong(reason: str, members: Mapping[str, Raw]) -> Problem:
    """The 400 for msgspec's reason, which holds only types and the place: "Expected `float` <= 2.0 - at `$.n`"."""
    place = re.search(r"`\$\.?([^`]*)`", reason)
    path = place[1].replace("[...]", "") if place else ""
    field = re.split(r"[.\[]", path)[0]
    expected = re.search(r"Expected `([^`]*)`", reason)
    lacks = re.search(r"missing required field `([^`]*)`", reason)
    kind = (expected[1] if expected else "").split(" | ")[0]
    is_type = expected is not None and reason.find("` of") < 0 and "<" not in reason and ">" not in reason
    code = "invalid_type" if is_type and "multiple" not in reason else "invalid_value"
    if lacks is not None:
        return bad_request(f"'{path}.{lacks[1]}' is missing.", param=field, code="missing_field")
    wanted = _WANTED.get(field) if path == field or field not in ("tools", "response_format") else None
    wanted = wanted or TYPES.get(kind, "of another type")
    shown = _shown(members.get(field, NOTHING)) if path == field else ""
    return bad_request(f"'{path}' must be {wanted}{shown}.", param=field or None, code=code)


def _shown(raw: Raw) -> str:
    """The value, for the end of a message, where it is a number; nothing else of a request is repeated."""
    text = bytes(memoryview(raw)[: MAX_SHOWN + 1]).decode("ascii", "replace")
    return f", and is {text}" if len(text) <= MAX_SHOWN and text[:1] in "-0123456789" else ""


def _check_words(asked: Any) -> None:
    for field, words in _WORDS.items():
        value = getattr(asked, field, None)
        if isinstance(value, str) and value not in words:
            known = ", ".join(f"'{word}'" for word in words)
            raise bad_request(f"'{field}' must be one of {known}.", param=field, code="invalid_value")
    choice = getattr(asked, "tool_choice", None)
    if isinstance(choice, _Choice) and choice.type == "function" and choice.function is None:
        raise bad_request("'tool_choice.function' is missing.", param="tool_choice", code="missing_field")
    for word in getattr(asked, "modalities", None) or ():
        if word not in ("text", "audio"):
            raise bad_request(
                "'modalities' may hold only 'text' and 'audio'.", param="modalities", code="invalid_value"
            )


def _check_stops(asked: Any) -> None:
    stop = getattr(asked, "stop", None)
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        message = f"'stop' holds at most {MAX_STOPS} strings, and has {len(stop)}."
        raise bad_request(message, param="stop", code="invalid_value")
    for token in getattr(asked, "logit_bias", None) or ():
        if not (token.isascii() and token.isdigit()):
            message = "The names in 'logit_bias' must be token numbers."
            raise bad_request(message, param="logit_bias", code="invalid_value")
    if len(getattr(asked, "metadata", None) or ()) > 16:
        raise bad_request("'metadata' has at most 16 members.", param="metadata", code="invalid_value")


def _check_form(form: _Form) -> None:
    if form.type not in ("text", "json_object", "json_schema", "structural_tag"):
        message = "'response_format.type' must be 'text', 'json_object' or 'json_schema'."
        raise bad_request(message, param="response_format", code="invalid_value")
    if form.type == "json_schema" and form.json_schema is None:
        message = "'response_format.json_schema' is missing."
        raise bad_request(message, param="response_format", code="missing_field")
