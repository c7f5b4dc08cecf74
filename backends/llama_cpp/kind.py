"""How the embedded engine is configured and run (see backends/kinds.py)."""

from __future__ import annotations

from typing import Final

from backends.engine_kind import EngineKind, Surroundings
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.engine import LlamaCpp
from backends.llama_cpp.preflight import LlamaCppPreflight


def _engine(name: str, config: LlamaCppConfig, _: Surroundings) -> LlamaCpp:
    return LlamaCpp(name, config)


KIND: Final = EngineKind(LlamaCppConfig, _engine, LlamaCppPreflight)
