"""Facts of a vLLM's models: from its list of models, its configuration and its model's `config.json`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from backends.endpoint import DECLARED, ModelFacts
from backends.http.openai_models import OF_TEXT, entries_of, member, positive
from backends.vllm.config import VllmConfig


def of_vllm(
    config: VllmConfig, listed: Any, quantization: str | None, version: str | None = None
) -> dict[str, ModelFacts]:
    """The facts of each model in vLLM's list of models (adapters are among them), by name.

    `listed`: the body of `GET /v1/models`, decoded. `quantization`: as the model's folder says it. `version`: of
    vLLM itself.
    """
    capabilities = capabilities_of(config)
    entries = list(entries_of(listed))
    base = next((length for entry in entries if (length := positive(entry.get("max_model_len")))), None)
    return {
        str(entry["id"]): ModelFacts(
            context_length=positive(entry.get("max_model_len")) or base,
            capabilities=capabilities,
            quantization=config.quantization or quantization,
            no_prompt_logprobs=_DIES if config.takes_adapters and _is_mortal(version) else "",
        )
        for entry in entries
    }


# Seen with 0.32.0+cpu: its core ended when a prompt's log probabilities were computed beside other requests.
_MORTAL: Final = re.compile(r"0\.32\.\d+\+cpu")
_DIES: Final = "vLLM 0.32 for the CPU may end at it while adapters are enabled"


def _is_mortal(version: str | None) -> bool:
    return version is not None and _MORTAL.match(version) is not None


def capabilities_of(config: VllmConfig) -> dict[str, str]:
    """What a vLLM with this configuration can do, each as DECLARED, by the names of CAPABILITIES."""
    match config.task:
        case "embed":
            return {"embedding": DECLARED}
        case "classify":
            return {}
    parsers = {"tools": config.tool_call_parser, "reasoning": config.reasoning_parser}
    return dict.fromkeys((*OF_TEXT, *(name for name, parser in parsers.items() if parser is not None)), DECLARED)


def quantization_in(model_config: Any) -> str | None:
    """How the weights are quantized, from a model's `config.json`, decoded; None where it does not say."""
    method = member(model_config, "quantization_config", "quant_method")
    return method[:64] if isinstance(method, str) and method else None


def length_in(model_config: Any) -> int | None:
    """The longest context that a model was made for, in tokens, from its `config.json`, decoded; None where it does not
    say.
    """
    inner = member(model_config, "text_config", "max_position_embeddings")
    return positive(member(model_config, "max_position_embeddings")) or positive(inner)


# What vLLM draws with where nobody says anything.
_NEUTRAL: Final = {"temperature": 1.0, "top_p": 1.0, "top_k": 0.0, "min_p": 0.0, "repetition_penalty": 1.0}
_FROM_WHERE: Final = "--generation-config"


def sampling(config: VllmConfig, generation: Mapping[str, Any]) -> dict[str, float] | None:
    """What answers are drawn with when a request says nothing. `generation`: the model's generation_config.json, which
    `--generation-config` may replace; None where that is by another folder.
    """
    words = [word.replace("_", "-").partition("=") for word in config.args]
    given = [value or None for flag, _, value in words if flag == _FROM_WHERE]
    if _FROM_WHERE in config.args:
        given = [config.args[at + 1] for at, word in enumerate(config.args[:-1]) if word == _FROM_WHERE]
    source = given[-1] if given else "auto"
    if source not in ("auto", "vllm"):
        return None
    said = {**(generation if source == "auto" else {}), **config.override_generation_config}
    told = {name: said[name] for name in _NEUTRAL if isinstance(said.get(name), int | float)}
    return {**_NEUTRAL, **{name: float(value) for name, value in told.items()}}
