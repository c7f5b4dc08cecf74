"""Parameters that OpenAI's API does not have, and which engine takes which of them under which name. Pure.

Their names here are Ollama's. `think` is false, true or a level; `prefill` means that the last message is the beginning
of the answer; `format` is the `response_format` of a completion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.engine_profile import EngineProfile, StructuredOutput, Thinking

LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")


def taken(extras: Mapping[str, Any], profile: EngineProfile) -> tuple[dict[str, Any], list[str]]:
    """The fields that such an engine gets, and the names of the parameters that it does not get."""
    fields: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in extras.items():
        if name == "think":
            thinking = _think(value, profile.thinking)
            fields |= thinking
            dropped += [] if thinking else [name]
        elif name == "prefill" and profile.prefill is not None:
            fields |= profile.prefill
        elif name == "format" and profile.takes_format:
            fields |= _format(value, profile)
        elif name in profile.options:
            fields[profile.options[name]] = value
        else:
            dropped.append(name)
    return fields, dropped


def _think(value: bool | str, thinking: Thinking) -> dict[str, Any]:
    """Chat templates know `enable_thinking` (Qwen, Granite) or `reasoning_effort` (gpt-oss), and ignore the other."""
    level = {"reasoning_effort": value} if isinstance(value, str) else {}
    switch = {"enable_thinking": value is not False}
    match thinking:
        case Thinking.TEMPLATE:
            return {"chat_template_kwargs": switch | level}
        case Thinking.TEMPLATE_AND_EFFORT:
            return {"chat_template_kwargs": switch, **level}
        case Thinking.EFFORT:
            return level or {"reasoning_effort": "medium" if value else "none"}
        case Thinking.LEVEL:
            return level


def _format(value: dict[str, Any], profile: EngineProfile) -> dict[str, Any]:
    """The form of a completion; an engine that takes grammars reads `response_format` in chats only."""
    if profile.structured_output is not StructuredOutput.GRAMMAR:
        return {"response_format": value}
    return {"json_schema": value["json_schema"]["schema"] if "json_schema" in value else {"type": "object"}}
