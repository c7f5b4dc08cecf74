"""Which streams may go on at another engine: those whose tokens say everything that decides what comes next; and what
the engines are asked for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from app.dialects import json_members
from app.dialects.continuing.token_record import asked
from backends.engine_profile import EngineProfile, TokenTelling

_Rule = Callable[[Any], bool]


def _any(_: Any) -> bool:
    return True


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def _is_one(value: Any) -> bool:
    return bool(value == 1)


def _is_one_prompt(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(type(token) is int for token in value)
    )


class _Part(msgspec.Struct, frozen=True):
    type: str = ""


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part | str] | None = None


_messages = msgspec.json.Decoder(list[_Message])
_OF_TEXT: Final = frozenset({"text", "input_text", "output_text", "refusal"})


def _are_of_text(raw: msgspec.Raw) -> bool:
    """Whether messages hold text only. Of a picture the prompt's tokens say no more than where it stands."""
    try:
        contents = [message.content for message in _messages.decode(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(isinstance(part, str) or part.type in _OF_TEXT for part in parts)


# What changes the prompt only, or chooses each token from what stands before it.
_HARMLESS: Final = (
    *("model", "messages", "stream", "stream_options", "user", "metadata", "store", "safety_identifier"),
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma"),
    *("stop", "stop_token_ids", "ignore_eos", "logit_bias", "bad_words", "allowed_token_ids"),
    *("repetition_penalty", "repeat_penalty", "repeat_last_n", "chat_template_kwargs", "reasoning_effort"),
    *("add_generation_prompt", "continue_final_message", "add_special_tokens", "documents", "service_tier"),
    *("skip_special_tokens", "spaces_between_special_tokens", "include_reasoning", "reasoning_format"),
    *("cache_prompt", "cache_salt", "prompt_cache_key", "priority"),
)
_RULES: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(_HARMLESS, _any),
    "prompt": _is_one_prompt,
    "n": _is_one,
    "best_of": _is_one,
    # These count the answer's tokens only, which are the prompt's where it goes on.
    "presence_penalty": _is_zero,
    "frequency_penalty": _is_zero,
    "min_tokens": _is_zero,
    "tools": lambda value: value == [],
    "functions": lambda value: value == [],
    "tool_choice": lambda value: value in ("none", "auto"),
    "parallel_tool_calls": _any,
    "response_format": lambda value: isinstance(value, dict) and value.get("type") == "text",
    "logprobs": lambda value: value is False,
    "top_logprobs": _is_zero,
    "echo": lambda value: value is False,
    "suffix": lambda value: value == "",
    # With it a text that ends the answer may begin on one side of the break and end on the other.
    "include_stop_str_in_output": lambda value: value is False,
    "return_token_ids": lambda value: value is False,
}


# Of a request, what decides how the answer goes on, beside its prompt.
_KEPT: Final = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "seed"),
        *("stop", "stop_token_ids", "ignore_eos", "logit_bias", "bad_words", "allowed_token_ids"),
        *("repetition_penalty", "repeat_penalty", "repeat_last_n", "skip_special_tokens"),
        *("spaces_between_special_tokens", "cache_prompt", "cache_salt", "priority", "stream_options"),
    }
)
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
# Tokens of a completion whose request does not say how many.
_USUAL_LIMIT: Final[Mapping[tuple[TokenTelling, str], int]] = {(TokenTelling.NUMBERS, "text_completion"): 16}


class Continuable(msgspec.Struct, frozen=True):
    """One attempt, whose answer may go on elsewhere.

    `members`: the body that the engine is sent, without what asks for tokens. `why_not`: why the answer may not, as the
    end of a sentence; empty where it may.
    """

    operation: str
    telling: TokenTelling
    members: Mapping[str, msgspec.Raw]
    why_not: str = ""

    @property
    def limit(self) -> int | None:
        """The most tokens that the answer may have; None where there is no bound."""
        given = [_value(self.members, name) for name in _LIMITS]
        usual = _USUAL_LIMIT.get((self.telling, self.operation))
        return min((value for value in given if type(value) is int and value > 0), default=usual)

    @property
    def wants_usage(self) -> bool:
        """Whether the engine was asked for usage."""
        options = _value(self.members, "stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def named(self, model: str) -> Mapping[str, msgspec.Raw]:
        """The members for an engine that calls the model so."""
        return {**self.members, "model": msgspec.Raw(msgspec.json.encode(model))}

    def rest(self, prompt: bytes, kept: int, model: str) -> bytes:
        """The body of the completion that goes on behind `prompt` (JSON), in which are `kept` tokens of the answer.
        `model`: the engine's own name."""
        limit = self.limit
        members = {name: bytes(raw) for name, raw in self.members.items() if name in _KEPT}
        members |= {
            "model": msgspec.json.encode(model),
            "prompt": prompt,
            "stream": b"true",
            "max_tokens": b"null" if limit is None else b"%d" % (limit - kept),
        }
        return json_members.edit(b"{}", members)


def continuable(body: bytes, operation: str, profile: EngineProfile) -> tuple[bytes, Continuable]:
    """What such an engine is sent for a stream that may go on elsewhere, and how it would."""
    members = json_members.decode(body)
    reason = why_not(members, profile)
    telling = profile.tells_tokens or TokenTelling.NUMBERS
    asks = {} if reason else asked(telling, operation)
    return json_members.edit(body, asks), Continuable(operation, telling, members, reason)


def why_not(members: Mapping[str, msgspec.Raw], profile: EngineProfile) -> str:
    """Why the answer to this request, as the engine gets it, could not go on elsewhere: the end of a sentence. Empty
    where it can."""
    if profile.tells_tokens is None:
        return f"{profile.title} does not tell its tokens"
    if "messages" in members and not _are_of_text(members["messages"]):
        return "it is not about text alone"
    for name, raw in members.items():
        rule = _RULES.get(name)
        if rule is _any:
            continue
        value = msgspec.json.decode(raw)
        if value is None or (rule is not None and rule(value)):
            continue
        if name == "seed" and _is_zero(_value(members, "temperature")):
            continue  # where no token is drawn, none depends on it
        return f"'{name}' is set"
    return ""


def _value(members: Mapping[str, msgspec.Raw], name: str) -> Any:
    raw = members.get(name)
    return None if raw is None else msgspec.json.decode(raw)
