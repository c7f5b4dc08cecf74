"""An OpenAI request as a request to an Ollama daemon's own API. Pure: bytes in, bytes out.

What the daemon cannot honour is named (`dropped`) or refused; nothing is ignored silently (docs/ollama.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from backends.endpoint import ModelFacts
from backends.errors import Rejected, Unsupported
from backends.ollama.messages import RefuseField, messages
from backends.texts import encoded

PATHS: Final = MappingProxyType({"chat": "/api/chat", "text_completion": "/api/generate", "embeddings": "/api/embed"})
MAX_NAMED: Final = 100  # of the dropped parameters, so many are named
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")

# OpenAI's name, or the one that other engines use → the daemon's option, and whether it is a whole number.
_OPTIONS: Final = MappingProxyType(
    {
        "temperature": ("temperature", False),
        "top_p": ("top_p", False),
        "top_k": ("top_k", True),
        "min_p": ("min_p", False),
        "typical_p": ("typical_p", False),
        "presence_penalty": ("presence_penalty", False),
        "frequency_penalty": ("frequency_penalty", False),
        "repeat_penalty": ("repeat_penalty", False),
        "repetition_penalty": ("repeat_penalty", False),
        "repeat_last_n": ("repeat_last_n", True),
        "seed": ("seed", True),
    }
)
# Parameters that are read here, or that have no influence on the response.
_KNOWN: Final = frozenset(_OPTIONS) | {
    *("model", "messages", "prompt", "input", "suffix", "stream", "stream_options", "stop", "n", "best_of", "echo"),
    *("max_tokens", "max_completion_tokens", "response_format", "reasoning_effort", "reasoning", "tools"),
    *("tool_choice", "functions", "function_call", "logprobs", "top_logprobs", "dimensions", "encoding_format"),
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
}
_EFFORTS: Final = MappingProxyType(
    {
        "none": False,
        "minimal": "low",
        "low": "low",
        "medium": "medium",
        "high": "high",
        "xhigh": "high",
        "ultra": "max",
        "max": "max",
    }
)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class OllamaRequest(msgspec.Struct, frozen=True):
    """What the daemon is sent, and what must be known to read its response.

    `path` is below the daemon's root. `name`: the client's own name for the model. `is_base64`: embeddings are wanted
    in base64. `num_ctx`: the context length that the model is asked for. `dropped`: the client's parameters that have
    no effect.
    """

    operation: str
    path: str
    body: bytes
    name: str
    is_stream: bool = False
    wants_usage: bool = False
    is_base64: bool = False
    num_ctx: int | None = None
    dropped: tuple[str, ...] = ()


def translate(
    operation: str, body: bytes, *, engine: str, name: str, model: str, facts: ModelFacts | None
) -> OllamaRequest:
    """The request to the daemon for its model `model`, from `body`, the client's, which is one sound JSON object.

    `operation`: one of PATHS. `engine`: the backend, for errors. `name`: the client's name for the model. `facts`: what
    is known of the model. Raises Rejected for what is malformed and Unsupported for what this daemon cannot do.
    """
    facts = facts or ModelFacts()
    request = _ClientRequest(engine, _members.decode(body), facts)
    sent: dict[str, Any] = {"model": model}
    if operation == "embeddings":
        _embed(request, sent)
    else:
        sent["stream"] = request.flag("stream")
        if request.facts.abilities and not request.can("completion") and request.can("embedding"):
            raise request.cannot("The model writes no text: it makes embeddings.", "model")
        (_chat if operation == "chat" else _generate)(request, sent)
        _sampling(request, sent)
        # The same in every request: another value makes the daemon load the model anew.
        sent["shift"] = facts.shift
    sent["truncate"] = False
    if facts.num_ctx is not None:
        sent.setdefault("options", {})["num_ctx"] = facts.num_ctx
    if facts.keep_alive_s is not None:
        sent["keep_alive"] = facts.keep_alive_s
    options = request.value("stream_options")
    return OllamaRequest(
        operation=operation,
        path=PATHS[operation],
        body=encoded(sent),
        name=name,
        is_stream=sent.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        is_base64=operation == "embeddings" and request.value("encoding_format") == "base64",
        num_ctx=facts.num_ctx,
        dropped=request.dropped(),
    )


class _ClientRequest:
    """The client's request: its body, member by member, and what the model can do."""

    def __init__(self, engine: str, members: Mapping[str, msgspec.Raw], facts: ModelFacts) -> None:
        self.engine = engine
        self.members = members
        self.facts = facts

    def value(self, name: str) -> Any:
        """The member of the body, decoded; None where there is no such member."""
        raw = self.members.get(name)
        try:
            return None if raw is None else msgspec.json.decode(raw)
        except msgspec.ValidationError as exc:
            raise self.refuse(f"'{name}' holds a number that is out of range.", name, "invalid_value") from exc

    def flag(self, name: str) -> bool:
        """The member, which must be true or false; absent is false."""
        value = self.value(name)
        if not isinstance(value, bool | None):
            raise self.refuse(f"'{name}' must be true or false.", name, "invalid_type")
        return value is True

    def number(self, name: str, *, is_whole: bool) -> int | float | None:
        """The member, which must be a number, or a whole one; None where it is absent."""
        value = self.value(name)
        is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
        if is_whole and isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and not is_number:
            kind = "a whole number" if is_whole else "a number"
            raise self.refuse(f"'{name}' must be {kind}.", name, "invalid_type")
        return None if value is None else value

    def refuse(self, message: str, param: str | None, code: str = "invalid_request") -> Rejected:
        """The 400 for what is malformed."""
        return Rejected(self.engine, message, status=400, type_="invalid_request_error", code=code, param=param)

    def cannot(self, message: str, param: str) -> Unsupported:
        """The error for what the daemon or the model cannot do: a 400 where no other engine can."""
        return Unsupported(self.engine, message, param=param)

    def can(self, ability: str) -> bool:
        """Whether the model has that ability, in the daemon's words; True where the daemon has not said."""
        return self.facts.abilities is None or ability in self.facts.abilities

    def dropped(self) -> tuple[str, ...]:
        """The names of the client's parameters that have no effect, MAX_NAMED at most."""
        names = [name for name, raw in self.members.items() if name not in _KNOWN and not _is_default(name, raw)]
        shown = [name for name in names if _NAME.match(name)]
        return tuple(shown[:MAX_NAMED])


def _is_default(name: str, raw: msgspec.Raw) -> bool:
    """Whether a member is null, empty, or asks for what is done anyway."""
    text = bytes(memoryview(raw)[:16]).strip()
    return text in (b"null", b"{}", b"[]") or (name == "parallel_tool_calls" and text == b"true")


def _chat(request: _ClientRequest, sent: dict[str, Any]) -> None:
    refuse: RefuseField = request.refuse
    raw = request.members.get("messages")
    sent["messages"] = messages(raw if raw is not None else msgspec.Raw(b"[]"), refuse, request.cannot)
    if request.facts.abilities and not request.can("vision") and any("images" in one for one in sent["messages"]):
        raise request.cannot("The model does not see pictures.", "messages")
    _tools(request, sent)
    _format(request, sent)
    _think(request, sent)
    top = request.number("top_logprobs", is_whole=True)
    if request.flag("logprobs"):
        sent["logprobs"] = True
        if top is not None:
            sent["top_logprobs"] = top
    elif top:
        raise request.refuse("'top_logprobs' needs 'logprobs': true.", "top_logprobs")


def _generate(request: _ClientRequest, sent: dict[str, Any]) -> None:
    prompt, suffix = request.value("prompt"), request.value("suffix")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, list):
        raise request.cannot("Ollama takes one prompt per request, as text: send several requests.", "prompt")
    if not isinstance(prompt, str):
        raise request.refuse("'prompt' must be a string.", "prompt", "invalid_type")
    if not prompt:
        # The daemon would load the model and generate nothing.
        raise request.refuse("'prompt' is empty.", "prompt")
    if request.flag("echo"):
        raise request.cannot("Ollama cannot echo the prompt.", "echo")
    sent["prompt"] = prompt
    if isinstance(suffix, str) and suffix:
        sent["suffix"] = suffix  # the model's template says how the gap is filled
    else:
        sent["raw"] = True  # a completion continues the prompt; no chat template around it
    _format(request, sent)
    top = request.number("logprobs", is_whole=True)
    if top is not None:
        sent |= {"logprobs": True, "top_logprobs": top}


def _embed(request: _ClientRequest, sent: dict[str, Any]) -> None:
    if request.facts.abilities and not request.can("embedding"):
        # The daemon would end the model's process, start another one for embeddings, and only then refuse.
        raise request.cannot("The model makes no embeddings: it writes text. Use an embedding model.", "model")
    given = request.value("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise request.refuse("'input' must be a text or a list of texts.", "input", "invalid_type")
    if not all(isinstance(text, str) for text in texts):
        raise request.cannot("Ollama embeds texts; it cannot embed lists of tokens.", "input")
    sent["input"] = texts
    dimensions = request.number("dimensions", is_whole=True)
    if dimensions is not None:
        sent["dimensions"] = dimensions
    if request.value("encoding_format") not in (None, "float", "base64"):
        raise request.refuse("'encoding_format' must be 'float' or 'base64'.", "encoding_format")


def _sampling(request: _ClientRequest, sent: dict[str, Any]) -> None:
    """Only what the client gave: for everything else the Modelfile's settings hold."""
    options: dict[str, Any] = {}
    for name, (option, is_whole) in _OPTIONS.items():
        value = request.number(name, is_whole=is_whole)
        if value is not None:
            options[option] = value
    for name in ("max_tokens", "max_completion_tokens"):
        bound = request.number(name, is_whole=True)
        if bound is not None and bound < 1:
            raise request.refuse(f"'{name}' must be 1 or more: to the daemon, {bound} means no limit.", name)
        if bound is not None:
            options["num_predict"] = bound
    stop = request.value("stop")
    if stop is not None:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
            raise request.refuse("'stop' must be a string or a list of strings.", "stop", "invalid_type")
        options["stop"] = stops
    for name in ("n", "best_of"):
        count = request.number(name, is_whole=True)
        if count is not None and count != 1:
            raise request.cannot(f"Ollama gives one answer per request: send '{name}' requests instead.", name)
    if options:
        sent["options"] = options


def _tools(request: _ClientRequest, sent: dict[str, Any]) -> None:
    if request.value("functions") or request.value("function_call") not in (None, "none", "auto"):
        raise request.cannot("Ollama takes 'tools', not 'functions'.", "functions")
    choice = request.value("tool_choice")
    if choice not in (None, "auto", "none"):
        what = "a named tool" if isinstance(choice, dict) else f"'{choice}'" if choice == "required" else "that"
        message = f"Ollama cannot be forced to call a tool: {what} is not possible, only 'auto' or 'none'."
        raise request.cannot(message, "tool_choice")
    tools = request.members.get("tools")
    if tools is None or choice == "none" or not request.value("tools"):
        return
    if not request.can("tools"):
        raise request.cannot("The model does not support tools.", "tools")
    sent["tools"] = tools


def _format(request: _ClientRequest, sent: dict[str, Any]) -> None:
    form = request.value("response_format")
    match form:
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            sent["format"] = "json"
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            sent["format"] = schema
        case _:
            message = "'response_format' must be of type 'text', 'json_object' or 'json_schema' (with a schema)."
            raise request.refuse(message, "response_format")


def _think(request: _ClientRequest, sent: dict[str, Any]) -> None:
    nested = request.value("reasoning")
    effort = request.value("reasoning_effort")
    param = "reasoning_effort"
    if effort is None and isinstance(nested, dict):
        effort, param = nested.get("effort"), "reasoning"
    if effort is None:
        return
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise request.refuse(f"'{param}' must be one of {', '.join(_EFFORTS)}.", param)
    level = _EFFORTS[effort]
    if request.can("thinking"):
        sent["think"] = level
    elif level is not False:
        raise request.cannot("The model does not support thinking.", param)
