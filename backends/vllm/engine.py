"""vLLM: its OpenAI server in a process group of its own, started in vLLM's own environment.

Its command line is made in backends/vllm/argv.py; why it failed is read in backends/vllm/failures.py.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from backends.endpoint import Endpoint, UsageMode
from backends.engine import Adapters, Fetcher, Launch, Probe, Sleeper
from backends.engine_kind import EngineKind, Surroundings
from backends.errors import BackendError, EngineFailed, NotReady, Refused
from backends.http.openai_models import model_ids
from backends.http.probe_client import ProbeClient
from backends.huggingface.fetcher import HubFetcher, environment_settings, is_repository, secrets_in
from backends.model_files.sources import Sources
from backends.process import compile_cache
from backends.process.process import inherited
from backends.vllm.argv import argv, environment, first_port, lora_rank
from backends.vllm.config import VllmConfig
from backends.vllm.facts import of_vllm, quantization_in
from backends.vllm.failures import explain
from backends.vllm.lora.adapters import AdapterFiles, LoraAdapters, error_text
from backends.vllm.memory import reported
from backends.vllm.metrics import figures
from backends.vllm.model_folder import adapter_rank, config_of, not_a_model, sources
from backends.vllm.preflight import USUAL, VllmPreflight

PROBE_S: Final = 10.0
WARM_UP_S: Final = 600.0  # its first request compiles kernels: 16 s for the smallest model on a small machine
SLEEP_S: Final = 300.0  # level 1 copies all weights into the host's memory
CORE_DIED: Final = "its core process died"
# For seconds after one of these has ended its server still responds, but with errors only.
_VITAL: Final = {"VLLM::EngineCore": CORE_DIED, "VLLM::Worker": "one of its worker processes died"}

_FIRST_WORK: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "generate": ("/v1/completions", {"prompt": [1], "max_tokens": 1}),
    "embed": ("/v1/embeddings", {"input": [1]}),
    "classify": ("/classify", {"input": "a"}),
}


class CannotStart(NotReady):
    """The backend as it is configured cannot be started on this machine, so it is not tried."""

    is_final = True


class WrongTask(EngineFailed):
    """Its model cannot do the configured `task`."""

    is_final = True


class Vllm:
    """Fulfils Engine for one vLLM server. `drain_s`: how many seconds it goes on with running requests after TERM.

    `pins`: the folder that remembers the commits of its models from the hub; without it vLLM downloads them itself.
    `caches`: the folder that keeps its compiled kernels; without it, it compiles them anew at every start.
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
        self._client = ProbeClient(name)
        self._known: tuple[int, str | None, str | None] | None = None  # generation, version, quantization
        self._has_logprobs: int | None = None  # the generation that has compiled its code for `logprobs`
        self._hub = HubFetcher(pins, config.env, self._from_hub) if pins is not None else None
        self.fetcher: Fetcher | None = self._hub
        self._lora_rank: int | None = None  # the highest that the latest start takes
        files = AdapterFiles(self._adapter_folder, self._base_folder, lambda: self._lora_rank)
        lora = LoraAdapters(name, self._client, files, config)
        self.adapters: Adapters | None = lora if config.takes_adapters else None
        self.sleeper: Sleeper | None = DevSleeper(name, self._client) if config.sleep is not None else None

    def __repr__(self) -> str:
        return f"<Vllm {self.name} {self._config.model}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        """The server's process. CannotStart when its command or its model's folder is not there."""
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
            lora_ranks=_ranks(map(self._adapter_folder, self._config.adapter_paths().values())),
            commit=commit,
        )
        self._lora_rank = lora_rank(line)
        program = shutil.which(line[0], path=env.get("PATH", os.defpath))
        if program is None:
            raise CannotStart(
                self.name,
                f"the command '{line[0]}' is not there: install vLLM in an environment of its own and set `command` to "
                "that environment's bin/vllm",
            )
        if self._caches is not None:
            # After the others: PyTorch sets one again, and a process whose first variable is set again loses its title.
            cache_env = compile_cache.variables(self._caches, Path(program))
            env |= {name: value for name, value in cache_env.items() if name not in env}
        read = self._sources(line, is_local=is_local)
        return Launch(tuple(line), env, explain, secrets_in(self._config.env), _VITAL, reported, read)

    def _sources(self, line: Sequence[str], *, is_local: bool) -> Sources | None:
        config = self._config
        folder = Path(config.model).expanduser() if is_local else None
        if folder is None and self._hub is not None:
            folder = self._hub.folder(config.model, config.revision)
        try:
            return sources(folder, config.chat_template, line, config.args, environment_settings(config.env))
        except OSError:
            return None  # the engine will say what cannot be read

    def _from_hub(self) -> Mapping[str, str | None]:
        """The repositories of the hub that it needs, with their revisions: its model, and adapters that are not folders
        here.
        """
        if self._config.env.get("VLLM_USE_MODELSCOPE", "0").lower() in ("1", "true"):
            return {}
        model = self._config.model
        revisions: dict[str, str | None] = {}
        if not self._is_local() and is_repository(model):
            revisions[model] = self._config.revision
        for path in self._config.adapter_paths().values():
            if "/" in path and is_repository(path) and not Path(path).exists():
                revisions.setdefault(path, None)
        return revisions

    def _adapter_folder(self, path: str) -> str | None:
        """The adapter's folder as an absolute path, here or in the hub's cache; None when there is no adapter in it."""
        folder = Path(path).expanduser().resolve()
        if not folder.exists() and self._hub is not None and is_repository(path):
            folder = self._hub.folder(path, None) or folder
        return str(folder) if (folder / "adapter_config.json").exists() else None

    def _base_folder(self) -> Path | None:
        """The model's folder, here or in the hub's cache; None where neither has it. Blocks shortly."""
        model = self._config.model
        folder: Path | str | None = Path(model).expanduser()
        if not Path(model).expanduser().is_dir():
            on_hub = self._hub is not None and is_repository(model)
            folder = self._hub.folder(model, self._config.revision) if self._hub is not None and on_hub else None
        return Path(folder) if folder is not None else None

    def _is_local(self) -> bool:
        """Whether the model is a folder here. CannotStart when its name can only be a path and nothing is there."""
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
        names = (self._config.model, shutil.which(word, path=path) or word, self._config.chat_template)
        return [Path(name).expanduser() for name in names if name and "\n" not in name]

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """On this machine, with the key of that start."""
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
        """Up when its health check succeeds and it is the server that we started. See Probe for what comes with it."""
        if self._config.node_rank > 0:
            return Probe(True, models=())  # it computes for machine 0 and has no HTTP server
        root = endpoint.address.removesuffix("/v1")
        try:
            health = await self._client.ask(f"{root}/health", timeout_s=PROBE_S)
            if health.status != 200:
                has_died = health.status == 503
                reason = CORE_DIED if has_died else f"its health check ends with status {health.status}"
                return Probe(False, reason, is_dead=has_died)
            listed = await self._client.ask(f"{root}/v1/models", endpoint.headers, timeout_s=PROBE_S)
            page = await self._client.ask(f"{root}/metrics", endpoint.headers, timeout_s=PROBE_S)
            if self._known is None or self._known[0] != endpoint.generation:
                reply = await self._client.ask(f"{root}/version", endpoint.headers, timeout_s=PROBE_S)
                body = reply.json()
                version = str(body["version"]) if isinstance(body, dict) and "version" in body else None
                self._known = (endpoint.generation, version, await asyncio.to_thread(self._quantization))
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, Refused))
        if listed.status in (401, 403):
            return Probe(False, "another program answers on its port")
        work = figures(page.body) if page.status == 200 else None
        return Probe(
            True,
            models=model_ids(listed.json()),
            in_flight=work.in_flight if work is not None else None,
            progress=work.progress if work is not None else None,
            facts=of_vllm(self._config, listed.json(), self._known[2], self._known[1]),
            version=self._known[1],
            metrics=f"{root}/metrics",
        )

    def _quantization(self) -> str | None:
        """How the weights of a model in a folder here are quantized."""
        return quantization_in(config_of(self._config.model))

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Ask for one token, one embedding or one class: `/health` alone does not prove that it works.

        Also for one `logprobs`, unless `warm_up_logprobs` is off. EngineFailed when one of them fails; WrongTask when
        the model cannot do the configured task.
        """
        if self._config.node_rank > 0:
            return
        path, body = _FIRST_WORK[self._config.task]
        url = f"{endpoint.address.removesuffix('/v1')}{path}"
        request = {"model": self.name, **body}
        try:
            reply = await self._client.ask(url, endpoint.headers, timeout_s=WARM_UP_S, body=request)
        except BackendError as exc:
            message = f"it is healthy, but its first request got no response: {exc.message}"
            raise EngineFailed(self.name, message) from exc
        if reply.status == 404 and self._config.task == "generate":
            raise WrongTask(self.name, "the model generates no text: set `task` to embed or classify")
        if reply.status != 200:
            # Its log says more than "EngineCore encountered an issue".
            cause = "" if b"EngineCore encountered" in reply.body else f": {error_text(reply)}"
            raise EngineFailed(self.name, f"it is healthy, but its first request failed{cause}")
        if self._config.warm_up_logprobs and self._config.task == "generate":
            await self._warm_up_logprobs(endpoint)

    async def _warm_up_logprobs(self, endpoint: Endpoint) -> None:
        """Ask each of its cores for `logprobs` once, before it serves: the first such request compiles, and all others
        stand still meanwhile. That it refuses them (`--max-logprobs 0`) is not a failure.
        """
        if self._has_logprobs == endpoint.generation:
            return
        url = f"{endpoint.address}/completions"
        body = {"model": self.name, "prompt": [1], "max_tokens": 1, "logprobs": 1}
        copies = self._config.data_parallel_size
        for rank in range(copies):
            headers = endpoint.headers if copies == 1 else {**endpoint.headers, "x-data-parallel-rank": str(rank)}
            try:
                reply = await self._client.ask(url, headers, timeout_s=WARM_UP_S, body=body)
            except BackendError as exc:
                message = f"it serves, but its first request with `logprobs` got no response: {exc.message}"
                raise EngineFailed(self.name, message) from exc
            if reply.status >= 500:
                raise EngineFailed(self.name, "it serves, but its first request with `logprobs` failed")
        self._has_logprobs = endpoint.generation


class DevSleeper:
    """Fulfils Sleeper through vLLM's development routes, which it has only when it was started with a `sleep` level."""

    def __init__(self, name: str, client: ProbeClient) -> None:
        self._name = name
        self._client = client

    async def sleep(self, endpoint: Endpoint, level: int) -> None:
        """Free its memory; returns when it is free. EngineFailed when that fails."""
        await self._post(endpoint, f"/sleep?level={level}")

    async def wake_up(self, endpoint: Endpoint) -> None:
        """Take the memory again; returns when the weights are back. EngineFailed when that fails."""
        await self._post(endpoint, "/wake_up")

    async def _post(self, endpoint: Endpoint, path: str) -> None:
        reply = await self._client.ask(_root(endpoint, path), endpoint.headers, timeout_s=SLEEP_S, body={})
        if reply.status != 200:
            raise EngineFailed(self._name, f"{path.strip('/').partition('?')[0]} failed: {error_text(reply)}")


def _root(endpoint: Endpoint, path: str) -> str:
    return f"{endpoint.address.removesuffix('/v1')}{path}"


def _ranks(folders: Iterable[str | None]) -> Iterator[int]:
    """The ranks of the adapters in these folders; where one has none, loading it will say what is wrong."""
    for folder in folders:
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


KIND: Final = EngineKind(VllmConfig, _engine, VllmPreflight, USUAL)
