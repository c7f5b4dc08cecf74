"""Every kind of engine there is: its configuration and how it is run. A new kind is one more line here.

Not in `backends/__init__`: the data path imports `backends.endpoint`, and must not load what runs processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from backends.config.base import BackendConfig
from backends.engine import Engine
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.engine import LlamaCpp
from backends.llama_cpp.preflight import LlamaCppPreflight
from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama
from backends.ollama.preflight import OllamaPreflight
from backends.preflight import Preflight
from backends.remote.config import RemoteConfig
from backends.remote.engine import Remote
from backends.remote.preflight import RemotePreflight
from backends.vllm.config import VllmConfig
from backends.vllm.engine import Vllm
from backends.vllm.preflight import VllmPreflight


class EngineKind(NamedTuple):
    """The class of its configuration, how its engine is made, and what its files tell before a start."""

    config: type[BackendConfig]
    engine: Callable[[str, Any], Engine]
    preflight: Callable[[Any], Preflight]


KINDS: Final = MappingProxyType[str, EngineKind](
    {
        "llama_cpp": EngineKind(LlamaCppConfig, LlamaCpp, LlamaCppPreflight),
        "ollama": EngineKind(OllamaConfig, Ollama, OllamaPreflight),
        "remote": EngineKind(RemoteConfig, Remote, RemotePreflight),
        "vllm": EngineKind(VllmConfig, Vllm, VllmPreflight),
    }
)


def kind_of(config: BackendConfig) -> str:
    """The word an operator writes for it."""
    return next(name for name, kind in KINDS.items() if isinstance(config, kind.config))


def engine(
    name: str,
    config: BackendConfig,
    drain_s: float = 30.0,
    pins: Path | None = None,
    caches: Path | None = None,
) -> Engine:
    """The engine that a configuration describes. `drain_s`: how long one that drains by itself goes on after TERM.

    `pins`: the folder that remembers which commits of models on the hub it has; without it, it fetches them by itself.
    `caches`: the folder that keeps what it compiles for its next start.
    """
    if isinstance(config, VllmConfig):
        return Vllm(name, config, drain_s, pins, caches)
    return KINDS[kind_of(config)].engine(name, config)


def preflight(config: BackendConfig) -> Preflight:
    """What this backend's settings and files tell before it is started."""
    return KINDS[kind_of(config)].preflight(config)
