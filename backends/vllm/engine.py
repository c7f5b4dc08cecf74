"""vLLM: its OpenAI server in a process group of its own, started in vLLM's own environment.

What it is called with is in backends/vllm/argv.py, why it failed in backends/vllm/failures.py.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from backends.endpoint import Endpoint, UsageMode
from backends.engine import Adapters, Fetcher, Launch, Probe, Sleeper
from backends.engine_kind import EngineKind, Surroundings
from backends.errors import BackendError, EngineFailed, NotReady, Refused
from backends.http.openai_models import model_ids
from backends.http.probe_client import ProbeClient, Reply
from backends.huggingface.fetcher import HubFetcher, is_repository, secrets_in
from backends.process import compile_cache
from backends.process.process import inherited
from backends.vllm.argv import argv, environment, first_port
from backends.vllm.config import VllmConfig
from backends.vllm.facts import of_vllm, quantization_in
from backends.vllm.failures import explain
from backends.vllm.memory import reported
from backends.vllm.metrics import figures
from backends.vllm.model_folder import adapter_rank, config_of, not_a_model
from backends.vllm.preflight import VllmPreflight

PROBE_S: Final = 10.0
WARM_UP_S: Final = 600.0  # its first request compiles kernels: 16 s for the smallest model on a small machine
SLEEP_S: Final = 300.0  # level 1 copies all weights into the host's memory
ADAPTER_S: Final = 120.0
CORE_DIED: Final = "its core process died"
# Its server answers on for seconds after one of these has ended, and with errors only.
_VITAL: Final = {"VLLM::EngineCore": CORE_DIED, "VLLM::Worker": "one of its worker processes died"}

_FIRST_WORK: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "generate": ("/v1/completions", {"prompt": [1], "max_tokens": 1}),
    "embed": ("/v1/embeddings", {"input": [1]}),
    "classify": ("/classify", {"input": "a"}),
}


class CannotStart(NotReady):
    """The configuration cannot be started on this machine, whatever vLLM would say."""

    is_final = True


class WrongTask(EngineFailed):
    """It was asked for what its model cannot do."""

    is_final = True


class Vllm:
    """Describes one vLLM server and asks it how it is. `drain_s`: how long it answers on after TERM.

    `pins`: where is remembered which commits its models from the hub are; without it vLLM fetches them itself.
    `caches`: where is kept what it compiles; without it, it does so anew after every start.
    """

    is_strict = True

    def __init__(
        self,
        name: str,
        config: VllmConfig,
        drain_s: float = 30.0,
        pins: Path | None = None,
        caches: Path | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._drain_s = drain_s
        self._caches = caches
        self._control = ProbeClient(name)
        self._known: tuple[int, str | None, str | None] | None = None  # generation, version, quantization
        self._counted: int | None = None  # the generation that has compiled what `logprobs` takes
        self._hub = HubFetcher(pins, config.env, self._from_hub) if pins is not None else None
        self.fetcher: Fetcher | None = self._hub
        lora = LoraAdapters(name, self._control, self._adapter_folder)
        self.adapters: Adapters | None = lora if config.takes_adapters else None
        self.sleeper: Sleeper | None = DevSleeper(name, self._control) if config.sleep is not None else None

    def __repr__(self) -> str:
        return f"<Vllm {self.name} {self._config.model}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        """The server's process; CannotStart when its command or its model's folder is not there."""
        is_local = self._is_local()
        commit = None
        if not is_local and self._hub is not None:
            commit = self._hub.commit(self._config.model, self._config.revision)
        env = environment(
            self._config,
            inherited(os.environ),
            key=key,
            first_port=first_port(self.name, _is_free),
            devices=devices,
            is_local=is_local or commit is not None,
        )
        line = argv(
            self._config,
            self.name,
            port,
            drain_s=self._drain_s,
            has_gpus=bool(devices),
            lora_ranks=_ranks(map(self._adapter_folder, self._config.adapters.values())),
            commit=commit,
        )
        program = shutil.which(line[0], path=env.get("PATH", os.defpath))
        if program is None:
            raise CannotStart(
                self.name,
                f"the command '{line[0]}' is not there: install vLLM in an environment of its own and set `command` to "
                "that environment's bin/vllm",
            )
        if self._caches is not None:
            # Behind the others: PyTorch sets one again, and a process whose first variable was set anew has no title.
            kept = compile_cache.variables(self._caches, Path(program))
            env |= {name: value for name, value in kept.items() if name not in env}
        return Launch(tuple(line), env, explain, secrets_in(self._config.env), _VITAL, reported)

    def _from_hub(self) -> Mapping[str, str | None]:
        """What of the hub it needs, with the revision: the model, and adapters that are no folders."""
        if self._config.env.get("VLLM_USE_MODELSCOPE", "0").lower() in ("1", "true"):
            return {}
        model = self._config.model
        found: dict[str, str | None] = {}
        if not self._is_local() and is_repository(model):
            found[model] = self._config.revision
        for path in self._config.adapters.values():
            if "/" in path and is_repository(path) and not Path(path).exists():
                found.setdefault(path, None)
        return found

    def _adapter_folder(self, path: str) -> str | None:
        """The adapter's folder by its whole name, here or in the hub's cache; None when there is no adapter in it."""
        folder = Path(path).expanduser().resolve()
        if not folder.exists() and self._hub is not None and is_repository(path):
            folder = self._hub.folder(path, None) or folder
        return str(folder) if (folder / "adapter_config.json").exists() else None

    def _is_local(self) -> bool:
        """Whether the model is a folder here, as far as its name tells."""
        model = self._config.model
        path = Path(model).expanduser()
        if not (path.is_absolute() or model.startswith((".", "~")) or path.exists()):
            return False
        if not path.exists():
            raise CannotStart(self.name, f"the model's folder {path.name!r} is not there: check `model`")
        if path.is_dir() and not any((path / each).exists() for each in ("config.json", "params.json")):
            raise CannotStart(self.name, f"the folder {path.name!r} {not_a_model(path)}")
        return True

    def inputs(self) -> Sequence[Path]:
        """Its model, its program and its chat template, where they are files here."""
        path = {**inherited(os.environ), **self._config.env}.get("PATH", os.defpath)
        word = self._config.command[0]
        named = (self._config.model, shutil.which(word, path=path) or word, self._config.chat_template)
        return [Path(name).expanduser() for name in named if name and "\n" not in name]

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """On this machine, for that start's key only."""
        return Endpoint(
            self.name,
            generation,
            f"http://127.0.0.1:{port}/v1",
            {"authorization": f"Bearer {key}"},
            self._config.timeouts.values(),
            is_ours=True,
            usage=UsageMode.ASK,
        )

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when it answers that it is healthy, and is the one we started."""
        if self._config.node_rank > 0:
            return Probe(True, models=())  # it computes for machine 0, and answers nobody
        root = endpoint.address.removesuffix("/v1")
        try:
            health = await self._control.ask(f"{root}/health", timeout_s=PROBE_S)
            if health.status != 200:
                died = health.status == 503
                told = CORE_DIED if died else f"its health has status {health.status}"
                return Probe(False, told, is_dead=died)
            listed = await self._control.ask(f"{root}/v1/models", endpoint.headers, timeout_s=PROBE_S)
            page = await self._control.ask(f"{root}/metrics", endpoint.headers, timeout_s=PROBE_S)
            if self._known is None or self._known[0] != endpoint.generation:
                told = (await self._control.ask(f"{root}/version", endpoint.headers, timeout_s=PROBE_S)).json()
                version = str(told["version"]) if isinstance(told, dict) and "version" in told else None
                self._known = (endpoint.generation, version, await asyncio.to_thread(self._quantization))
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, Refused))
        if listed.status in (401, 403):
            return Probe(False, "another program answers on its port")
        seen = figures(page.body) if page.status == 200 else None
        return Probe(
            True,
            models=model_ids(listed.json()),
            in_flight=seen.in_flight if seen is not None else None,
            progress=seen.progress if seen is not None else None,
            facts=of_vllm(self._config, listed.json(), self._known[2]),
            version=self._known[1],
        )

    def _quantization(self) -> str | None:
        """How a model in a folder here says that its weights are packed."""
        return quantization_in(config_of(self._config.model))

    async def warm_up(self, endpoint: Endpoint) -> None:
        """One token, one embedding or one class: `/health` alone is no proof that it works."""
        if self._config.node_rank > 0:
            return
        path, body = _FIRST_WORK[self._config.task]
        url = f"{endpoint.address.removesuffix('/v1')}{path}"
        asked = {"model": self.name, **body}
        try:
            reply = await self._control.ask(url, endpoint.headers, timeout_s=WARM_UP_S, body=asked)
        except BackendError as exc:
            told = f"it is healthy, but its first request got no answer: {exc.message}"
            raise EngineFailed(self.name, told) from exc
        if reply.status == 404 and self._config.task == "generate":
            raise WrongTask(self.name, "the model generates no text: set `task` to embed or classify")
        if reply.status != 200:
            told = "" if b"EngineCore encountered" in reply.body else f": {_told(reply)}"  # its log says which issue
            raise EngineFailed(self.name, f"it is healthy, but its first request failed{told}")
        if self._config.warm_up_logprobs and self._config.task == "generate":
            await self._count_ranks(endpoint)

    async def _count_ranks(self, endpoint: Endpoint) -> None:
        """Its first request with `logprobs` compiles, and all others stand still meanwhile: once, in each of its cores,
        before it serves. A refusal (`--max-logprobs 0`) is no failure.
        """
        if self._counted == endpoint.generation:
            return
        url = f"{endpoint.address}/completions"
        body = {"model": self.name, "prompt": [1], "max_tokens": 1, "logprobs": 1}
        copies = self._config.data_parallel_size
        for rank in range(copies):
            headers = endpoint.headers if copies == 1 else {**endpoint.headers, "x-data-parallel-rank": str(rank)}
            try:
                reply = await self._control.ask(url, headers, timeout_s=WARM_UP_S, body=body)
            except BackendError as exc:
                told = f"it serves, but its first request with `logprobs` got no answer: {exc.message}"
                raise EngineFailed(self.name, told) from exc
            if reply.status >= 500:
                raise EngineFailed(self.name, "it serves, but its first request with `logprobs` failed")
        self._counted = endpoint.generation


class DevSleeper:
    """Sleep over vLLM's development routes, which it has only when it was started for that."""

    def __init__(self, name: str, control: ProbeClient) -> None:
        self._name = name
        self._control = control

    async def sleep(self, endpoint: Endpoint, level: int) -> None:
        """Free the memory; returns when it is free."""
        await self._do(endpoint, f"/sleep?level={level}")

    async def wake_up(self, endpoint: Endpoint) -> None:
        """Take the memory again; returns when the weights are there."""
        await self._do(endpoint, "/wake_up")

    async def _do(self, endpoint: Endpoint, path: str) -> None:
        reply = await self._control.ask(_root(endpoint, path), endpoint.headers, timeout_s=SLEEP_S, body={})
        if reply.status != 200:
            raise EngineFailed(self._name, f"{path.strip('/').partition('?')[0]} failed: {_told(reply)}")


class LoraAdapters:
    """LoRA adapters over vLLM's routes for them."""

    def __init__(self, name: str, control: ProbeClient, folder: Callable[[str], str | None]) -> None:
        self._name = name
        self._control = control
        self._folder = folder

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        """Serve the adapter in this folder under that name, in place of what had the name before."""
        folder = await asyncio.to_thread(self._folder, path)
        if folder is None:
            # vLLM would go on trying to load it with every adapter after it.
            raise EngineFailed(self._name, f"the adapter {name!r} has no adapter_config.json in its folder")
        body = {"lora_name": name, "lora_path": folder, "load_inplace": name in await self.listed(endpoint)}
        reply = await self._ask(endpoint, "load_lora_adapter", body)
        if reply.status != 200:
            raise EngineFailed(self._name, f"the adapter {name!r} was not loaded: {_told(reply)}")

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        """Forget it; nothing when it is not loaded."""
        reply = await self._ask(endpoint, "unload_lora_adapter", {"lora_name": name})
        if reply.status not in (200, 404):
            raise EngineFailed(self._name, f"the adapter {name!r} was not unloaded: {_told(reply)}")

    async def listed(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Those whose parent is a model."""
        reply = await self._control.ask(f"{endpoint.address}/models", endpoint.headers, timeout_s=PROBE_S)
        try:
            return tuple(str(each["id"]) for each in reply.json()["data"] if each.get("parent"))
        except (KeyError, TypeError, AttributeError) as exc:
            raise EngineFailed(self._name, f"it does not list its models: {_told(reply)}") from exc

    async def _ask(self, endpoint: Endpoint, route: str, body: object) -> Reply:
        url = f"{endpoint.address}/{route}"
        return await self._control.ask(url, endpoint.headers, timeout_s=ADAPTER_S, body=body)


def _root(endpoint: Endpoint, path: str) -> str:
    return f"{endpoint.address.removesuffix('/v1')}{path}"


def _told(reply: Reply) -> str:
    """Its own words for a failure, short, and the status."""
    told: Any = reply.json()
    error = told.get("error") if isinstance(told, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    status = f"status {reply.status}"
    return f"{' '.join(str(message).split())[:200]} ({status})" if message else status


def _ranks(folders: Iterable[str | None]) -> Iterator[int]:
    """The ranks of the adapters in these folders, where they tell."""
    for folder in folders:
        # Of the others loading will say what is wrong.
        if folder is not None and (rank := adapter_rank(Path(folder))) is not None:
            yield rank


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _engine(name: str, config: VllmConfig, surroundings: Surroundings) -> Vllm:
    return Vllm(name, config, surroundings.drain_s, surroundings.pins, surroundings.caches)


KIND: Final = EngineKind(VllmConfig, _engine, VllmPreflight)
