"""Every kind of engine there is, by the word that an operator writes for it: a new kind is a folder and a line here.

A kind's folder has two modules that are looked up by their names, and loaded when they are first asked for, so that the
data path can import this one without loading what runs processes:

- `profile` with `PROFILE`, an `EngineProfile`: what the data path has to know of it. It imports nothing but values.
- `engine` with `KIND`, an `EngineKind`: how it is configured and run.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backends.engine_profile import UNKNOWN, EngineProfile

if TYPE_CHECKING:
    from backends.config.base import BackendConfig
    from backends.engine import Engine
    from backends.engine_kind import EngineKind
    from backends.preflight import Preflight

# The kind → the package that holds it.
FOLDERS: Final[dict[str, str]] = {
    "llama_cpp": "backends.llama_cpp",
    "vllm": "backends.vllm",
    "remote": "backends.remote",
    "ollama": "backends.ollama",
}


class _Profiles(dict[str, EngineProfile]):
    """Those that have been asked for."""

    def __missing__(self, kind: str) -> EngineProfile:
        """The profile in a kind's folder; UNKNOWN for a kind that does not exist."""
        if kind not in FOLDERS:
            return UNKNOWN
        profile: EngineProfile = _module(kind, "profile").PROFILE
        self[kind] = profile
        return profile


PROFILES: Final = _Profiles()


def engine_kind(name: str) -> EngineKind:
    """How that kind is configured and run; KeyError for a kind that does not exist."""
    kind: EngineKind = _module(name, "engine").KIND
    return kind


def kind_of(config: BackendConfig) -> str:
    """The word that an operator writes for it."""
    return next(name for name in FOLDERS if isinstance(config, engine_kind(name).config))


def engine(
    name: str,
    config: BackendConfig,
    drain_s: float = 30.0,
    pins: Path | None = None,
    caches: Path | None = None,
) -> Engine:
    """The engine that a configuration describes; the rest is as `Surroundings` (backends/engine_kind.py) have it."""
    return engine_kind(kind_of(config)).build(name, config, drain_s, pins, caches)


def preflight(config: BackendConfig) -> Preflight:
    """What this backend's settings and files tell before it is started."""
    return engine_kind(kind_of(config)).preflight(config)


def _module(kind: str, name: str) -> Any:
    """A module of a kind's folder, whose names the head of this file promises."""
    return importlib.import_module(f"{FOLDERS[kind]}.{name}")
