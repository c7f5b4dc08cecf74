"""How it is configured and run: somebody else starts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, UsageMode
from backends.engine import Probe
from backends.engine_kind import EngineKind, Surroundings
from backends.http.openai_models import model_ids
from backends.http.probe_client import ProbeClient


class FifthConfig(BackendConfig):
    """Where it listens."""

    kind: Literal["fifth"]
    url: str


class Fifth:
    """One of it."""

    is_strict = True
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: FifthConfig) -> None:
        self.name = name
        self._config = config

    def launch(self, port: int, devices: Sequence[str], key: str) -> None:
        """Nothing: somebody else runs it."""

    def inputs(self) -> Sequence[Path]:
        """None."""
        return ()

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """Where it listens."""
        return Endpoint(
            self.name, generation, self._config.url, timeouts=self._config.timeouts.values(), usage=UsageMode.ASK
        )

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Its list of models."""
        reply = await ProbeClient(self.name).ask(f"{endpoint.address}/models", endpoint.headers, timeout_s=10)
        return Probe(True, models=model_ids(reply.json()))

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Nothing."""


def _engine(name: str, config: FifthConfig, _: Surroundings) -> Fifth:
    return Fifth(name, config)


KIND: Final = EngineKind(FifthConfig, _engine)
