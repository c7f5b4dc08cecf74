"""Ollama's `/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings` as OpenAI requests. Pure.

What OpenAI's API has no parameter for goes into `extras`; what no engine can be told is named in `dropped`.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from app.dialects.client_api import TranslatedRequest, decoded, given, unknown, with_results
from app.dialects.engine_options import LEVELS
from app.dialects.ollama.response import Kind, OllamaChatEncoder, OllamaEmbedEncoder
from app.errors import Problem, bad_request

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+)\Z")
# The first bytes of the formats that Ollama takes, in base64.
_FORMATS = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "UklGR": "webp", "R0lGOD": "gif"}
_NO_BOUNDS = (-1, -2)
_NUMBERS = {"temperature": "temperature", "top_p": "top_p", "presence_penalty": "presence_penalty"}
_NUMBERS |= {"frequency_penalty": "frequency_penalty"}
_EXTRAS = {"top_k": int, "min_p": float, "typical_p": float, "repeat_last_n": int, "repeat_penalty": float}


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct, frozen=True):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Common(msgspec.Struct, frozen=True):
    model: str | None = None
    stream: bool | None = None
    keep_alive: str | float | None = None
    options: dict[str, Any] | None = None
    format: msgspec.Raw = msgspec.Raw(b"null")
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class _Chat(_Common, frozen=True):
    messages: list[_Message] | None = None
    tools: list[msgspec.Raw] | None = None


class _Generate(_Common, frozen=True):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: msgspec.Raw = msgspec.Raw(b"null")
    raw: bool | None = None
    images: list[str] | None = None


class _Embed(_Common, frozen=True):
    input: str | list[str] | None = None
    prompt: str | None = None
    dimensions: int | None = None


_chats = msgspec.json.Decoder(_Chat)
_generates = msgspec.json.Decoder(_Generate)
_embeds = msgspec.json.Decoder(_Embed)


class OllamaChatApi:
    """`/api/chat` and `/api/generate`."""

    def __init__(self, kind: Kind, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._clock = clock

    def encoder(self, token: str) -> OllamaChatEncoder:
        """For refusals; the model's name is not known yet."""
        return OllamaChatEncoder(self._kind, "", token, self._clock)

    def translate(self, body: bytes, token: str) -> TranslatedRequest:
        """A chat; also for `/api/generate`, whose prompts go through the model's template unless they are `raw`."""
        if self._kind is Kind.CHAT:
            chat = decoded(_chats, body)
            path, asked, fields = "/v1/chat/completions", bool(chat.messages), _chat(chat)
            return self._ask(chat, path, fields, body, token, asks=asked)
        text = decoded(_generates, body)
        _refuse_unsupported(text)
        if text.raw:
            path, fields = "/v1/completions", {"prompt": text.prompt or ""}
        else:
            path, fields = "/v1/chat/completions", {"messages": _turns(text)}
        return self._ask(text, path, fields, body, token, asks=bool(text.prompt or text.images))

    def _ask(
        self, head: _Common, path: str, fields: dict[str, Any], body: bytes, token: str, *, asks: bool
    ) -> TranslatedRequest:
        encoder = OllamaChatEncoder(self._kind, head.model or "", token, self._clock)
        _check_keep_alive(head.keep_alive)
        if not asks and head.keep_alive in (0, "0", "0s"):
            message = (
                "Models are unloaded by the gateway itself (unload_after_s) or its administrator, not by a request."
            )
            raise Problem(501, "not_supported", message, type_="invalid_request_error")
        options, extras, dropped = read_options(head.options or {})
        dropped += [name for name in ("truncate", "shift") if getattr(head, name)]
        dropped += ["keep_alive"] if head.keep_alive is not None else []
        dropped += unknown(type(head), body)
        form = _format(head.format)
        if path == "/v1/chat/completions":
            extras |= given(think=_thought(head.think))
            fields |= given(response_format=form, logprobs=head.logprobs, top_logprobs=head.top_logprobs)
        else:  # without a template nothing tells the model to think
            extras |= given(format=form)
            dropped += [name for name in ("think", "logprobs", "top_logprobs") if getattr(head, name)]
        fields |= {"stream": head.stream is not False, **options}
        return TranslatedRequest(
            path, head.model, fields, encoder, extras, tuple(dropped), None if asks else encoder.loaded()
        )


class OllamaEmbedApi:
    """`/api/embed`, and `/api/embeddings` with its one `prompt`."""

    def __init__(self, clock: Callable[[], float], *, is_old: bool) -> None:
        self._clock = clock
        self._is_old = is_old

    def encoder(self, token: str) -> OllamaEmbedEncoder:
        """For refusals; the model's name is not known yet."""
        return OllamaEmbedEncoder("", self._clock, is_old=self._is_old)

    def translate(self, body: bytes, token: str) -> TranslatedRequest:
        """OpenAI's embeddings, as numbers."""
        head = decoded(_embeds, body)
        encoder = OllamaEmbedEncoder(head.model or "", self._clock, is_old=self._is_old)
        texts = head.prompt if self._is_old else head.input
        _check_keep_alive(head.keep_alive)
        dropped = sorted(name for name in head.options or {} if _NAME.match(name))
        dropped += unknown(_Embed, body)
        dropped += ["truncate"] if head.truncate else []
        dropped += ["keep_alive"] if head.keep_alive is not None else []
        fields = {"input": texts or "", "encoding_format": "float", **given(dimensions=head.dimensions)}
        nothing = None if texts else encoder.loaded()
        return TranslatedRequest("/v1/embeddings", head.model, fields, encoder, dropped=tuple(dropped), loads=nothing)


# -- messages


def _chat(chat: _Chat) -> dict[str, Any]:
    """Messages and tools. Ollama's calls need no ids: results are matched by name, else by order."""
    messages: list[dict[str, Any]] = []
    open_calls = _OpenCalls()
    for at, said in enumerate(chat.messages or ()):
        message: dict[str, Any] = {"role": said.role}
        if said.role == "tool":
            message["content"] = said.content or ""
            message["shown"] = [_picture(image) for image in said.images or ()]
            message["tool_call_id"] = said.tool_call_id or open_calls.answered(said.tool_name)
        else:
            message["content"] = _content(said.content or "", said.images)
        if said.tool_calls:
            calls = [(call.id or f"call_{at}_{n}", call.function) for n, call in enumerate(said.tool_calls)]
            for id_, function in calls:
                open_calls.add(id_, function.name)
            message["tool_calls"] = [_call(id_, function) for id_, function in calls]
        if said.thinking:
            # Two names for one thing: vLLM reads the first, llama.cpp the second.
            message |= {"reasoning": said.thinking, "reasoning_content": said.thinking}
        messages.append(message)
    return {"messages": with_results(messages), **given(tools=chat.tools or None)}


def _call(id_: str, function: _Function) -> dict[str, Any]:
    arguments = bytes(function.arguments).decode()
    if not arguments.startswith("{"):
        raise bad_request("'messages[].tool_calls[].function.arguments' must be an object.", param="messages")
    return {"id": id_, "type": "function", "function": {"name": function.name, "arguments": arguments}}


class _OpenCalls:
    """Calls without a result yet. A step takes the same time however many there are: their number is the client's."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._is_open: list[bool] = []
        self._in_order: deque[int] = deque()  # may hold answered ones, as each of `_named` may
        self._named: defaultdict[str, deque[int]] = defaultdict(deque)

    def add(self, id_: str, name: str) -> None:
        """One more call without a result."""
        self._in_order.append(len(self._ids))
        self._named[name].append(len(self._ids))
        self._ids.append(id_)
        self._is_open.append(True)

    def answered(self, name: str | None) -> str:
        """The id of the first open call of that name, else of the first of all; it is not open any more."""
        named = self._named.get(name) if name is not None else None
        for queue in (named, self._in_order):
            while queue:
                at = queue.popleft()
                if self._is_open[at]:
                    self._is_open[at] = False
                    return self._ids[at]
        return "call_unknown"


def _content(text: str, images: list[str] | None) -> str | list[dict[str, Any]]:
    if not images:
        return text
    return [*([{"type": "text", "text": text}] if text else []), *map(_picture, images)]


def _picture(image: str) -> dict[str, Any]:
    for start, kind in _FORMATS.items():
        if image.startswith(start):
            return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{image}"}}
    raise bad_request("An image is neither PNG, JPEG, WebP nor GIF in base64.", param="images")


def _turns(text: _Generate) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": text.system}] if text.system else []
    return [*system, {"role": "user", "content": _content(text.prompt or "", text.images)}]


def _refuse_unsupported(text: _Generate) -> None:
    """Problem (400) for what would change the answer if it were left out."""
    if text.suffix:
        raise bad_request(f"{text.model} does not support insert", param="suffix", code="not_supported")
    if text.template:
        raise bad_request("'template' is not supported: send 'raw': true.", param="template", code="not_supported")
    if bytes(text.context).strip() not in (b"null", b"[]"):
        message = "'context' is not supported: send the conversation to /api/chat."
        raise bad_request(message, param="context", code="not_supported")
    if text.raw and text.images:
        raise bad_request("'images' and 'raw' do not go together here.", param="images", code="not_supported")


# -- parameters


def read_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Ollama's `options` as OpenAI's fields, as extras, and the names of those that no engine here can be told.

    The context's length is one of the latter: it is fixed for each model, since another would load it anew.
    """
    fields: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        if name in _NUMBERS:
            fields[_NUMBERS[name]] = _number(name, value, float)
        elif name in _EXTRAS:
            extras[name] = _number(name, value, _EXTRAS[name])
        elif name == "num_predict":
            fields |= _bound(_number(name, value, int))
        elif name == "seed":
            if _number(name, value, int) >= 0:
                fields["seed"] = int(value)
        elif name == "stop":
            fields |= _stop(value)
        elif _NAME.match(name):
            dropped.append(name)
    return fields, extras, sorted(dropped)


def _number(name: str, value: Any, type_: type[int] | type[float]) -> int | float:
    is_fit = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_fit or (type_ is int and (value != int(value) or abs(value) >= 2**63)):
        wanted = "integer" if type_ is int else "float32"
        raise bad_request(f'option "{name}" must be of type {wanted}', param="options", code="invalid_type")
    return type_(value)


def _bound(most: float) -> dict[str, Any]:
    """-1 and -2 are Ollama's words for no bound but the context's; any other number below 1 is a mistake."""
    if most not in _NO_BOUNDS and most < 1:
        message = f'option "num_predict" must be 1 or more, or -1 for no bound: {int(most)} is neither'
        raise bad_request(message, param="options")
    return {"max_tokens": int(most)} if most > 0 else {}


def _stop(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stop": [value]}
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise bad_request('option "stop" must be of type array', param="options", code="invalid_type")
    return {"stop": value} if value else {}


def _format(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        wanted = msgspec.json.decode(raw)
    except msgspec.ValidationError as exc:
        message = "'format' holds a number that is out of range."
        raise bad_request(message, param="format", code="invalid_value") from exc
    if wanted in (None, ""):
        return None
    if wanted == "json":
        return {"type": "json_object"}
    if isinstance(wanted, dict):
        return {"type": "json_schema", "json_schema": {"name": "format", "schema": raw}}
    raise bad_request("'format' must be \"json\" or a JSON schema.", param="format", code="invalid_type")


def _thought(think: bool | str | None) -> bool | str | None:
    if isinstance(think, str) and think not in LEVELS:
        wanted = "true, false, " + ", ".join(f'"{level}"' for level in LEVELS)
        raise bad_request(f"'think' must be one of {wanted}.", param="think")
    return think


def _check_keep_alive(value: str | float | None) -> None:
    if isinstance(value, str) and not _DURATION.match(value):
        raise bad_request("time: invalid duration in 'keep_alive'", param="keep_alive")
