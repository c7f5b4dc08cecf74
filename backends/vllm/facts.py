"""What a vLLM server, its configuration and its model's folder say of its models, as facts. Pure."""

from __future__ import annotations

from typing import Any

from backends.endpoint import DECLARED, ModelFacts
from backends.http.openai_models import OF_TEXT, entries_of, member, positive
from backends.vllm.config import VllmConfig


def of_vllm(config: VllmConfig, listed: Any, quantization: str | None) -> dict[str, ModelFacts]:
    """From vLLM's list of models, the adapters among them, and its configuration."""
    found = capabilities_of(config)
    entries = list(entries_of(listed))
    base = next((length for entry in entries if (length := positive(entry.get("max_model_len")))), None)
    return {
        str(entry["id"]): ModelFacts(
            context_length=positive(entry.get("max_model_len")) or base,
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


def quantization_in(folder: Any) -> str | None:
    """From a model's `config.json`, decoded."""
    method = member(folder, "quantization_config", "quant_method")
    return method[:64] if isinstance(method, str) and method else None


def length_in(folder: Any) -> int | None:
    """The longest context that a model was made for, from its `config.json`, decoded."""
    inner = member(folder, "text_config", "max_position_embeddings")
    return positive(member(folder, "max_position_embeddings")) or positive(inner)
