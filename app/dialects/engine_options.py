"""Parameters that OpenAI's API does not have, and which kind of engine takes which of them under which name. Pure.

Their names here are Ollama's. `think` is false, true or a level; `prefill` means that the last message is the beginning
of the answer; `format` is the `response_format` of a completion. A kind that is not in the table takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LLAMA_CPP = {name: name for name in ("top_k", "min_p", "typical_p", "repeat_last_n", "repeat_penalty")}
_NAMES: dict[str, dict[str, str]] = {
    "llama_cpp": _LLAMA_CPP,
    "ollama": _LLAMA_CPP,
    "vllm": {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
}
# llama.cpp and Ollama go on from an assistant's message by themselves.
_PREFILLS: dict[str, dict[str, Any]] = {
    "llama_cpp": {},
    "ollama": {},
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
}
LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")


def taken(extras: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], list[str]]:
    """The fields that an engine of this kind gets, and the names of the parameters that it does not."""
    fields: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in extras.items():
        if name == "think":
            thought = _think(value, kind)
            fields |= thought
            dropped += [] if thought else [name]
        elif name == "prefill" and kind in _PREFILLS:
            fields |= _PREFILLS[kind]
        elif name == "format" and kind in _PREFILLS:
            fields |= _form(value, kind)
        elif name in _NAMES.get(kind, {}):
            fields[_NAMES[kind][name]] = value
        else:
            dropped.append(name)
    return fields, dropped


def _think(value: bool | str, kind: str) -> dict[str, Any]:
    """Chat templates know `enable_thinking` (Qwen, Granite) or `reasoning_effort` (gpt-oss), and ignore the other."""
    level = {"reasoning_effort": value} if isinstance(value, str) else {}
    switch = {"enable_thinking": value is not False}
    if kind == "llama_cpp":
        return {"chat_template_kwargs": switch | level}
    if kind == "vllm":
        return {"chat_template_kwargs": switch, **level}
    if kind == "ollama":
        return level or {"reasoning_effort": "medium" if value else "none"}
    return level  # whether a remote engine's model thinks at all nobody knows here


def _form(value: dict[str, Any], kind: str) -> dict[str, Any]:
    """llama.cpp reads `response_format` in chats only."""
    if kind != "llama_cpp":
        return {"response_format": value}
    return {"json_schema": value["json_schema"]["schema"] if "json_schema" in value else {"type": "object"}}
