"""What engines report of their models, and what their configuration says, as facts. Pure.

Only what is said counts; nothing is guessed. That an engine has a capability at all (llama.cpp and vLLM can hold any
model to a schema) counts as said by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backends.config.base import VllmConfig
from backends.endpoint import CAPABILITIES, DECLARED, FAILED, VERIFIED, ModelFacts

OF_TEXT: Final = ("chat", "completion", "json_schema", "logprobs")
# Ollama's words for what a model can do.
_ABILITIES: Final = {
    "completion": ("chat", "completion", "json_schema"),
    "tools": ("tools",),
    "thinking": ("reasoning",),
    "vision": ("vision",),
    "embedding": ("embedding",),
}


def of_llama_cpp(props: Any, *, embeds: bool) -> ModelFacts | None:
    """From llama.cpp's `/props`; None when that is no such answer."""
    if not isinstance(props, dict):
        return None
    found = dict.fromkeys(("embedding",) if embeds else OF_TEXT, DECLARED)
    has_vision = _member(props, "modalities", "vision")
    if isinstance(has_vision, bool):
        found["vision"] = DECLARED if has_vision else FAILED
    has_tools = _member(props, "chat_template_caps", "supports_tools")
    if isinstance(has_tools, bool) and not embeds:
        found["tools"] = DECLARED if has_tools else FAILED
    length = _member(props, "default_generation_settings", "n_ctx")
    packed = props.get("model_ftype")
    return ModelFacts(
        context_length=_length(length),
        capabilities=found,
        quantization=packed if isinstance(packed, str) and packed else None,
    )


def of_vllm(config: VllmConfig, listed: Any, quantization: str | None) -> dict[str, ModelFacts]:
    """From vLLM's list of models, the adapters among them, and its configuration."""
    found = capabilities_of(config)
    entries = list(_entries(listed))
    base = next((length for entry in entries if (length := _length(entry.get("max_model_len")))), None)
    return {
        str(entry["id"]): ModelFacts(
            context_length=_length(entry.get("max_model_len")) or base,
            capabilities=found,
            quantization=config.quantization or quantization,
        )
        for entry in entries
    }


def capabilities_of(config: VllmConfig) -> dict[str, str]:
    """What a vLLM that is so configured can do."""
    match config.task:
        case "embed":
            return {"embedding": DECLARED}
        case "classify":
            return {}
    parsers = {"tools": config.tool_call_parser, "reasoning": config.reasoning_parser}
    return dict.fromkeys((*OF_TEXT, *(name for name, parser in parsers.items() if parser is not None)), DECLARED)


def of_remote(listed: Any) -> dict[str, ModelFacts]:
    """From somebody's list of models: vLLM's length, or what another Modelport says."""
    found = {}
    for entry in _entries(listed):
        length = _length(entry.get("context_length")) or _length(entry.get("max_model_len"))
        said = entry.get("capabilities")
        known = said if isinstance(said, dict) else {}
        capabilities = {
            name: FAILED if known[name] == FAILED else DECLARED
            for name in CAPABILITIES
            if known.get(name) in (DECLARED, VERIFIED, FAILED)
        }
        packed = entry.get("quantization")
        quantization = packed[:64] if isinstance(packed, str) and packed else None
        if length or capabilities or quantization:
            found[str(entry["id"])] = ModelFacts(
                context_length=length, capabilities=capabilities, quantization=quantization
            )
    return found


def of_abilities(abilities: Iterable[str]) -> dict[str, str]:
    """Capabilities from Ollama's words."""
    return {name: DECLARED for ability in abilities for name in _ABILITIES.get(ability, ())}


def quantization_in(folder: Any) -> str | None:
    """From a model's `config.json`, decoded."""
    method = _member(folder, "quantization_config", "quant_method")
    return method[:64] if isinstance(method, str) and method else None


def length_in(folder: Any) -> int | None:
    """The longest context that a model was made for, from its `config.json`, decoded."""
    inner = _member(folder, "text_config", "max_position_embeddings")
    return _length(_member(folder, "max_position_embeddings")) or _length(inner)


def _entries(listed: Any) -> Iterable[Mapping[str, Any]]:
    entries = listed.get("data") if isinstance(listed, dict) else None
    return [each for each in entries if isinstance(each, dict) and "id" in each] if isinstance(entries, list) else []


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _member(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
