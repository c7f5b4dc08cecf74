"""How an endpoint that somebody else runs is configured and run (see backends/kinds.py)."""

from __future__ import annotations

from typing import Final

from backends.engine_kind import EngineKind, Surroundings
from backends.remote.config import RemoteConfig
from backends.remote.engine import Remote
from backends.remote.preflight import RemotePreflight


def _engine(name: str, config: RemoteConfig, _: Surroundings) -> Remote:
    return Remote(name, config)


KIND: Final = EngineKind(RemoteConfig, _engine, RemotePreflight)
