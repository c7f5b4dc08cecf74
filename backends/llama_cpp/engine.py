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
from backends.huggingface.fetcher import environment_settings
from backends.llama_cpp.child import KEY_VARIABLE
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.facts import of_llama_cpp
from backends.llama_cpp.gguf import BadModel, inputs, model_file, shards
from backends.llama_cpp.gguf_header import Unreadable, longest_token
from backends.llama_cpp.preflight import USUAL, LlamaCppPreflight
from backends.model_files.sources import Sources, given
from backends.process.cores import usable_cores
from backends.process.exit_reasons import why
from backends.process.process import free_port, gpu_environment, inherited

PROBE_S: Final = 10.0  # it answers /health while all its slots compute; longer means that it is stuck
COUNT_S: Final = 2.0  # for its counters: they come at once while it decodes, and later while it works out a grammar
MUTE_S: Final = 10.0  # the same for an engine that did not give them in time: each of its tokens may take seconds
WARM_UP_S: Final = 120.0  # one token of a large model on a slow disk
HTTP_THREADS: Final = 128  # each open connection takes one, also those that wait for a slot
PROMPT_CACHE_MIB: Final = 512  # the build's default of 8 GiB is more than small machines have

_FIRST_WORK: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "generate": ("completions", {"prompt": "a", "max_tokens": 1}),
    "embed": ("embeddings", {"input": "a"}),
    "rerank": ("rerank", {"query": "a", "documents": ["a"]}),
}

# Contents of messages that can be found again in the prompt that a template makes of them.
_CONTENTS: Final = ("mpa1", "mpb2", "mpc3", "mpd4", "mpe5")
_MARKUP: Final = re.compile(r"<[^<>]{1,60}>|\[/?INST\]")

# What llama.cpp prints, and what that means; the first pattern that matches gives the sentence.
_SERVING: Final = (
    (
        r"(?i)bad_alloc|out of memory|failed to allocate|unable to allocate|cannot allocate|failed to create.context",
        "the memory is not enough for the model and its context: lower `context_length` or `slots`",
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
        "this build of llama.cpp does not know the architecture of the model ({0}): install a newer xllamacpp",
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
    """The counters of one start, as it gave them last. They move with every token, and every 512 tokens of a prompt."""

    generation: int
    progress: tuple[float, ...] | None = None
    in_flight: int | None = None
    is_mute: bool = False


class LlamaCpp:
    """Fulfils Engine for one embedded engine."""

    is_strict = False  # it accepts any name
    fetcher: None = None
    sleeper: None = None
    adapters: None = None

    def __init__(self, name: str, config: LlamaCppConfig) -> None:
        self.name = name
        self._config = config
        self._client = ProbeClient(name)
        self._facts: tuple[int, ModelFacts] | None = None  # with the generation that they are of
        self._work = _Work(0)
        self._ports = (0, 0)  # of the latest start: its server's, and that for the likelihood of prompts

    def __repr__(self) -> str:
        return f"<LlamaCpp {self.name} {self._config.model}>"

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        """The child process. BadModel when there is no file that it could load, or no chat template."""
        model = model_file(self.name, self._config.model)
        template = self._config.chat_template
        if template is not None and not (path := Path(template).expanduser()).is_file():
            raise BadModel(self.name, f"the chat template {path.name!r} is not there: check `chat_template`", path)
        env = inherited(os.environ)
        # libgomp's default waiting costs half the speed on a machine that does anything else (docs/decisions.md).
        env |= {"GOMP_SPINCOUNT": "1000", **self._config.env, KEY_VARIABLE: key, **gpu_environment(devices)}
        threads = self._config.threads or usable_cores()
        line = tuple(argv(self._config, self.name, model, port, threads, self._likelihood_port(port)))
        return Launch(line, env, explain, sources=self._sources(model))

    def _sources(self, model: Path) -> Sources:
        """The model's file, the template, and what is set for them."""
        config = self._config
        template = [Path(config.chat_template).expanduser()] if config.chat_template is not None else []
        settings = (
            *(f"task={config.task}", f"context_length={config.context_length}", f"gpu_layers={config.gpu_layers}"),
            *environment_settings(config.env),
        )
        return Sources((*given("weights", shards(model)), *given("template", template)), settings)

    def inputs(self) -> Sequence[Path]:
        """The files of its model and its template."""
        template = self._config.chat_template
        more = (Path(template).expanduser().absolute(),) if template is not None else ()
        return (*inputs(self.name, self._config.model), *more)

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """On this machine, with the key of that start."""
        beside = self._likelihood_port(port)
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
            likelihood=f"http://127.0.0.1:{beside}/v1" if beside else "",
        )

    def _likelihood_port(self, port: int) -> int:
        """The second port of the start whose server listens on `port`; 0 where its model writes no text."""
        if not port or self._config.task != "generate":
            return 0
        if self._ports[0] != port:
            self._ports = (port, free_port())
        return self._ports[1]

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Up when its health check succeeds and it is the server that we started. See Probe for what comes with it."""
        root = endpoint.address.removesuffix("/v1")
        try:
            health = await self._client.ask(f"{root}/health", timeout_s=PROBE_S)
            if health.status != 200:
                status = f"its health check ends with status {health.status}"
                return Probe(False, "it is loading the model" if health.status == 503 else status)
            listed = await self._client.ask(f"{root}/v1/models", endpoint.headers, timeout_s=PROBE_S)
            if listed.status in (401, 403):
                return Probe(False, "another program answers on its port")
            await self._read_facts(root, endpoint)
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
            metrics=f"{root}/metrics",
        )

    async def _read_facts(self, root: str, endpoint: Endpoint) -> None:
        """Ask what it knows of its model, once for each start."""
        if self._facts is not None and self._facts[0] == endpoint.generation:
            return
        props = await self._client.ask(f"{root}/props", endpoint.headers, timeout_s=PROBE_S)
        facts = of_llama_cpp(props.json(), embeds=self._config.task == "embed") if props.status == 200 else None
        if facts is not None and self._config.task == "generate":
            facts = msgspec.structs.replace(facts, keeps_messages=await self._keeps_messages(root, endpoint))
        if facts is not None:
            facts = msgspec.structs.replace(facts, token_bytes=await asyncio.to_thread(self._token_bytes))
        self._facts = (endpoint.generation, facts) if facts is not None else None

    async def _keeps_messages(self, root: str, endpoint: Endpoint) -> bool:
        """Whether its template writes out every message, found out with a conversation that it is given."""
        roles = ("user", "assistant") * 3
        conversation = [{"role": role, "content": content} for role, content in zip(roles, _CONTENTS, strict=False)]
        body = {"messages": conversation}
        reply = await self._client.ask(f"{root}/apply-template", endpoint.headers, timeout_s=PROBE_S, body=body)
        value = reply.json()
        prompt = value.get("prompt") if isinstance(value, dict) and reply.status == 200 else None
        return isinstance(prompt, str) and keeps(prompt)

    def _token_bytes(self) -> int | None:
        try:
            return longest_token(model_file(self.name, self._config.model))
        except (Unreadable, OSError, BadModel):
            return None

    async def _count(self, root: str, endpoint: Endpoint) -> _Work:
        """Its counters; while it does not give them in time, those that it gave last."""
        before = self._work if self._work.generation == endpoint.generation else _Work(endpoint.generation)
        timeout_s = MUTE_S if before.is_mute else COUNT_S
        try:
            reply = await self._client.ask(f"{root}/metrics", endpoint.headers, timeout_s=timeout_s)
        except BackendError as exc:
            return replace(before, in_flight=None, is_mute=isinstance(exc, TimedOut))
        return counted(endpoint.generation, reply.body)

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Ask for one token, one embedding, or one ranked text; EngineFailed when that fails."""
        path, body = _FIRST_WORK[self._config.task]
        url = f"{endpoint.address}/{path}"
        reply = await self._client.ask(url, endpoint.headers, timeout_s=WARM_UP_S, body={"model": self.name, **body})
        if reply.status != 200:
            raise EngineFailed(self.name, f"its first {path} request ended with status {reply.status}")


def keeps(prompt: str) -> bool:
    """Whether a prompt holds the content of every message in its order, each behind markup of the template's own
    (`<|user|>`).
    """
    end = 0
    for content in _CONTENTS:
        at = prompt.find(content, end)
        if at < 0 or _MARKUP.search(prompt[end:at]) is None:
            return False
        end = at + len(content)
    return True


def counted(generation: int, page: bytes) -> _Work:
    """The counters on a page of its `/metrics`."""
    counters = {name: float(value) for name, value in _COUNTER.findall(page)}
    requests = [counters[name] for name in _REQUESTS if name in counters]
    progress = tuple(counters[name] for name in _MOVING if name in counters)
    return _Work(generation, progress or None, int(sum(requests)) if requests else None)


def argv(
    config: LlamaCppConfig, name: str, model: Path, port: int, threads: int, likelihood_port: int = 0
) -> list[str]:
    """The child's argument list. The configured `context_length` is for one slot, the engine's for all of them."""
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
    if config.chat_template is not None:
        options["chat-template"] = Path(config.chat_template).expanduser().absolute()
    if likelihood_port:
        options["likelihood-port"] = likelihood_port
        options["first-byte"] = config.timeouts.first_byte_s
    line = [sys.executable, "-I", str(child), *(f"--{option}={value}" for option, value in options.items())]
    return line if config.task == "generate" else [*line, f"--{config.task}"]


def explain(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """Why it exited with this code, in one sentence: Explain of backends/engine.py."""
    return why(code, tail, _MEANINGS, _SERVING, has_served=has_served, passing=_PASSING)


@functools.cache
def _version() -> str | None:
    """The version of the package that holds it; its own build number is not set there."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return None


def _engine(name: str, config: LlamaCppConfig, _: Surroundings) -> LlamaCpp:
    return LlamaCpp(name, config)


KIND: Final = EngineKind(LlamaCppConfig, _engine, LlamaCppPreflight, USUAL)
