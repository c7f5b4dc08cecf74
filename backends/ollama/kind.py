"""How an Ollama daemon is configured and run (see backends/kinds.py)."""

from __future__ import annotations

from typing import Final

from backends.engine_kind import EngineKind, Surroundings
from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama
from backends.ollama.preflight import OllamaPreflight


def _engine(name: str, config: OllamaConfig, _: Surroundings) -> Ollama:
    return Ollama(name, config)


KIND: Final = EngineKind(OllamaConfig, _engine, OllamaPreflight)
