"""What an engine will say of its models once it runs, as far as its settings and its model's files tell. Blocks."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from backends.config.base import BackendConfig
from backends.endpoint import DECLARED, ModelFacts
from backends.errors import BackendError
from backends.http.openai_models import OF_TEXT
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_header import Unreadable, shape
from backends.ollama.config import OllamaConfig
from backends.remote.config import RemoteConfig
from backends.vllm.config import VllmConfig
from backends.vllm.facts import capabilities_of, length_in, quantization_in

_DOES = {"generate": OF_TEXT, "embed": ("embedding",)}


def expected(config: BackendConfig) -> ModelFacts | None:
    """Of each of its models; None where nothing is known before somebody has asked it."""
    match config:
        case LlamaCppConfig():
            return _llama_cpp(config)
        case VllmConfig():
            return _vllm(config)
        case OllamaConfig(num_ctx=int() as length) | RemoteConfig(context_length=int() as length):
            return ModelFacts(context_length=length)
        case _:
            return None


def _llama_cpp(config: LlamaCppConfig) -> ModelFacts:
    length, architecture = config.context_length, None
    with contextlib.suppress(BackendError, OSError, Unreadable):  # the engine says what is wrong when it starts
        found = shape(model_file("", config.model))
        length, architecture = length or found.context_length or None, found.architecture
    capabilities = dict.fromkeys(_DOES.get(config.task, ()), DECLARED)
    return ModelFacts(context_length=length, capabilities=capabilities, architecture=architecture)


def _vllm(config: VllmConfig) -> ModelFacts:
    told: Any = None
    with contextlib.suppress(OSError, ValueError):  # a model of the hub is not here, or not yet
        told = json.loads((Path(config.model).expanduser() / "config.json").read_bytes())
    architecture = told.get("model_type") if isinstance(told, dict) else None
    return ModelFacts(
        context_length=config.max_model_len or length_in(told),
        capabilities=capabilities_of(config),
        quantization=config.quantization or quantization_in(told),
        architecture=architecture[:64] if isinstance(architecture, str) and architecture else None,
    )
