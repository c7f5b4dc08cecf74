"""An Ollama daemon, somebody else's or ours, asked through its own API (docs/ollama.md).

It refuses a browser's Origin and foreign Host names with an empty 403, so neither is ever sent on.
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
from backends.ollama.preflight import OllamaPreflight
from backends.process.exit_reasons import why
from backends.process.process import inherited

PROBE_S: Final = 10.0  # all questions are answered from memory, also while a model loads
SHOWN_AT_ONCE: Final = 4

# What the daemon prints when it does not start, or ends, and what it means.
_SERVING: Final = ((r"(?i)no space left on device", "the disk is full"),)
_MEANINGS: Final = (
    (r"(?i)address already in use", "its port is taken by another program"),
    (r"(?i)permission denied", "it may not read or write its folder of models"),
    *_SERVING,
)


class Ollama:
    """Describes one daemon and asks it how it is."""

    is_strict = True
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: OllamaConfig) -> None:
        self.name = name
        self._config = config
        self._control = ProbeClient(name)
        self._facts: dict[tuple[str, str], ModelFacts] = {}  # by name and digest: a pulled model is looked at anew
        self._weights: dict[tuple[str, str], str | None] = {}  # the digests of their weights

    def __repr__(self) -> str:
        return f"<Ollama {self.name} {'managed' if self._config.managed else self._config.url}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch | None:
        """`ollama serve` on loopback; nothing when somebody else runs it."""
        if not self._config.managed:
            return None
        env = environment(self._config, port, devices, inherited(os.environ))
        return Launch((*self._config.command, "serve"), env, explain)

    def inputs(self) -> Sequence[Path]:
        """The program of a managed daemon."""
        word = self._config.command[0]
        return [Path(shutil.which(word) or word)] if self._config.managed else []

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """Its own API; it knows no keys."""
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
        """Up when it tells its version; its models by their full names, and what is known of each."""
        root = endpoint.address
        try:
            version = await self._control.ask(f"{root}/api/version", timeout_s=PROBE_S)
            if version.status == 403:
                return Probe(False, "it refuses the host name we call it by (see OLLAMA_HOST); use its IP address")
            said = version.json()
            if version.status != 200 or not isinstance(said, dict):
                return Probe(False, "what answers there is not an Ollama daemon")
            number = str(said.get("version", ""))
            told = warning(number)
            listed = await self._control.ask(f"{root}/api/tags", timeout_s=PROBE_S)
            names = tags(listed.json()) if listed.status == 200 else None
            if names is None:
                return Probe(True, warning=told, version=number)
            running = await self._control.ask(f"{root}/api/ps", timeout_s=PROBE_S)
            await self._look_at(root, names)
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, Refused))
        in_memory = loaded(running.json() if running.status == 200 else None)
        return Probe(True, models=tuple(names), facts=self._known(names, in_memory), warning=told, version=number)

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Nothing: which model to load is the daemon's affair."""

    async def _look_at(self, root: str, names: Mapping[str, Tag]) -> None:
        """Ask for what is not known of these models yet."""
        keys = [(name, tag.digest) for name, tag in names.items()]
        self._facts = {key: facts for key, facts in self._facts.items() if key in keys}
        self._weights = {key: digest for key, digest in self._weights.items() if key in keys}
        turns = asyncio.Semaphore(SHOWN_AT_ONCE)

        async def look(name: str, digest: str) -> None:
            try:
                async with turns:
                    reply = await self._control.ask(f"{root}/api/show", timeout_s=PROBE_S, body={"model": name})
            except BackendError:
                return  # the next probe asks again; the daemon is there all the same
            show = reply.json() if reply.status == 200 else None
            facts = shown(self._config, name, show)
            if facts is not None:
                self._facts[name, digest], self._weights[name, digest] = facts, weights(show)

        await asyncio.gather(*(look(*key) for key in keys if key not in self._facts))

    def _known(self, names: Mapping[str, Tag], in_memory: Mapping[str, LoadedModel]) -> dict[str, ModelFacts]:
        """Names with the same weights are one process of the daemon's: one is loaded when any of them is."""
        keys = {(name, tag.digest): tag for name, tag in names.items()}
        shared = {
            self._weights.get(key): in_memory[full_name(key[0])] for key in keys if full_name(key[0]) in in_memory
        }
        found: dict[str, ModelFacts] = {}
        for key, tag in keys.items():
            name, facts, digest = full_name(key[0]), self._facts.get(key), self._weights.get(key)
            if facts is not None:
                is_in = in_memory.get(name) or (shared.get(digest) if digest is not None else None)
                there = is_in or LoadedModel()
                found[name] = msgspec.structs.replace(
                    facts,
                    is_loaded=is_in is not None,
                    memory_bytes=there.memory_bytes,
                    expires_at=there.expires_at,
                    size_bytes=tag.size_bytes,
                )
        return found


def environment(config: OllamaConfig, port: int, devices: Sequence[str], base: Mapping[str, str]) -> dict[str, str]:
    """A managed daemon's, over what it inherits; what the configuration says comes last, but for the address."""
    idle_s = config.idle_s()
    env = {
        **base,
        "OLLAMA_NUM_PARALLEL": str(config.num_parallel),
        "OLLAMA_KEEP_ALIVE": "-1" if idle_s is None or idle_s < 0 else f"{idle_s:g}s",
        "OLLAMA_NO_CLOUD": "1",  # else a name that ends in `:cloud` would leave the machine
    }
    if config.models_folder is not None:
        env["OLLAMA_MODELS"] = str(Path(config.models_folder).expanduser())
    if devices:
        env |= {"CUDA_VISIBLE_DEVICES": ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {**env, **config.env, "OLLAMA_HOST": f"127.0.0.1:{port}"}


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why it exited, in one sentence."""
    return why(code, tail, _MEANINGS, _SERVING, has_served=has_served)


def _engine(name: str, config: OllamaConfig, _: Surroundings) -> Ollama:
    return Ollama(name, config)


KIND: Final = EngineKind(OllamaConfig, _engine, OllamaPreflight)
