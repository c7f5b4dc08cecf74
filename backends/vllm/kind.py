"""How vLLM is configured and run (see backends/kinds.py)."""

from __future__ import annotations

from typing import Final

from backends.engine_kind import EngineKind, Surroundings
from backends.vllm.config import VllmConfig
from backends.vllm.engine import Vllm
from backends.vllm.preflight import VllmPreflight


def _engine(name: str, config: VllmConfig, surroundings: Surroundings) -> Vllm:
    return Vllm(name, config, surroundings.drain_s, surroundings.pins, surroundings.caches)


KIND: Final = EngineKind(VllmConfig, _engine, VllmPreflight)
