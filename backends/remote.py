"""An OpenAI-compatible endpoint that somebody else runs: only asked whether it is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backends.base import Endpoint, Probe, Usage
from backends.config import RemoteConfig
from backends.control import Control
from backends.errors import BackendError
from backends.vllm_metrics import Figures, figures

PROBE_S: Final = 10.0


class Remote:
    """Describes one remote endpoint and asks it how it is."""

    is_strict = False  # some list only a part
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: RemoteConfig) -> None:
        self.name = name
        self._config = config
        self._control = Control(name)

    def __repr__(self) -> str:
        return f"<Remote {self.name} {self._config.url}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> None:
        """Nothing: somebody else runs it."""

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """The configured address with the configured credential."""
        headers = {name.lower(): value.get_secret_value() for name, value in self._config.headers.items()}
        if self._config.api_key is not None:
            headers["authorization"] = f"Bearer {self._config.api_key.get_secret_value()}"
        address = self._config.url.rstrip("/")
        return Endpoint(self.name, generation, address, headers, self._config.timeouts.values(), usage=Usage.TRY)

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when its list of models answers, or when it is there and has none, or no time; a vLLM tells its work."""
        try:
            reply = await self._control.ask(f"{endpoint.address}/models", endpoint.headers, timeout_s=PROBE_S)
        except BackendError as exc:
            return Probe(False, exc.message)
        match reply.status:
            case status if 200 <= status < 300:
                listed = reply.json()
                seen = await self._figures(endpoint) if _is_vllm(listed) else None
                if seen is None:
                    return Probe(True, models=model_ids(listed))
                return Probe(True, models=model_ids(listed), in_flight=seen.in_flight, progress=seen.progress)
            case 404 | 405 | 429:  # busy is there
                return Probe(True)
            case 401 | 403:
                return Probe(False, f"it refuses the configured credential (status {reply.status})")
            case status:
                return Probe(False, f"it answers with status {status} when asked for its models")

    async def _figures(self, endpoint: Endpoint) -> Figures | None:
        root = endpoint.address.removesuffix("/v1")
        try:
            page = await self._control.ask(f"{root}/metrics", endpoint.headers, timeout_s=PROBE_S)
        except BackendError:
            return None
        return figures(page.body) if page.status == 200 else None

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Nothing: its owner pays for every token."""


def _is_vllm(listed: Any) -> bool:
    """Whether a list of models is from a vLLM, whose `/metrics` tells how it gets on."""
    try:
        return any(entry.get("owned_by") == "vllm" for entry in listed["data"])
    except (KeyError, TypeError, AttributeError):
        return False


def model_ids(listed: Any) -> tuple[str, ...] | None:
    """The names in an OpenAI list of models; None when it is not one."""
    try:
        return tuple(str(entry["id"]) for entry in listed["data"])
    except (KeyError, TypeError):
        return None
