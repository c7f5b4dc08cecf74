"""The parameters of the pinned SDKs, by route, each with a value that asks for something."""

from __future__ import annotations

import importlib
from typing import Any

import ollama._types as ollama

Json = dict[str, Any]

_TYPED: dict[str, str] = {
    "/v1/chat/completions": "openai.types.chat.completion_create_params.CompletionCreateParamsStreaming",
    "/v1/completions": "openai.types.completion_create_params.CompletionCreateParamsStreaming",
    "/v1/embeddings": "openai.types.embedding_create_params.EmbeddingCreateParams",
    "/v1/responses": "openai.types.responses.response_create_params.ResponseCreateParamsStreaming",
    "/v1/audio/transcriptions": "openai.types.audio.transcription_create_params.TranscriptionCreateParamsStreaming",
    "/v1/messages": "anthropic.types.beta.message_create_params.MessageCreateParamsStreaming",
    "/v1/messages/count_tokens": "anthropic.types.beta.message_count_tokens_params.MessageCountTokensParams",
}
_PYDANTIC: dict[str, Any] = {
    "/api/chat": ollama.ChatRequest,
    "/api/generate": ollama.GenerateRequest,
    "/api/embed": ollama.EmbedRequest,
    "/api/embeddings": ollama.EmbeddingsRequest,
}
IN_A_HEADER = {"betas"}  # anthropic-beta


def typed(path: str) -> set[str]:
    """The names in a TypedDict of an SDK."""
    module, _, name = path.rpartition(".")
    typed_dict = getattr(importlib.import_module(module), name)
    return set(typed_dict.__required_keys__ | typed_dict.__optional_keys__)


PARAMETERS: dict[str, set[str]] = {route: typed(path) - IN_A_HEADER for route, path in _TYPED.items()}
PARAMETERS |= {route: set(model.model_fields) for route, model in _PYDANTIC.items()}
OPTIONS = set(ollama.Options.model_fields)

SAID = [{"role": "user", "content": "hi"}]
NEEDED: dict[str, Json] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": SAID, "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": SAID},
    "/api/chat": {"messages": SAID, "stream": False},
    "/api/generate": {"prompt": "hi", "stream": False},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
_FUNCTION = {"name": "f", "description": "d", "parameters": _SCHEMA}
_FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA}}
_TOOLS = {"tools": [{"type": "function", "function": _FUNCTION}]}
_SAMPLING: Json = {"frequency_penalty": 0.5, "presence_penalty": 0.5, "seed": 7, "temperature": 0.3, "top_p": 0.4}
_CACHED: Json = {"prompt_cache_key": "k", "prompt_cache_options": {"a": 1}, "prompt_cache_retention": "24h"}
_WHO: Json = {"user": "u", "safety_identifier": "s", "service_tier": "flex", "metadata": {"a": "b"}}
_ANTHROPIC_TOOLS = [{"name": "f", "description": "d", "input_schema": _SCHEMA}]

_CHAT: Json = {
    **_SAMPLING,
    **_CACHED,
    **_WHO,
    "audio": {"voice": "alloy", "format": "wav"},
    "function_call": {"name": "f"},
    "functions": [_FUNCTION],
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "ho"}],
    "modalities": ["text", "audio"],
    "model": "m",
    "moderation": {"model": "x"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "low",
    "response_format": _FORM,
    "stop": ["x"],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "tool_choice": "none",
    "tools": _TOOLS["tools"],
    "top_logprobs": 2,
    "verbosity": "low",
    "web_search_options": {},
}
_TEXT: Json = {
    **_SAMPLING,
    "best_of": 3,
    "echo": True,
    "logit_bias": {"5": 1},
    "logprobs": 2,
    "max_tokens": 5,
    "model": "m",
    "n": 2,
    "prompt": "ho",
    "stop": ["x"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "suffix": "end",
    "user": "u",
}
_EMBEDDINGS: Json = {"dimensions": 2, "encoding_format": "base64", "input": "ho", "model": "m", "user": "u"}
_RESPONSES: Json = {
    **_CACHED,
    **_WHO,
    "access_programs": ["x"],
    "background": True,
    "background_options": {"a": 1},
    "context_management": [{"type": "compaction"}],
    "conversation": "c",
    "image": {"a": 1},
    "include": ["reasoning.encrypted_content"],
    "input": "ho",
    "instructions": "be brief",
    "max_output_tokens": 5,
    "max_tool_calls": 1,
    "model": "m",
    "moderation": {"model": "x"},
    "parallel_tool_calls": False,
    "previous_response_id": "r",
    "prompt": {"id": "p"},
    "reasoning": {"effort": "low"},
    "store": True,
    "stream": True,
    "stream_options": {"include_obfuscation": True},
    "temperature": 0.3,
    "text": {"format": {"type": "json_schema", "name": "s", "schema": _SCHEMA}},
    "tool_choice": "none",
    "tools": [{"type": "function", **_FUNCTION}],
    "top_logprobs": 2,
    "top_p": 0.4,
    "truncation": "auto",
}
_MESSAGES: Json = {
    "billing_policy": "x",
    "cache_control": {"type": "ephemeral"},
    "compaction": {"a": 1},
    "container": "c",
    "context_management": {"edits": []},
    "diagnostics": {"a": 1},
    "fallback_credit_token": "t",
    "fallbacks": ["x"],
    "inference_geo": "eu",
    "max_tokens": 5,
    "mcp_servers": [{"type": "url", "url": "https://x.example", "name": "x"}],
    "messages": [{"role": "user", "content": "ho"}],
    "metadata": {"user_id": "u"},
    "model": "m",
    "output_config": {"effort": "low"},
    "service_tier": "auto",
    "speed": "fast",
    "stop_sequences": ["x"],
    "stream": True,
    "system": "be brief",
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "thread": "t",
    "tool_choice": {"type": "none"},
    "tools": _ANTHROPIC_TOOLS,
    "user_profile_id": "u",
    "workspace_id": "w",
}
_OLLAMA: Json = {
    "format": _SCHEMA,
    "keep_alive": "5m",
    "logprobs": True,
    "model": "m",
    "options": {"temperature": 0.3},
    "stream": True,
    "think": True,
    "top_logprobs": 2,
}
VALUES: dict[str, Json] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _TEXT,
    "/v1/embeddings": _EMBEDDINGS,
    "/v1/responses": _RESPONSES,
    "/v1/audio/transcriptions": {
        "chunking_strategy": "auto",
        "include": "logprobs",
        "keywords": "a",
        "known_speaker_names": "a",
        "known_speaker_references": "a",
        "language": "de",
        "languages": "de",
        "model": "m",
        "file": b"RIFF",
        "prompt": "x",
        "response_format": "text",
        "stream": "true",
        "temperature": "0.3",
        "timestamp_granularities": "word",
    },
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": {name: _MESSAGES[name] for name in _MESSAGES.keys() - {"max_tokens", "stream"}},
    "/api/chat": {**_OLLAMA, "messages": [{"role": "user", "content": "ho"}], "tools": _TOOLS["tools"]},
    "/api/generate": {
        **_OLLAMA,
        "context": [1, 2],
        "height": 5,
        "images": ["iVBORw0KGgo="],
        "prompt": "ho",
        "raw": True,
        "steps": 5,
        "suffix": "end",
        "system": "be brief",
        "template": "{{ .Prompt }}",
        "width": 5,
    },
    "/api/embed": {
        "dimensions": 2,
        "input": "ho",
        "keep_alive": "5m",
        "model": "m",
        "options": {"num_thread": 2},
        "truncate": True,
    },
    "/api/embeddings": {"keep_alive": "5m", "model": "m", "options": {"num_thread": 2}, "prompt": "ho"},
}
OPTION_VALUES: Json = {
    **dict.fromkeys(("frequency_penalty", "min_p", "presence_penalty", "temperature", "top_p", "typical_p"), 0.5),
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "num_keep", "num_predict", "num_thread", "main_gpu"), 2),
    **dict.fromkeys(("repeat_last_n", "seed", "top_k", "mirostat"), 7),
    **dict.fromkeys(("repeat_penalty", "tfs_z", "mirostat_eta", "mirostat_tau"), 1.5),
    **dict.fromkeys(("embedding_only", "f16_kv", "logits_all", "low_vram", "numa", "penalize_newline"), True),
    **dict.fromkeys(("use_mlock", "use_mmap", "vocab_only"), True),
    "stop": ["x"],
}
# What a parameter says something of: without it no engine would have to heed it.
BESIDE: dict[str, Json] = {
    "tool_choice": {
        "/v1/chat/completions": _TOOLS,
        "/v1/responses": {"tools": _RESPONSES["tools"]},
        "/v1/messages": {"tools": _ANTHROPIC_TOOLS},
        "/v1/messages/count_tokens": {"tools": _ANTHROPIC_TOOLS},
    },
    "parallel_tool_calls": {"/v1/chat/completions": _TOOLS, "/v1/responses": {"tools": _RESPONSES["tools"]}},
    "top_logprobs": {
        "/v1/chat/completions": {"logprobs": True},
        "/api/chat": {"logprobs": True},
        "/api/generate": {"logprobs": True},
    },
    "stream_options": {route: {"stream": True} for route in VALUES},
    "echo": {"/v1/completions": {"max_tokens": 1}},
}


def beside(route: str, name: str) -> Json:
    """The fields that a request with this parameter needs."""
    fields: Json = BESIDE.get(name, {}).get(route, {})
    return {"model": "m", **NEEDED[route], **fields}
