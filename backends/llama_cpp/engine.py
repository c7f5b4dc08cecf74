"""The embedded engine: llama.cpp's HTTP server (xllamacpp) in a child process, one GGUF file.

It accepts any model name, so names are checked before it is asked; only its key tells one start from another.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from backends.endpoint import Endpoint, ModelFacts, UsageMode
from backends.engine import Launch, Probe
from backends.engine_kind import EngineKind, Surroundings
from backends.errors import BackendError, EngineFailed, Refused, TimedOut
from backends.http.openai_models import model_ids
from backends.http.probe_client import ProbeClient
from backends.llama_cpp.child import KEY_VARIABLE
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.facts import of_llama_cpp
from backends.llama_cpp.gguf import BadModel, inputs, model_file
from backends.llama_cpp.gguf_header import Unreadable, longest_token
from backends.llama_cpp.preflight import LlamaCppPreflight
from backends.process.exit_reasons import why
from backends.process.process import inherited

PROBE_S: Final = 10.0  # it answers /health while all its slots compute; longer means that it is stuck
COUNT_S: Final = 2.0  # its counters: there at once while it decodes, and only later while a grammar is worked out
MUTE_S: Final = 10.0  # for one that did not give them: each of its tokens may take some seconds
WARM_UP_S: Final = 120.0  # one token of a large model on a slow disk
HTTP_THREADS: Final = 128  # each open connection takes one, also those that wait for a slot
PROMPT_CACHE_MIB: Final = 512  # the build's default of 8 GiB is more than small machines have

_FIRST_WORK: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "generate": ("completions", {"prompt": "a", "max_tokens": 1}),
    "embed": ("embeddings", {"input": "a"}),
    "rerank": ("rerank", {"query": "a", "documents": ["a"]}),
}

# Messages that are found again in what a template makes of them, each behind a mark of the template's own (`<|user|>`).
_MARKS: Final = ("mpa1", "mpb2", "mpc3", "mpd4", "mpe5")
_MARKUP: Final = re.compile(r"<[^<>]{1,60}>|\[/?INST\]")

# What llama.cpp prints, and what it means; the first that matches is the sentence.
_SERVING: Final = (
    (
        r"(?i)bad_alloc|out of memory|failed to allocate|unable to allocate|cannot allocate|failed to create.context",
        "the memory is not enough for the model and its context",
    ),
)
_PASSING: Final = (
    (r"(?i)couldn't bind|address already in use|bind.*failed", "its port is taken by another program"),
    *_SERVING,
)
_MEANINGS: Final = (
    *_PASSING,
    (
        r"(?i)unknown model architecture: '?([\w.-]+)",
        "this build of llama.cpp does not know the architecture of the model",
    ),
    (
        r"(?i)error loading model|failed to load model|invalid magic|gguf_init",
        "the model file is broken or cannot be read",
    ),
    (r"(?i)No module named '?xllamacpp", "the package xllamacpp is not installed"),
    (r"(?i)libgomp\.so", "the system library libgomp1 is not installed"),
)


_REQUESTS: Final = (b"requests_processing", b"requests_deferred")
_MOVING: Final = (b"n_decode_total", b"prompt_tokens_total", b"tokens_predicted_total")
_COUNTER: Final = re.compile(rb"^llamacpp:(\w+) ([0-9.eE+-]*[0-9])$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Work:
    """What one start has done, as it told last. Its decodes move with every token, and every 512 tokens of a prompt."""

    generation: int
    progress: tuple[float, ...] | None = None
    in_flight: int | None = None
    is_mute: bool = False


class LlamaCpp:
    """Describes one embedded engine and asks it how it is."""

    is_strict = False  # it takes any name
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: LlamaCppConfig) -> None:
        self.name = name
        self._config = config
        self._control = ProbeClient(name)
        self._facts: tuple[int, ModelFacts] | None = None  # of the start of that generation
        self._work = _Work(0)

    def __repr__(self) -> str:
        return f"<LlamaCpp {self.name} {self._config.model}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        """The child process; BadModel when there is nothing that it could load."""
        model = model_file(self.name, self._config.model)
        env = inherited(os.environ)
        # libgomp's default waiting costs half the speed on a machine that does anything else (docs/decisions.md).
        env |= {"GOMP_SPINCOUNT": "1000", **self._config.env, KEY_VARIABLE: key}
        if devices:
            env |= {"CUDA_VISIBLE_DEVICES": ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        threads = self._config.threads or usable_cores()
        return Launch(tuple(argv(self._config, self.name, model, port, threads)), env, explain)

    def inputs(self) -> Sequence[Path]:
        """Its model."""
        return inputs(self.name, self._config.model)

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """On this machine, for that start's key only."""
        return Endpoint(
            self.name,
            generation,
            f"http://127.0.0.1:{port}/v1",
            {"authorization": f"Bearer {key}"},
            self._config.timeouts.values(),
            is_ours=True,
            usage=UsageMode.TIMINGS,
            gathers=True,
            once=True,
        )

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when it answers that it is healthy, and is the one we started."""
        root = endpoint.address.removesuffix("/v1")
        try:
            health = await self._control.ask(f"{root}/health", timeout_s=PROBE_S)
            if health.status != 200:
                return Probe(False, "it is loading the model" if health.status == 503 else f"status {health.status}")
            listed = await self._control.ask(f"{root}/v1/models", endpoint.headers, timeout_s=PROBE_S)
            if listed.status in (401, 403):
                return Probe(False, "another program answers on its port")
            await self._look(root, endpoint)
        except BackendError as exc:
            return Probe(False, exc.message, is_dead=isinstance(exc, Refused))
        facts = {"": self._facts[1]} if self._facts is not None else {}
        work = self._work = await self._count(root, endpoint)
        return Probe(
            True,
            models=model_ids(listed.json()),
            in_flight=work.in_flight,
            progress=work.progress,
            is_mute=work.is_mute,
            facts=facts,
            version=_version(),
        )

    async def _look(self, root: str, endpoint: Endpoint) -> None:
        """What it says of its model, once for each start."""
        if self._facts is not None and self._facts[0] == endpoint.generation:
            return
        props = await self._control.ask(f"{root}/props", endpoint.headers, timeout_s=PROBE_S)
        found = of_llama_cpp(props.json(), embeds=self._config.task == "embed") if props.status == 200 else None
        if found is not None and self._config.task == "generate":
            found = msgspec.structs.replace(found, keeps_messages=await self._keeps_messages(root, endpoint))
        if found is not None:
            found = msgspec.structs.replace(found, token_bytes=await asyncio.to_thread(self._token_bytes))
        self._facts = (endpoint.generation, found) if found is not None else None

    async def _keeps_messages(self, root: str, endpoint: Endpoint) -> bool:
        """Whether its template writes out every message, as a conversation of marked ones tells."""
        roles = ("user", "assistant") * 3
        talk = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=False)]
        body = {"messages": talk}
        reply = await self._control.ask(f"{root}/apply-template", endpoint.headers, timeout_s=PROBE_S, body=body)
        told = reply.json()
        prompt = told.get("prompt") if isinstance(told, dict) and reply.status == 200 else None
        return isinstance(prompt, str) and keeps(prompt)

    def _token_bytes(self) -> int | None:
        try:
            return longest_token(model_file(self.name, self._config.model))
        except (Unreadable, OSError, BadModel):
            return None

    async def _count(self, root: str, endpoint: Endpoint) -> _Work:
        """Its counters; while it gives none, those that it gave last."""
        before = self._work if self._work.generation == endpoint.generation else _Work(endpoint.generation)
        timeout_s = MUTE_S if before.is_mute else COUNT_S
        try:
            reply = await self._control.ask(f"{root}/metrics", endpoint.headers, timeout_s=timeout_s)
        except BackendError as exc:
            return replace(before, in_flight=None, is_mute=isinstance(exc, TimedOut))
        return counted(endpoint.generation, reply.body)

    async def warm_up(self, endpoint: Endpoint) -> None:
        """One token, one embedding, or one text ranked."""
        path, body = _FIRST_WORK[self._config.task]
        url = f"{endpoint.address}/{path}"
        reply = await self._control.ask(url, endpoint.headers, timeout_s=WARM_UP_S, body={"model": self.name, **body})
        if reply.status != 200:
            raise EngineFailed(self.name, f"its first {path} request ended with status {reply.status}")


def keeps(prompt: str) -> bool:
    """Whether every marked message is there in its order, with a mark of the template's own before it."""
    before = 0
    for mark in _MARKS:
        at = prompt.find(mark, before)
        if at < 0 or _MARKUP.search(prompt[before:at]) is None:
            return False
        before = at + len(mark)
    return True


def counted(generation: int, page: bytes) -> _Work:
    """What its page of metrics says of its work."""
    found = {name: float(value) for name, value in _COUNTER.findall(page)}
    requests = [found[name] for name in _REQUESTS if name in found]
    moved = tuple(found[name] for name in _MOVING if name in found)
    return _Work(generation, moved or None, int(sum(requests)) if requests else None)


def argv(config: LlamaCppConfig, name: str, model: Path, port: int, threads: int) -> list[str]:
    """The child's argument list. The context given is per slot, the engine's is over all of them."""
    child = Path(__file__).with_name("child.py")
    options: dict[str, object] = {
        "model": model,
        "alias": name,
        "port": port,
        "slots": config.slots,
        "threads": threads,
        "http-threads": HTTP_THREADS,
        "context": (config.context_length or 0) * config.slots,
        "gpu-layers": config.gpu_layers,
        "cache-mib": PROMPT_CACHE_MIB,
    }
    line = [sys.executable, "-I", str(child), *(f"--{option}={value}" for option, value in options.items())]
    return line if config.task == "generate" else [*line, f"--{config.task}"]


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why it exited, in one sentence."""
    return why(code, tail, _MEANINGS, _SERVING, has_served=has_served, passing=_PASSING)


@functools.cache
def _version() -> str | None:
    """Of the package that it comes in; its own build number says nothing there."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """The cores this process may use: its affinity, and its control group's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups, or "max"
        return cores


def _engine(name: str, config: LlamaCppConfig, _: Surroundings) -> LlamaCpp:
    return LlamaCpp(name, config)


KIND: Final = EngineKind(LlamaCppConfig, _engine, LlamaCppPreflight)
