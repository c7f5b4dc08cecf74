"""The prompt that an engine makes of a chat: its text, and its tokens where the engine tells them. Pure.

Each is a generator: it yields requests to one engine, is sent their responses, and returns the client's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.dialects import json_members
from app.dialects.tasks.llama_cpp import Done, Prompt, Steps, TokenIds, decoded, step
from backends.engine_profile import EngineProfile, TemplateApi
from backends.errors import Rejected

# Of a chat, what decides its prompt.
_RELEVANT: Final[tuple[str, ...]] = (
    *("messages", "tools", "tool_choice", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
    *("reasoning_effort", "parallel_tool_calls", "response_format"),
)
_TOKENIZED: Final[tuple[str, ...]] = (
    "messages",
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
)


class _Text(msgspec.Struct, frozen=True):
    prompt: str


class _Debug(msgspec.Struct, frozen=True):
    rendered_template: str


class _Rendered(msgspec.Struct, frozen=True):
    info: _Debug = msgspec.field(name="_debug_info")


def rendered(body: bytes, profile: EngineProfile, engine: str) -> Steps:
    """Of a chat in OpenAI's words, at an engine that has OpenAI's API; Rejected (501) for one that does not tell."""
    fields = json_members.decode(body)
    if profile.templates is TemplateApi.TOKENIZE:
        chat = {name: fields[name] for name in _TOKENIZED if name in fields}
        tokens = decoded(engine, (yield step("/tokenize", {"model": fields["model"], **chat})), TokenIds).tokens
        asks: dict[str, Any] = {"model": fields["model"], "tokens": tokens}
        return _done(engine, decoded(engine, (yield step("/detokenize", asks)), _Text).prompt, tokens)
    if profile.templates is TemplateApi.APPLY_TEMPLATE:
        chat = {name: fields[name] for name in _RELEVANT if name in fields}
        prompt = decoded(engine, (yield step("/apply-template", chat)), Prompt).prompt
        asks = {"content": prompt, "add_special": True, "parse_special": True}  # as it does itself with a chat
        return _done(engine, prompt, decoded(engine, (yield step("/tokenize", asks)), TokenIds).tokens)
    message = "The engine behind this name does not tell the prompt that it makes of a chat."
    raise Rejected(engine, message, status=501, type_="invalid_request_error", code="not_supported")


def rendered_by_daemon(path: str, body: bytes, engine: str) -> Steps:
    """Of a chat in the daemon's own words, which it is sent at `path`; Rejected (501) by one that does not know the
    option, and writes a token."""
    fields: dict[str, Any] = msgspec.json.decode(body)
    options = {**fields.get("options", {}), "num_predict": 1}
    asks = {**fields, "stream": False, "options": options, "_debug_render_only": True}
    answer = yield step(path, asks, is_beside=False)
    try:
        prompt = msgspec.json.decode(answer, type=_Rendered).info.rendered_template
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = "This Ollama daemon does not tell the prompt that it makes of a chat: it is too old."
        raise Rejected(engine, message, status=501, type_="invalid_request_error", code="not_supported") from exc
    return _done(engine, prompt, None)


def _done(engine: str, prompt: str, tokens: list[int] | None) -> Done:
    return Done(msgspec.json.encode({"object": "prompt", "prompt": prompt, "tokens": tokens, "backend": engine}))
