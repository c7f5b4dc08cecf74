"""An OpenAI request as a request to an Ollama daemon's own API. Pure: bytes in, bytes out.

What the daemon cannot honour is named (`dropped`) or refused; nothing is ignored without a word (docs/ollama.md).
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
MAX_NAMED: Final = 100  # of the dropped parameters
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
# Read here, or without any influence on the answer.
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
    """What the daemon is sent, and what must be known to read its answer.

    `path` is below the daemon's root. `dropped`: the client's parameters that have no effect.
    """

    operation: str
    path: str
    body: bytes
    name: str  # the client's own for the model
    is_stream: bool = False
    wants_usage: bool = False
    is_base64: bool = False
    num_ctx: int | None = None
    dropped: tuple[str, ...] = ()


def translate(
    operation: str, body: bytes, *, engine: str, name: str, model: str, facts: ModelFacts | None
) -> OllamaRequest:
    """The request for the daemon's `model`; `body` is one sound JSON object. Raises Rejected for what is malformed and
    Unsupported for what this daemon cannot do.
    """
    facts = facts or ModelFacts()
    asked = _Asked(engine, _members.decode(body), facts)
    made: dict[str, Any] = {"model": model}
    if operation == "embeddings":
        _embed(asked, made)
    else:
        made["stream"] = asked.flag("stream")
        if asked.facts.abilities and not asked.can("completion") and asked.can("embedding"):
            raise asked.cannot("The model writes no text: it makes embeddings.", "model")
        (_chat if operation == "chat" else _generate)(asked, made)
        _sampling(asked, made)
        # The same in every request: another value makes the daemon load the model anew.
        made["shift"] = facts.shift
    made["truncate"] = False
    if facts.num_ctx is not None:
        made.setdefault("options", {})["num_ctx"] = facts.num_ctx
    if facts.keep_alive_s is not None:
        made["keep_alive"] = facts.keep_alive_s
    options = asked.value("stream_options")
    return OllamaRequest(
        operation=operation,
        path=PATHS[operation],
        body=encoded(made),
        name=name,
        is_stream=made.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        is_base64=operation == "embeddings" and asked.value("encoding_format") == "base64",
        num_ctx=facts.num_ctx,
        dropped=asked.dropped(),
    )


class _Asked:
    """The members of the client's body."""

    def __init__(self, engine: str, members: Mapping[str, msgspec.Raw], facts: ModelFacts) -> None:
        self.engine = engine
        self.members = members
        self.facts = facts

    def value(self, name: str) -> Any:
        """The member, decoded; None where there is none."""
        raw = self.members.get(name)
        try:
            return None if raw is None else msgspec.json.decode(raw)
        except msgspec.ValidationError as exc:
            raise self.refuse(f"'{name}' holds a number that is out of range.", name, "invalid_value") from exc

    def flag(self, name: str) -> bool:
        """True or false; absent is false."""
        found = self.value(name)
        if not isinstance(found, bool | None):
            raise self.refuse(f"'{name}' must be true or false.", name, "invalid_type")
        return found is True

    def number(self, name: str, *, is_whole: bool) -> int | float | None:
        """A number, None where there is none."""
        found = self.value(name)
        is_number = isinstance(found, int if is_whole else int | float) and not isinstance(found, bool)
        if is_whole and isinstance(found, float) and found.is_integer():
            return int(found)
        if found is not None and not is_number:
            kind = "a whole number" if is_whole else "a number"
            raise self.refuse(f"'{name}' must be {kind}.", name, "invalid_type")
        return None if found is None else found

    def refuse(self, message: str, param: str | None, code: str = "invalid_request") -> Rejected:
        """A 400 for what is malformed."""
        return Rejected(self.engine, message, status=400, type_="invalid_request_error", code=code, param=param)

    def cannot(self, message: str, param: str) -> Unsupported:
        """A 400 for what the daemon cannot do."""
        return Unsupported(self.engine, message, param=param)

    def can(self, ability: str) -> bool:
        """Whether the model can do that, as far as the daemon has said."""
        return self.facts.abilities is None or ability in self.facts.abilities

    def dropped(self) -> tuple[str, ...]:
        """What the client gave and nothing is made of."""
        names = [name for name, raw in self.members.items() if name not in _KNOWN and not _says_nothing(name, raw)]
        shown = [name for name in names if _NAME.match(name)]
        return tuple(shown[:MAX_NAMED])


def _says_nothing(name: str, raw: msgspec.Raw) -> bool:
    """Null, and what asks for the way it is done anyway."""
    text = bytes(memoryview(raw)[:16]).strip()
    return text in (b"null", b"{}", b"[]") or (name == "parallel_tool_calls" and text == b"true")


def _chat(asked: _Asked, made: dict[str, Any]) -> None:
    refuse: RefuseField = asked.refuse
    raw = asked.members.get("messages")
    made["messages"] = messages(raw if raw is not None else msgspec.Raw(b"[]"), refuse, asked.cannot)
    if asked.facts.abilities and not asked.can("vision") and any("images" in one for one in made["messages"]):
        raise asked.cannot("The model does not see pictures.", "messages")
    _tools(asked, made)
    _format(asked, made)
    _think(asked, made)
    top = asked.number("top_logprobs", is_whole=True)
    if asked.flag("logprobs"):
        made["logprobs"] = True
        if top is not None:
            made["top_logprobs"] = top
    elif top:
        raise asked.refuse("'top_logprobs' needs 'logprobs': true.", "top_logprobs")


def _generate(asked: _Asked, made: dict[str, Any]) -> None:
    prompt, suffix = asked.value("prompt"), asked.value("suffix")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, list):
        raise asked.cannot("Ollama takes one prompt per request, as text: send several requests.", "prompt")
    if not isinstance(prompt, str):
        raise asked.refuse("'prompt' must be a string.", "prompt", "invalid_type")
    if not prompt:
        # The daemon would load the model and answer nothing.
        raise asked.refuse("'prompt' is empty.", "prompt")
    if asked.flag("echo"):
        raise asked.cannot("Ollama cannot echo the prompt.", "echo")
    made["prompt"] = prompt
    if isinstance(suffix, str) and suffix:
        made["suffix"] = suffix  # the model's template says how the gap is filled
    else:
        made["raw"] = True  # a completion goes on with the prompt; no chat template around it
    _format(asked, made)
    top = asked.number("logprobs", is_whole=True)
    if top is not None:
        made |= {"logprobs": True, "top_logprobs": top}


def _embed(asked: _Asked, made: dict[str, Any]) -> None:
    if asked.facts.abilities and not asked.can("embedding"):
        # The daemon would end the model's process, start another one for embeddings, and only then refuse.
        raise asked.cannot("The model makes no embeddings: it writes text. Use one that is made for them.", "model")
    given = asked.value("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise asked.refuse("'input' must be a text or a list of texts.", "input", "invalid_type")
    if not all(isinstance(text, str) for text in texts):
        raise asked.cannot("Ollama embeds texts; lists of tokens cannot be embedded.", "input")
    made["input"] = texts
    dimensions = asked.number("dimensions", is_whole=True)
    if dimensions is not None:
        made["dimensions"] = dimensions
    if asked.value("encoding_format") not in (None, "float", "base64"):
        raise asked.refuse("'encoding_format' must be 'float' or 'base64'.", "encoding_format")


def _sampling(asked: _Asked, made: dict[str, Any]) -> None:
    """Only what the client gave: for everything else the Modelfile holds."""
    options: dict[str, Any] = {}
    for name, (option, is_whole) in _OPTIONS.items():
        found = asked.number(name, is_whole=is_whole)
        if found is not None:
            options[option] = found
    for name in ("max_tokens", "max_completion_tokens"):
        bound = asked.number(name, is_whole=True)
        if bound is not None and bound < 1:
            raise asked.refuse(f"'{name}' must be 1 or more: to the daemon {bound} means no limit.", name)
        if bound is not None:
            options["num_predict"] = bound
    stop = asked.value("stop")
    if stop is not None:
        stops = [stop] if isinstance(stop, str) else stop
        if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
            raise asked.refuse("'stop' must be a string or a list of strings.", "stop", "invalid_type")
        options["stop"] = stops
    for name in ("n", "best_of"):
        count = asked.number(name, is_whole=True)
        if count is not None and count != 1:
            raise asked.cannot(f"Ollama gives one answer per request: send '{name}' requests instead.", name)
    if options:
        made["options"] = options


def _tools(asked: _Asked, made: dict[str, Any]) -> None:
    if asked.value("functions") or asked.value("function_call") not in (None, "none", "auto"):
        raise asked.cannot("Ollama knows 'tools', not 'functions'.", "functions")
    choice = asked.value("tool_choice")
    if choice not in (None, "auto", "none"):
        what = "a named tool" if isinstance(choice, dict) else f"'{choice}'" if choice == "required" else "that"
        raise asked.cannot(f"Ollama cannot be made to call a tool: {what} is not possible, only 'auto'.", "tool_choice")
    tools = asked.members.get("tools")
    if tools is None or choice == "none" or not asked.value("tools"):
        return
    if not asked.can("tools"):
        raise asked.cannot("The model does not support tools.", "tools")
    made["tools"] = tools


def _format(asked: _Asked, made: dict[str, Any]) -> None:
    form = asked.value("response_format")
    match form:
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            made["format"] = "json"
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            made["format"] = schema
        case _:
            message = "'response_format' must be of type 'text', 'json_object' or 'json_schema' (with a schema)."
            raise asked.refuse(message, "response_format")


def _think(asked: _Asked, made: dict[str, Any]) -> None:
    nested = asked.value("reasoning")
    effort = asked.value("reasoning_effort")
    param = "reasoning_effort"
    if effort is None and isinstance(nested, dict):
        effort, param = nested.get("effort"), "reasoning"
    if effort is None:
        return
    if not isinstance(effort, str) or effort not in _EFFORTS:
        raise asked.refuse(f"'{param}' must be one of {', '.join(_EFFORTS)}.", param)
    level = _EFFORTS[effort]
    if asked.can("thinking"):
        made["think"] = level
    elif level is not False:
        raise asked.cannot("The model does not support thinking.", param)
