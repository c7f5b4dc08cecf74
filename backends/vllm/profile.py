"""What the data path has to know of vLLM."""

from __future__ import annotations

from typing import Final

from backends.engine_profile import (
    DONE,
    EngineProfile,
    Fate,
    ModelNames,
    StructuredOutput,
    TaskApi,
    TemplateApi,
    Thinking,
    TokenTelling,
    adjusted,
)

# Its server answers on for seconds after the process that computes has ended.
CORE_FAILED: Final = ("EngineCore encountered an issue",)
_STRUCTURED: Final = adjusted("`structured_outputs`")
_CHAT: Final[dict[str, Fate]] = {
    **dict.fromkeys(
        (
            *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
            *("guided_whitespace_pattern", "grammar", "json_schema"),
        ),
        _STRUCTURED,
    ),
    "repeat_penalty": adjusted("`repetition_penalty`", renamed="repetition_penalty"),
    # Its own.
    **dict.fromkeys(
        (
            *("structured_outputs", "repetition_penalty", "prompt_logprobs", "use_beam_search", "allowed_token_ids"),
            *("documents", "prompt_embeds", "min_tokens", "stop_token_ids", "include_stop_str_in_output"),
            *("skip_special_tokens", "spaces_between_special_tokens", "truncate_prompt_tokens", "truncation_side"),
            *("length_penalty", "bad_words", "priority", "cache_salt", "logprob_token_ids", "return_token_ids"),
            *("return_tokens_as_token_ids", "include_reasoning", "thinking_token_budget"),
        ),
        DONE,
    ),
}

PROFILE: Final = EngineProfile(
    kind="vllm",
    title="vLLM",
    is_local=True,
    model_names=ModelNames.BACKEND,
    weights="safetensors",
    abilities="tokens, and what its model was made for",
    parameters={"chat": _CHAT, "text_completion": _CHAT},
    streams_usage=True,
    transcribes=True,
    configured_names={"typical_p": None},
    options={"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    prefill={"continue_final_message": True, "add_generation_prompt": False},
    takes_format=True,
    thinking=Thinking.TEMPLATE_AND_EFFORT,
    structured_output=StructuredOutput.MEMBERS,
    tasks=TaskApi.SAME_ROUTES,
    templates=TemplateApi.TOKENIZE,
    max_constraint_ways=2_000,
    failure_marks=CORE_FAILED,
    keeps_prefixes=True,
    tells_tokens=TokenTelling.NUMBERS,
)
