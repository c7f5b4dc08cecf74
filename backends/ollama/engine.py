"""An Ollama daemon, run by somebody else or by us, through its own API (docs/ollama.md).

It refuses a browser's Origin and foreign Host names with an empty 403, so neither is ever passed on to it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backends.endpoint import Dialect, Endpoint, ModelFacts, UsageMode
from backends.engine import Launch, Probe
from backends.engine_kind import EngineKind, Surroundings
from backends.errors import BackendError, Refused
from backends.http.probe_client import ProbeClient
from backends.ollama.config import OllamaConfig
from backends.ollama.facts import LoadedModel, Tag, loaded, shown, tags, warning, weights
from backends.ollama.names import full_name
from backends.ollama.preflight import USUAL, OllamaPreflight
from backends.process.exit_reasons import why
from backends.process.process import gpu_environment, inherited

PROBE_S: Final = 10.0  # it responds from memory, also while a model loads
SHOWN_AT_ONCE: Final = 4

# What the daemon prints when it does not start, or ends, and what that means.
_SERVING: Final = ((r"(?i)no space left on device", "the disk is full"),)
_MEANINGS: Final = (
    (r"(?i)address already in use", "its port is taken by another program"),
    (r"(?i)permission denied", "it may not read or write its folder of models"),
    *_SERVING,
)


class Ollama:
    """Fulfils Engine for one daemon."""

    is_strict = True
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: OllamaConfig) -> None:
        self.name = name
        self._config = config
        self._client = ProbeClient(name)
        # By name and digest, so that a model that was pulled again is looked up again.
        self._facts: dict[tuple[str, str], ModelFacts] = {}
        self._weights: dict[tuple[str, str], str | None] = {}  # the digests of their weights

    def __repr__(self) -> str:
        return f"<Ollama {self.name} {'managed' if self._config.managed else self._config.url}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch | None:
        """`ollama serve` on loopback; None when somebody else runs the daemon."""
        if not self._config.managed:
            return None
        env = environment(self._config, port, devices, inherited(os.environ))
        return Launch((*self._config.command, "serve"), env, explain)

    def inputs(self) -> Sequence[Path]:
        """The program of a managed daemon; empty for another one."""
        word = self._config.command[0]
        return [Path(shutil.which(word) or word)] if self._config.managed else []

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """The daemon's own API, which has no keys."""
        is_ours = self._config.managed
        return Endpoint(
            self.name,
            generation,
            f"http://127.0.0.1:{port}" if is_ours else self._config.url.rstrip("/"),
            {},
            self._config.timeouts.values(),
            is_ours=is_ours,
            usage=UsageMode.ASK,
            dialect=Dialect.OLLAMA,
        )

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when it gives its version. The facts are by the models' full names."""
        root = endpoint.address
        try:
            version = await self._client.ask(f"{root}/api/version", timeout_s=PROBE_S)
            if version.status == 403:
                return Probe(False, "it refuses the host name in `url` (see OLLAMA_HOST): use its IP address")
            body = version.json()
            if version.status != 200 or not isinstance(body, dict):
                return Probe(False, "what answers there is not an Ollama daemon")
            number = str(body.get("version", ""))
            vulnerable = warning(number)
            listed = await self._client.ask(f"{root}/api/tags", timeout_s=PROBE_S)
            names = tags(listed.json()) if listed.status == 200 else None
            if names is None:
                return Probe(True, warning=vulnerable, version=number)
            running = await self._client.ask(f"{root}/api/ps", timeout_s=PROBE_S)
            await self._look_up(root, names)
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, Refused))
        in_memory = loaded(running.json() if running.status == 200 else None)
        return Probe(
            True,
            models=tuple(names),
            facts=self._known(names, in_memory),
            warning=vulnerable,
            version=number,
            digests={full_name(name): tag.digest for name, tag in names.items() if tag.digest},
        )

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Does nothing: which model to load is the daemon's decision."""

    async def _look_up(self, root: str, names: Mapping[str, Tag]) -> None:
        """Ask for the facts of those of these models that are not known yet."""
        keys = [(name, tag.digest) for name, tag in names.items()]
        self._facts = {key: facts for key, facts in self._facts.items() if key in keys}
        self._weights = {key: digest for key, digest in self._weights.items() if key in keys}
        turns = asyncio.Semaphore(SHOWN_AT_ONCE)

        async def show(name: str, digest: str) -> None:
            try:
                async with turns:
                    reply = await self._client.ask(f"{root}/api/show", timeout_s=PROBE_S, body={"model": name})
            except BackendError:
                return  # the next probe asks again; the daemon is up all the same
            body = reply.json() if reply.status == 200 else None
            facts = shown(self._config, name, body)
            if facts is not None:
                self._facts[name, digest], self._weights[name, digest] = facts, weights(body)

        await asyncio.gather(*(show(*key) for key in keys if key not in self._facts))

    def _known(self, names: Mapping[str, Tag], in_memory: Mapping[str, LoadedModel]) -> dict[str, ModelFacts]:
        """The facts by full name, with what is in memory now. Names with the same weights share one process of the
        daemon's, so each of them counts as loaded when one of them is.
        """
        keys = {(name, tag.digest): tag for name, tag in names.items()}
        shared = {
            self._weights.get(key): in_memory[full_name(key[0])] for key in keys if full_name(key[0]) in in_memory
        }
        known: dict[str, ModelFacts] = {}
        for key, tag in keys.items():
            name, facts, digest = full_name(key[0]), self._facts.get(key), self._weights.get(key)
            if facts is not None:
                entry = in_memory.get(name) or (shared.get(digest) if digest is not None else None)
                model = entry or LoadedModel()
                known[name] = msgspec.structs.replace(
                    facts,
                    is_loaded=entry is not None,
                    memory_bytes=model.memory_bytes,
                    expires_at=model.expires_at,
                    size_bytes=tag.size_bytes,
                )
        return known


def environment(config: OllamaConfig, port: int, devices: Sequence[str], base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a managed daemon: over `base`, which it inherits, what the settings mean; then `env` of the
    configuration; its address comes last.
    """
    idle_s = config.idle_s()
    env = {
        **base,
        "OLLAMA_NUM_PARALLEL": str(config.num_parallel),
        "OLLAMA_KEEP_ALIVE": "-1" if idle_s is None or idle_s < 0 else f"{idle_s:g}s",
        "OLLAMA_NO_CLOUD": "1",  # else a name that ends in `:cloud` would leave the machine
    }
    if config.models_folder is not None:
        env["OLLAMA_MODELS"] = str(Path(config.models_folder).expanduser())
    return {**env, **gpu_environment(devices), **config.env, "OLLAMA_HOST": f"127.0.0.1:{port}"}


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why it exited with this code, in one sentence: Explain of backends/engine.py."""
    return why(code, tail, _MEANINGS, _SERVING, has_served=has_served)


def _engine(name: str, config: OllamaConfig, _: Surroundings) -> Ollama:
    return Ollama(name, config)


KIND: Final = EngineKind(OllamaConfig, _engine, OllamaPreflight, USUAL)
