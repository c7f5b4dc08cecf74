"""What engines report of their models, and what their configuration says, as facts. Pure.

Only what is said counts; nothing is guessed. That an engine has a capability at all (llama.cpp and vLLM can hold any
model to a schema) counts as said by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backends.base import CAPABILITIES, DECLARED, FAILED, VERIFIED, ModelFacts
from backends.config import VllmConfig

_OF_TEXT: Final = ("chat", "completion", "json_schema", "logprobs")
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
    found = dict.fromkeys(("embedding",) if embeds else _OF_TEXT, DECLARED)
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
    match config.task:
        case "embed":
            found = {"embedding": DECLARED}
        case "classify":
            found = {}
        case _:
            found = dict.fromkeys(_OF_TEXT, DECLARED)
            if config.tool_call_parser is not None:
                found["tools"] = DECLARED
            if config.reasoning_parser is not None:
                found["reasoning"] = DECLARED
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


def _entries(listed: Any) -> Iterable[Mapping[str, Any]]:
    entries = listed.get("data") if isinstance(listed, dict) else None
    return [each for each in entries if isinstance(each, dict) and "id" in each] if isinstance(entries, list) else []


def _length(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _member(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
