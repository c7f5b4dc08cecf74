"""What the supervisor has to know of a kind of engine: each has an `EngineKind`, in its folder's module `engine`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from backends.config.base import BackendConfig
from backends.engine import Engine
from backends.inspection import Inspection
from backends.preflight import Preflight


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine may use of the gateway that runs it.

    `drain_s`: how long one that drains by itself goes on after TERM. `pins`: the folder that remembers which commits of
    models on the hub it has; without it, it fetches them by itself. `caches`: the folder that keeps what it compiles
    for its next start.
    """

    drain_s: float = 30.0
    pins: Path | None = None
    caches: Path | None = None


class EngineKind(NamedTuple):
    """The class of its configuration, how its engine is made of one (with the backend's name), and what a
    configuration's files tell before a start. `usual`: what to look at where no backend of the kind is configured.
    """

    config: type[BackendConfig]
    engine: Callable[[str, Any, Surroundings], Engine]
    preflight: Callable[[Any], Preflight] = Preflight
    usual: Inspection = Inspection()

    def build(
        self,
        name: str,
        config: BackendConfig,
        drain_s: float = 30.0,
        pins: Path | None = None,
        caches: Path | None = None,
    ) -> Engine:
        """The engine of a backend called `name`; the rest is its Surroundings."""
        return self.engine(name, config, Surroundings(drain_s, pins, caches))
