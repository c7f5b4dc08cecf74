"""Every kind of engine there is: its configuration and how it is run. A new kind is one more line here.

Not in `backends/__init__`: the data path imports `backends.endpoint`, and must not load what runs processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from backends.config.base import BackendConfig
from backends.engine import Engine
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.engine import LlamaCpp
from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama
from backends.remote.config import RemoteConfig
from backends.remote.engine import Remote
from backends.vllm.config import VllmConfig
from backends.vllm.engine import Vllm

KINDS: Final = MappingProxyType[str, tuple[type[BackendConfig], Callable[[str, Any], Engine]]](
    {
        "llama_cpp": (LlamaCppConfig, LlamaCpp),
        "ollama": (OllamaConfig, Ollama),
        "remote": (RemoteConfig, Remote),
        "vllm": (VllmConfig, Vllm),
    }
)


def kind_of(config: BackendConfig) -> str:
    """The word an operator writes for it."""
    return next(kind for kind, (config_class, _) in KINDS.items() if isinstance(config, config_class))


def engine(
    name: str,
    config: BackendConfig,
    drain_s: float = 30.0,
    pins: Path | None = None,
    caches: Path | None = None,
) -> Engine:
    """The engine that a configuration describes. `drain_s`: how long one that drains by itself goes on after TERM.

    `pins`: where is remembered which commits of models on the hub it has; without it, it fetches them by itself.
    `caches`: where what it compiles is kept for its next start.
    """
    if isinstance(config, VllmConfig):
        return Vllm(name, config, drain_s, pins, caches)
    return KINDS[kind_of(config)][1](name, config)
