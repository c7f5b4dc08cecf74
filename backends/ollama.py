"""An Ollama daemon that somebody else runs, spoken to through its OpenAI endpoint.

It refuses a browser's Origin and foreign Host names with an empty 403, so neither is ever sent on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backends.base import Endpoint, Probe, Usage
from backends.config import OllamaConfig
from backends.control import Control
from backends.errors import BackendError

PROBE_S: Final = 10.0  # both questions are answered from memory, also while a model loads


class Ollama:
    """Describes one daemon and asks it how it is."""

    is_strict = True
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: OllamaConfig) -> None:
        self.name = name
        self._config = config
        self._control = Control(name)

    def __repr__(self) -> str:
        return f"<Ollama {self.name} {self._config.url}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> None:
        """Nothing: somebody else runs it."""

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """Its OpenAI surface; it knows no keys."""
        address = f"{self._config.url.rstrip('/')}/v1"
        return Endpoint(self.name, generation, address, {}, self._config.timeouts.values(), usage=Usage.TRY)

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when it tells its version; its models by their full names, tag included (`m` means `m:latest`)."""
        root = endpoint.address.removesuffix("/v1")
        try:
            version = await self._control.ask(f"{root}/api/version", timeout_s=PROBE_S)
            if version.status == 403:
                return Probe(False, "it refuses the host name we call it by (see OLLAMA_HOST); use its IP address")
            if version.status != 200 or not isinstance(version.json(), dict):
                return Probe(False, "what answers there is not an Ollama daemon")
            tags = await self._control.ask(f"{root}/api/tags", timeout_s=PROBE_S)
        except BackendError as exc:
            return Probe(False, exc.message)
        return Probe(True, models=_names(tags.json()) if tags.status == 200 else None)

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Nothing: which model to load is the daemon's affair."""


def _names(tags: Any) -> tuple[str, ...] | None:
    try:
        return tuple(str(entry["name"]) for entry in tags["models"])
    except (KeyError, TypeError):
        return None
