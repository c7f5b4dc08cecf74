"""What the data path has to know of llama.cpp's server, which is the embedded engine."""

from __future__ import annotations

from typing import Final

from backends.engine_profile import (
    DONE,
    Act,
    EngineProfile,
    Fate,
    Rule,
    StructuredOutput,
    TaskApi,
    TemplateApi,
    Thinking,
    TokenTelling,
    adjusted,
    refused,
)

_FORCED: Final = adjusted("`json_schema` or `grammar`; a regex is refused")
_BOTH: Final[dict[str, Fate]] = {
    **dict.fromkeys(
        (
            *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
            "structured_outputs",
        ),
        _FORCED,
    ),
    "repetition_penalty": adjusted("`repeat_penalty`", renamed="repeat_penalty"),
    "allowed_token_ids": refused("it has no such list; `logit_bias` may do", "[]"),
    "prompt_embeds": refused("it takes text and tokens"),
    # Its own.
    **dict.fromkeys(
        (
            *("repeat_penalty", "grammar", "json_schema", "typical_p", "repeat_last_n", "mirostat", "mirostat_tau"),
            *("mirostat_eta", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n"),
            *("dry_sequence_breakers", "xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent"),
            *("top_n_sigma", "n_predict", "n_keep", "n_probs", "min_keep", "samplers", "id_slot", "cache_prompt"),
            *("reasoning_format", "thinking_budget_tokens", "t_max_predict_ms"),
        ),
        DONE,
    ),
}
_CHAT: Final = _BOTH | {
    "echo": refused("the embedded engine cannot echo a chat", "false"),
    "reasoning_effort": adjusted(
        "what chat templates know: `enable_thinking`, `reasoning_effort`", rule=Rule.EFFORT_IN_TEMPLATE
    ),
    "tool_choice": adjusted("a named tool: this tool only, and `required`", rule=Rule.ONLY_NAMED_TOOL),
}
_TEXT: Final = _BOTH | {
    "echo": Fate(
        Act.DONE,
        note="with `max_tokens` 0 or 1, in a process of its own; beside more it is refused",
        rule=Rule.ECHO_ALONE,
    ),
    "logprobs": Fate(Act.DONE, note="`0` becomes 1 where there is no `echo`, which is named"),
    "suffix": refused("the embedded engine does not fill gaps", '""'),
    "response_format": adjusted("`json_schema`"),
}
_EMBEDDINGS: Final = {"dimensions": refused("unless the model makes as many", rule=Rule.BY_ANSWER)}

PROFILE: Final = EngineProfile(
    kind="llama_cpp",
    title="the embedded engine",
    is_local=True,
    ignores_model_name=True,
    weights="gguf",
    keeps_prefixes=True,
    abilities="tokens, and chats and completions, or embeddings, or ranking, as its `task` says",
    parameters={"chat": _CHAT, "text_completion": _TEXT, "embeddings": _EMBEDDINGS},
    never_null=frozenset({"encoding_format", "embd_normalize", "reasoning_format"}),
    writes_at_least_one=True,
    counts_logprobs_from_one=True,
    configured_names={"repetition_penalty": "repeat_penalty"},
    options={name: name for name in ("top_k", "min_p", "typical_p", "repeat_last_n", "repeat_penalty")},
    prefill={},  # it goes on from an assistant's message by itself
    takes_format=True,
    thinking=Thinking.TEMPLATE,
    structured_output=StructuredOutput.GRAMMAR,
    tasks=TaskApi.LLAMA_SERVER,
    templates=TemplateApi.APPLY_TEMPLATE,
    max_constraint_ways=500,
    checks_prompt=True,
    knows_template_tools=True,
    tells_tokens=TokenTelling.PROBABILITIES,
)
