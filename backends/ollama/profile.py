"""What the data path has to know of an Ollama daemon."""

from __future__ import annotations

from typing import Final

from backends.engine_profile import (
    DONE,
    Act,
    EngineProfile,
    Fate,
    StructuredOutput,
    TemplateApi,
    Thinking,
    adjusted,
    dropped,
    refused,
)

_FORMAT: Final = adjusted("`format`, where it is JSON; else refused")
_BOTH: Final[dict[str, Fate]] = {
    **dict.fromkeys(
        (
            *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
            *("structured_outputs", "json_schema"),
        ),
        _FORMAT,
    ),
    "n": refused("Ollama gives one answer per request: send 'n' requests instead", "1"),
    "logit_bias": dropped("{}"),
    "grammar": refused("Ollama takes JSON schemas, no grammars"),
    "prompt_embeds": refused("it takes text"),
    "echo": refused("Ollama cannot echo", "false"),
    "repetition_penalty": DONE,
    "repeat_penalty": DONE,
}
_CHAT: Final = _BOTH | {
    "tool_choice": Fate(Act.DONE, note="`auto` and `none` are done; a call that must be made is refused"),
    "parallel_tool_calls": dropped("true"),
}

PROFILE: Final = EngineProfile(
    kind="ollama",
    title="Ollama",
    is_local=True,
    has_tags=True,
    is_daemon=True,
    weights="gguf",
    abilities="chats, completions and embeddings",
    parameters={"chat": _CHAT, "text_completion": _BOTH},
    configured_names={"repetition_penalty": "repeat_penalty"},
    options={name: name for name in ("top_k", "min_p", "typical_p", "repeat_last_n", "repeat_penalty")},
    prefill={},  # it goes on from an assistant's message by itself
    takes_format=True,
    thinking=Thinking.EFFORT,
    structured_output=StructuredOutput.SCHEMA_ONLY,
    templates=TemplateApi.DEBUG_RENDER,
    max_constraint_ways=500,
)
