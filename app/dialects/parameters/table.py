"""What becomes of every parameter on an engine of this machine, where its kind's profile does not say otherwise.

With the profiles (backends/<kind>/profile.py) it is the table of docs/parameters.md. OpenAI's parameters come first,
then those that engines have of their own and clients send to other ones. What is in neither table nor profile passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from backends.engine_profile import DONE, Act, EngineProfile, Fate, Rule, adjusted, dropped, refused

Fates = Mapping[str, Fate]  # by the parameter's name
TEXT_ONLY: Final = "the engine writes text only"
NO_TOKENS: Final = "the engine reports nothing about the tokens of a prompt"

_GENERATION: Final[dict[str, Fate]] = {
    **dict.fromkeys(
        ("model", "frequency_penalty", "presence_penalty", "seed", "temperature", "top_p", "max_tokens"), DONE
    ),
    "stop": Fate(Act.DONE, note="empty texts in it: left out, which is named"),
    "stream": DONE,
    "stream_options": Fate(Act.DONE, note="`include_usage` is done; `include_obfuscation: true` is dropped"),
    "n": DONE,
    "logit_bias": DONE,
    "user": dropped(),
}
_CHAT: Final[dict[str, Fate]] = _GENERATION | {
    **dict.fromkeys(("messages", "max_completion_tokens", "logprobs", "top_logprobs", "response_format"), DONE),
    **dict.fromkeys(("reasoning_effort", "tools", "tool_choice", "parallel_tool_calls"), DONE),
    "functions": refused("send 'tools' instead of 'functions'", "[]"),
    "function_call": refused("send 'tool_choice' instead of 'function_call'", '"none"', '"auto"'),
    "modalities": refused(TEXT_ONLY, '["text"]', "[]"),
    "audio": dropped(),
    "metadata": dropped("{}"),
    "moderation": dropped(),
    "prediction": dropped(),
    "prompt_cache_key": dropped(),
    "prompt_cache_options": dropped("{}"),
    "prompt_cache_retention": dropped(),
    "safety_identifier": dropped(),
    "service_tier": dropped('"auto"', '"default"'),
    "store": dropped("false"),
    "verbosity": dropped('"medium"'),
    "web_search_options": dropped(),
}
_TEXT: Final[dict[str, Fate]] = _GENERATION | {
    "prompt": DONE,
    "logprobs": DONE,
    "best_of": refused("one answer is made for each that is wanted: send 'n', and choose", "1", rule=Rule.BEST_OF),
    "echo": DONE,
    "suffix": DONE,
}
_EMBEDDINGS: Final[dict[str, Fate]] = {
    **dict.fromkeys(("model", "input", "encoding_format", "dimensions"), DONE),
    "user": dropped(),
}
_FORM: Final[dict[str, Fate]] = {
    **dict.fromkeys(("file", "model", "language", "prompt", "response_format", "stream", "temperature"), DONE),
    "timestamp_granularities": DONE,
    "chunking_strategy": dropped('"auto"'),
    **dict.fromkeys(("include", "keywords", "languages"), dropped()),
    **dict.fromkeys(("known_speaker_names", "known_speaker_references"), dropped()),
}
_NO_SOUNDS: Final = refused("it takes no sounds")
# OpenAI's parameters by operation.
SPECIFIED: Final[Mapping[str, Fates]] = MappingProxyType(
    {"chat": _CHAT, "text_completion": _TEXT, "embeddings": _EMBEDDINGS, "transcription": _FORM}
)

_NO_FORM: Final = refused("it cannot be made to answer in a form")
# Parameters of one kind of engine, as others treat them.
_OWN: Final[dict[str, Fate]] = {
    # vLLM's, of this year and the last.
    **dict.fromkeys(
        (
            *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
            *("structured_outputs", "grammar", "json_schema"),
        ),
        _NO_FORM,
    ),
    "guided_whitespace_pattern": dropped(),
    "guided_decoding_backend": dropped(),
    "repetition_penalty": dropped("1", "1.0"),
    "prompt_logprobs": refused(NO_TOKENS),
    "use_beam_search": refused("it samples", "false"),
    "allowed_token_ids": dropped(),
    "documents": refused("put them into a message", "[]"),
    "prompt_embeds": refused("it takes text"),
    "min_tokens": dropped("0"),
    "stop_token_ids": dropped("[]"),
    "include_stop_str_in_output": dropped("false"),
    "skip_special_tokens": dropped("true"),
    "spaces_between_special_tokens": dropped("true"),
    "truncate_prompt_tokens": dropped(),
    "truncation_side": dropped(),
    "length_penalty": dropped("1", "1.0"),
    "bad_words": dropped("[]"),
    "priority": dropped("0"),
    "cache_salt": dropped(),
    "logprob_token_ids": dropped(),
    "return_token_ids": dropped("false"),
    "return_tokens_as_token_ids": dropped("false"),
    "include_reasoning": dropped("true"),
    "thinking_token_budget": dropped(),
    # llama.cpp's.
    "repeat_penalty": dropped("1", "1.0"),
    "typical_p": dropped("1", "1.0"),
    "repeat_last_n": dropped(),
    "mirostat": dropped("0"),
    "mirostat_tau": dropped(),
    "mirostat_eta": dropped(),
    "dry_multiplier": dropped("0", "0.0"),
    "dry_base": dropped(),
    "dry_allowed_length": dropped(),
    "dry_penalty_last_n": dropped(),
    "dry_sequence_breakers": dropped(),
    "xtc_probability": dropped("0", "0.0"),
    "xtc_threshold": dropped(),
    "dynatemp_range": dropped("0", "0.0"),
    "dynatemp_exponent": dropped(),
    "top_n_sigma": dropped(),
    "n_predict": dropped(),
    "n_keep": dropped("0"),
    "n_probs": dropped("0"),
    "min_keep": dropped("0"),
    "samplers": dropped(),
    "id_slot": dropped("-1"),
    "cache_prompt": dropped("true"),
    "reasoning_format": dropped(),
    "thinking_budget_tokens": dropped(),
    "t_max_predict_ms": dropped(),
    # Hugging Face's and LLaMA-Factory's.
    "do_sample": adjusted("`temperature: 0`", "true", rule=Rule.GREEDY),
    # Ollama's.
    **dict.fromkeys(("options", "num_ctx", "num_predict", "keep_alive", "think", "format"), dropped()),
}
# Which of them are no parameters of a chat, or of a text, on the engine that has them.
OWN: Final[Mapping[str, Fates]] = MappingProxyType(
    {
        "chat": _OWN | {"echo": _TEXT["echo"]},
        "text_completion": _OWN
        | {"response_format": DONE, "max_completion_tokens": adjusted("`max_tokens`", renamed="max_tokens")},
        "embeddings": {},
        "transcription": {},
    }
)


def fates(operation: str, profile: EngineProfile) -> Fates:
    """What becomes of each parameter of such a request to such an engine; a parameter without an entry passes."""
    if profile.passes_parameters or operation not in SPECIFIED:
        return {}
    if operation == "transcription" and not profile.transcribes:
        return dict.fromkeys(SPECIFIED[operation], _NO_SOUNDS)
    return {**SPECIFIED[operation], **OWN[operation], **profile.parameters.get(operation, {})}
