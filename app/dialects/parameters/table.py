"""What becomes of every parameter on every kind of engine: the table of docs/parameters.md. Data only.

OpenAI's parameters come first, then those that engines have of their own and clients send to other ones. What stands in
no table passes. A remote engine gets everything as the client wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class Act(StrEnum):
    """What becomes of a parameter."""

    DONE = "done"  # the engine does it, or refuses it itself
    ADJUSTED = "adjusted"  # the engine is told otherwise, which is named
    DROPPED = "dropped"  # the engine is not told, which is named
    REFUSED = "refused"  # a 400, since the answer would be another one


class Fate(NamedTuple):
    """`unless`: JSON that asks for the way it is done anyway. `note`: why it is refused, or what it becomes."""

    act: Act
    unless: frozenset[str] = frozenset()
    note: str = ""


Row = Mapping[str, Fate]  # by kind of engine

VLLM, LLAMA_CPP, OLLAMA = KINDS = ("vllm", "llama_cpp", "ollama")
DONE: Final = Fate(Act.DONE)
TEXT_ONLY: Final = "the engine writes text only"
NO_TOKENS: Final = "the engine says nothing of the tokens of a prompt"


def _adjusted(note: str) -> Fate:
    return Fate(Act.ADJUSTED, frozenset(), note)


def _dropped(*unless: str) -> Fate:
    return Fate(Act.DROPPED, frozenset(unless))


def _refused(note: str, *unless: str) -> Fate:
    return Fate(Act.REFUSED, frozenset(unless), note)


def _row(vllm: Fate, llama_cpp: Fate, ollama: Fate) -> Row:
    return MappingProxyType(dict(zip(KINDS, (vllm, llama_cpp, ollama), strict=True)))


def _all(fate: Fate) -> Row:
    return _row(fate, fate, fate)


_GENERATION: Final[dict[str, Row]] = {
    name: _all(DONE)
    for name in ("model", "frequency_penalty", "presence_penalty", "seed", "temperature", "top_p", "max_tokens")
} | {
    "stop": _all(Fate(Act.DONE, note="empty texts in it: left out, which is named")),
    "stream": _all(DONE),
    "stream_options": _all(Fate(Act.DONE, note="`include_usage` is done; `include_obfuscation: true` is dropped")),
    "n": _row(DONE, DONE, _refused("Ollama gives one answer per request: send 'n' requests instead", "1")),
    "logit_bias": _row(DONE, DONE, _dropped("{}")),
    "user": _all(_dropped()),
}
_CHAT: Final[dict[str, Row]] = _GENERATION | {
    "messages": _all(DONE),
    "max_completion_tokens": _all(DONE),
    "logprobs": _all(DONE),
    "top_logprobs": _all(DONE),
    "response_format": _all(DONE),
    "reasoning_effort": _row(DONE, _adjusted("what chat templates know: `enable_thinking`, `reasoning_effort`"), DONE),
    "tools": _all(DONE),
    "tool_choice": _row(
        DONE,
        _adjusted("a named tool: this tool only, and `required`"),
        Fate(Act.DONE, note="`auto` and `none` are done; a call that must be made is refused"),
    ),
    "parallel_tool_calls": _row(DONE, DONE, _dropped("true")),
    "functions": _all(_refused("send 'tools' instead of 'functions'", "[]")),
    "function_call": _all(_refused("send 'tool_choice' instead of 'function_call'", '"none"', '"auto"')),
    "modalities": _all(_refused(TEXT_ONLY, '["text"]', "[]")),
    "audio": _all(_dropped()),
    "metadata": _all(_dropped("{}")),
    "moderation": _all(_dropped()),
    "prediction": _all(_dropped()),
    "prompt_cache_key": _all(_dropped()),
    "prompt_cache_options": _all(_dropped("{}")),
    "prompt_cache_retention": _all(_dropped()),
    "safety_identifier": _all(_dropped()),
    "service_tier": _all(_dropped('"auto"', '"default"')),
    "store": _all(_dropped("false")),
    "verbosity": _all(_dropped('"medium"')),
    "web_search_options": _all(_dropped()),
}
_TEXT: Final[dict[str, Row]] = _GENERATION | {
    "prompt": _all(DONE),
    "logprobs": _row(DONE, Fate(Act.DONE, note="`0` becomes 1, which is named"), DONE),
    "best_of": _all(_refused("one answer is made for each that is wanted: send 'n', and choose", "1")),
    "echo": _row(
        DONE, _refused("the embedded engine cannot echo the prompt", "false"), _refused("Ollama cannot echo", "false")
    ),
    "suffix": _row(DONE, _refused("the embedded engine does not fill gaps", '""'), DONE),
}
_EMBEDDINGS: Final[dict[str, Row]] = {
    "model": _all(DONE),
    "input": _all(DONE),
    "encoding_format": _all(DONE),
    "dimensions": _row(DONE, Fate(Act.REFUSED, note="unless the model makes as many"), DONE),
    "user": _all(_dropped()),
}
_NO_SOUNDS: Final = _refused("it takes no sounds")
_FORM: Final[dict[str, Row]] = {
    name: _row(fate, _NO_SOUNDS, _NO_SOUNDS)
    for name, fate in {
        **dict.fromkeys(("file", "model", "language", "prompt", "response_format", "stream", "temperature"), DONE),
        "timestamp_granularities": DONE,
        "chunking_strategy": _dropped('"auto"'),
        **dict.fromkeys(("include", "keywords", "languages"), _dropped()),
        **dict.fromkeys(("known_speaker_names", "known_speaker_references"), _dropped()),
    }.items()
}
# By operation.
SPECIFIED: Final[Mapping[str, Mapping[str, Row]]] = MappingProxyType(
    {"chat": _CHAT, "text_completion": _TEXT, "embeddings": _EMBEDDINGS, "transcription": _FORM}
)

_STRUCTURED: Final = _adjusted("`structured_outputs`")
_FORCED: Final = _adjusted("`json_schema` or `grammar`; a regex is refused")
_FORMAT: Final = _adjusted("`format`, where it is JSON; else refused")
# vLLM's own, of this year and the last. Ollama drops whatever is not named here.
_VLLM_OWN: Final[dict[str, Row]] = {
    **{
        name: _row(_STRUCTURED, _FORCED, _FORMAT)
        for name in ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag")
    },
    "structured_outputs": _row(DONE, _FORCED, _FORMAT),
    "guided_whitespace_pattern": _row(_STRUCTURED, _dropped(), _dropped()),
    "guided_decoding_backend": _all(_dropped()),
    "repetition_penalty": _row(DONE, _adjusted("`repeat_penalty`"), DONE),
    "prompt_logprobs": _row(DONE, _refused(NO_TOKENS), _refused(NO_TOKENS)),
    "use_beam_search": _row(DONE, _refused("it samples", "false"), _refused("it samples", "false")),
    "allowed_token_ids": _row(DONE, _refused("it has no such list; `logit_bias` may do", "[]"), _dropped()),
    "documents": _row(DONE, _refused("put them into a message", "[]"), _refused("put them into a message", "[]")),
    "prompt_embeds": _row(DONE, _refused("it takes text and tokens"), _refused("it takes text")),
    **{
        name: _row(DONE, _dropped(*unless), _dropped(*unless))
        for name, unless in {
            "min_tokens": ("0",),
            "stop_token_ids": ("[]",),
            "include_stop_str_in_output": ("false",),
            "skip_special_tokens": ("true",),
            "spaces_between_special_tokens": ("true",),
            "truncate_prompt_tokens": (),
            "truncation_side": (),
            "length_penalty": ("1", "1.0"),
            "bad_words": ("[]",),
            "priority": ("0",),
            "cache_salt": (),
            "logprob_token_ids": (),
            "return_token_ids": ("false",),
            "return_tokens_as_token_ids": ("false",),
            "include_reasoning": ("true",),
            "thinking_token_budget": (),
        }.items()
    },
}
# llama.cpp's own, and Ollama's, on vLLM.
_LLAMA_CPP_OWN: Final[dict[str, Row]] = {
    "repeat_penalty": _row(_adjusted("`repetition_penalty`"), DONE, DONE),
    "grammar": _row(_STRUCTURED, DONE, _refused("Ollama takes JSON schemas, no grammars")),
    "json_schema": _row(_STRUCTURED, DONE, _FORMAT),
    **{
        name: _row(_dropped(*unless), DONE, _dropped(*unless))
        for name, unless in {
            "typical_p": ("1", "1.0"),
            "repeat_last_n": (),
            "mirostat": ("0",),
            "mirostat_tau": (),
            "mirostat_eta": (),
            "dry_multiplier": ("0", "0.0"),
            "dry_base": (),
            "dry_allowed_length": (),
            "dry_penalty_last_n": (),
            "dry_sequence_breakers": (),
            "xtc_probability": ("0", "0.0"),
            "xtc_threshold": (),
            "dynatemp_range": ("0", "0.0"),
            "dynatemp_exponent": (),
            "top_n_sigma": (),
            "n_predict": (),
            "n_keep": ("0",),
            "n_probs": ("0",),
            "min_keep": ("0",),
            "samplers": (),
            "id_slot": ("-1",),
            "cache_prompt": ("true",),
            "reasoning_format": (),
            "thinking_budget_tokens": (),
            "t_max_predict_ms": (),
        }.items()
    },
    **{
        name: _row(_dropped(), _dropped(), _dropped())
        for name in ("options", "num_ctx", "num_predict", "keep_alive", "think", "format")
    },
}
_OWN: Final[dict[str, Row]] = _VLLM_OWN | _LLAMA_CPP_OWN
# Which of them are no parameters of a chat, or of a text, on the engine that has them.
OWN: Final[Mapping[str, Mapping[str, Row]]] = MappingProxyType(
    {
        "chat": _OWN | {"echo": _TEXT["echo"]},
        "text_completion": _OWN
        | {
            "response_format": _row(DONE, _adjusted("`json_schema`"), DONE),
            "max_completion_tokens": _all(_adjusted("`max_tokens`")),
        },
        "embeddings": {},
        "transcription": {},
    }
)


def _to_judge(operation: str, kind: str) -> tuple[tuple[str, Fate], ...]:
    rows = {**SPECIFIED[operation], **OWN[operation]}
    return tuple((name, row[kind]) for name, row in rows.items() if row[kind].act is not Act.DONE)


# Operation, kind → what has to be looked at.
JUDGED: Final = MappingProxyType(
    {(operation, kind): _to_judge(operation, kind) for operation in SPECIFIED for kind in KINDS}
)
