"""An OpenAI-compatible endpoint that somebody else runs: only asked whether it is there and, where it is a vLLM, how
it gets on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from backends.endpoint import Endpoint, UsageMode
from backends.engine import Probe
from backends.engine_kind import EngineKind, Surroundings
from backends.errors import BackendError, TimedOut, Unreachable
from backends.http.openai_models import model_ids
from backends.http.probe_client import ProbeClient, Reply
from backends.process import heartbeat
from backends.process.heartbeat import Heartbeat
from backends.remote.config import RemoteConfig
from backends.remote.facts import of_remote
from backends.remote.preflight import RemotePreflight
from backends.vllm.metrics import figures

PROBE_S: Final = 10.0
STALL_S: Final = 120.0  # with requests in it and none of its counters moving; nobody here can restart it, only avoid it


class Remote:
    """Describes one remote endpoint and asks it how it is."""

    is_strict = False  # some list only a part
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: RemoteConfig, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._config = config
        self._control = ProbeClient(name)
        self._now = now
        self._work: Heartbeat | None = None

    def __repr__(self) -> str:
        return f"<Remote {self.name} {self._config.base_url}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> None:
        """Nothing: somebody else runs it."""

    def inputs(self) -> Sequence[Path]:
        """None: somebody else starts it."""
        return ()

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """The configured address with the configured credential."""
        headers = {name.lower(): value.get_secret_value() for name, value in self._config.headers.items()}
        if self._config.api_key is not None:
            headers["authorization"] = f"Bearer {self._config.api_key.get_secret_value()}"
        addresses = self._config.addresses
        return Endpoint(
            self.name,
            generation,
            self._config.base_url,
            headers,
            self._config.timeouts.values(),
            usage=UsageMode.TRY,
            dial=addresses[0] if isinstance(addresses, tuple) and addresses else None,
        )

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when its list of models answers, or when it is there and has none, or no time; a vLLM tells its work."""
        try:
            reply = await self._ask(endpoint, f"{endpoint.address}/models")
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, TimedOut | Unreachable))
        match reply.status:
            case status if 200 <= status < 300:
                listed = reply.json()
                probe = Probe(True, models=model_ids(listed))
                probe = await self._vllm(endpoint, listed) if _is_vllm(listed) else probe
                return dataclasses.replace(probe, facts=of_remote(listed))
            case 404 | 405 | 429:  # busy is there
                return Probe(True)
            case 401 | 403:
                return Probe(False, f"it refuses the configured credential (status {reply.status})")
            case status:
                return Probe(False, f"it answers with status {status} when asked for its models")

    async def _vllm(self, endpoint: Endpoint, listed: Any) -> Probe:
        """A list of models is no proof that its core lives, and a core that lives is none that it works."""
        root = endpoint.address.removesuffix("/v1")
        try:
            health = await self._ask(endpoint, f"{root}/health")
            page = await self._ask(endpoint, f"{root}/metrics")
        except BackendError:
            return Probe(True, models=model_ids(listed))  # somebody shows its API only
        if health.status == 503:
            return Probe(False, "its core process died", is_dead=True)
        seen = figures(page.body) if page.status == 200 else None
        if seen is None:
            return Probe(True, models=model_ids(listed))
        probe = Probe(True, models=model_ids(listed), in_flight=seen.in_flight, progress=seen.progress)
        self._work = heartbeat.advance(self._work, heartbeat.work(probe), self._now())
        if self._now() - self._work.since >= STALL_S:
            told = f"it has {seen.in_flight} requests and has done nothing for {STALL_S:g} s"
            return Probe(False, told, is_dead=True)
        return probe

    async def _ask(self, endpoint: Endpoint, url: str) -> Reply:
        return await self._control.ask(url, endpoint.headers, timeout_s=PROBE_S, dial=endpoint.dial)

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Nothing: its owner pays for every token."""


def _is_vllm(listed: Any) -> bool:
    """Whether a list of models is from a vLLM, whose `/metrics` tells how it gets on."""
    try:
        return any(entry.get("owned_by") == "vllm" for entry in listed["data"])
    except (KeyError, TypeError, AttributeError):
        return False


def _engine(name: str, config: RemoteConfig, _: Surroundings) -> Remote:
    return Remote(name, config)


KIND: Final = EngineKind(RemoteConfig, _engine, RemotePreflight)
