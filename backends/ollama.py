"""An Ollama daemon, somebody else's or ours, asked through its own API (docs/ollama.md).

It refuses a browser's Origin and foreign Host names with an empty 403, so neither is ever sent on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from backends.base import Dialect, Endpoint, Launch, ModelFacts, Probe, Usage
from backends.control import Control
from backends.endings import why
from backends.errors import BackendError, Refused
from backends.ollama_config import OllamaConfig
from backends.ollama_facts import digests, loaded, shown, warning
from backends.ollama_names import full_name
from backends.process import inherited

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
        self._control = Control(name)
        self._facts: dict[tuple[str, str], ModelFacts] = {}  # by name and digest: a pulled model is looked at anew

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
            usage=Usage.ASK,
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
            tags = await self._control.ask(f"{root}/api/tags", timeout_s=PROBE_S)
            names = digests(tags.json()) if tags.status == 200 else None
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

    async def _look_at(self, root: str, names: Mapping[str, str]) -> None:
        """Ask for what is not known of these models yet."""
        self._facts = {key: facts for key, facts in self._facts.items() if names.get(key[0]) == key[1]}
        turns = asyncio.Semaphore(SHOWN_AT_ONCE)

        async def look(name: str, digest: str) -> None:
            try:
                async with turns:
                    reply = await self._control.ask(f"{root}/api/show", timeout_s=PROBE_S, body={"model": name})
            except BackendError:
                return  # the next probe asks again; the daemon is there all the same
            facts = shown(self._config, name, reply.json()) if reply.status == 200 else None
            if facts is not None:
                self._facts[name, digest] = facts

        unknown: Iterable[tuple[str, str]] = [item for item in names.items() if item not in self._facts]
        await asyncio.gather(*(look(name, digest) for name, digest in unknown))

    def _known(self, names: Mapping[str, str], in_memory: Mapping[str, int]) -> dict[str, ModelFacts]:
        found: dict[str, ModelFacts] = {}
        for item in names.items():
            name, facts = full_name(item[0]), self._facts.get(item)
            if facts is not None:
                size = in_memory.get(name)
                found[name] = msgspec.structs.replace(facts, is_loaded=size is not None, memory_bytes=size or 0)
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
