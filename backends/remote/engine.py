"""An OpenAI-compatible endpoint that somebody else runs: it is only asked whether it is up and, where it is a vLLM,
whether it makes progress.
"""

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
MORE_S: Final = 2.0  # for what a vLLM tells beside its list: one that is slow to tell it serves all the same
STALL_S: Final = 120.0  # requests run and none of its counters moves; we cannot restart it, only avoid it

MEASURED: Final = frozenset({"vllm", "sglang", "llamacpp"})  # `owned_by` of engines that have `/metrics`


class Remote:
    """Fulfils Engine for one remote endpoint."""

    is_strict = False  # some list only a part of their models
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: RemoteConfig, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._config = config
        self._client = ProbeClient(name)
        self._now = now
        self._work: Heartbeat | None = None

    def __repr__(self) -> str:
        return f"<Remote {self.name} {self._config.base_url}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> None:
        """None: somebody else runs it."""

    def inputs(self) -> Sequence[Path]:
        """Empty: somebody else starts it."""
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
        """Up when it lists its models, has no such list, or is too busy for it. A vLLM's health and work are looked at,
        too.
        """
        try:
            reply = await self._ask(endpoint, f"{endpoint.address}/models")
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, TimedOut | Unreachable))
        match reply.status:
            case status if 200 <= status < 300:
                listed = reply.json()
                probe = Probe(True, models=model_ids(listed))
                probe = await self._vllm(endpoint, listed) if _is_vllm(listed) else probe
                return dataclasses.replace(probe, facts=of_remote(listed), metrics=_metrics(endpoint, listed))
            case 404 | 405 | 429:  # no such list, or busy: it is up all the same
                return Probe(True)
            case 401 | 403:
                return Probe(False, f"it refuses the configured credential (status {reply.status})")
            case status:
                return Probe(False, f"it answers with status {status} when asked for its models")

    async def _vllm(self, endpoint: Endpoint, listed: Any) -> Probe:
        """A vLLM lists its models also when its core is dead, and a core that lives may stand still."""
        root = endpoint.address.removesuffix("/v1")
        try:
            health = await self._ask(endpoint, f"{root}/health", MORE_S)
            page = await self._ask(endpoint, f"{root}/metrics", MORE_S)
        except BackendError:
            return Probe(True, models=model_ids(listed))  # only its API can be reached
        if health.status == 503:
            return Probe(False, "its core process died", is_dead=True)
        work = figures(page.body) if page.status == 200 else None
        if work is None:
            return Probe(True, models=model_ids(listed))
        probe = Probe(True, models=model_ids(listed), in_flight=work.in_flight, progress=work.progress)
        self._work = heartbeat.advance(self._work, heartbeat.work(probe), self._now())
        if self._now() - self._work.since >= STALL_S:
            reason = f"it has {work.in_flight} requests and has done nothing for {STALL_S:g} s"
            return Probe(False, reason, is_dead=True)
        return probe

    async def _ask(self, endpoint: Endpoint, url: str, timeout_s: float = PROBE_S) -> Reply:
        return await self._client.ask(url, endpoint.headers, timeout_s=timeout_s, dial=endpoint.dial)

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Nothing: its owner pays for every token."""


def _is_vllm(listed: Any) -> bool:
    """Whether a list of models is a vLLM's, which has `/health` and `/metrics`."""
    return "vllm" in _owners(listed)


def _metrics(endpoint: Endpoint, listed: Any) -> str | None:
    """Where an engine shows its metrics that by its list of models is one that can. Nobody else is asked for them: what
    sells tokens has none, and counts what it is asked.
    """
    is_engine = not MEASURED.isdisjoint(_owners(listed))
    return f"{endpoint.address.removesuffix('/v1')}/metrics" if is_engine else None


def _owners(listed: Any) -> set[str]:
    """Who serves the models of a list, as it says itself."""
    try:
        return {str(entry.get("owned_by")) for entry in listed["data"]}
    except (KeyError, TypeError, AttributeError):
        return set()


def _engine(name: str, config: RemoteConfig, _: Surroundings) -> Remote:
    return Remote(name, config)


KIND: Final = EngineKind(RemoteConfig, _engine, RemotePreflight)
