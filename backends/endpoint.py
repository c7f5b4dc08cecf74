"""The words that every engine is described in, and the ports through which it is run and asked."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from backends.process.exit_reasons import exit_in_words


class State(enum.StrEnum):
    """Where an engine is in its life. Only READY serves; STARTING includes waiting for the next try after a failure."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    FAILED = "failed"


class Usage(enum.StrEnum):
    """How token usage is had from a stream whose client did not ask for it (docs/wire.md)."""

    ASK = "ask"  # splice stream_options.include_usage in; take the extra event out again
    TIMINGS = "timings"  # the last chunk carries llama.cpp's `timings`: nothing to ask
    TRY = "try"  # as ASK, and never again once the engine answers 400 naming stream_options


class Dialect(enum.StrEnum):
    """What an engine speaks on the data path."""

    OPENAI = "openai"
    OLLAMA = "ollama"  # the daemon's own API; translated by backends/ollama/request.py, _answer.py and _stream.py


CAPABILITIES = ("chat", "completion", "embedding", "tools", "vision", "reasoning", "json_schema", "logprobs")
# What is known of a capability: the engine or the configuration says so, a real request showed it, or it is not there.
DECLARED, VERIFIED, FAILED = "declared", "verified", "failed"


class ModelFacts(msgspec.Struct, frozen=True):
    """One model of a daemon that has many: what every request for it is sent with, and what is known of it.

    `num_ctx` is the one context length it is ever asked for (another one would make the daemon load it anew), None
    while it is not known. `keep_alive_s`: how long the daemon keeps it after a request; negative: for ever, None: as
    the daemon is set. `abilities` are the daemon's words ("completion", "tools", "thinking", …), None when it did not
    say. `memory_bytes`: while it is loaded, as far as the daemon says; `expires_at`: until when it is kept then, in the
    daemon's words. `size_bytes`: on its disk. `shift`: whether an answer that fills the context goes on.

    Of every engine: `context_length`, the tokens that prompt and answer may have together, as the engine reports it;
    `capabilities` by the words of CAPABILITIES, each DECLARED, VERIFIED or FAILED, and absent where nothing is known;
    `quantization`, how its weights are packed; `architecture`, the family of the model ("llama", "qwen3");
    `token_bytes`, as many as a token of its vocabulary stands for at most, None where a text may become shorter before
    it is cut into tokens; `keeps_messages`: its template writes out every user's and assistant's message, with a token
    of its own for each.
    """

    num_ctx: int | None = None
    keep_alive_s: float | None = None
    abilities: tuple[str, ...] | None = None
    is_loaded: bool = False
    memory_bytes: int = 0
    expires_at: str | None = None
    size_bytes: int = 0
    shift: bool = False
    context_length: int | None = None
    capabilities: dict[str, str] = {}
    quantization: str | None = None
    architecture: str | None = None
    token_bytes: int | None = None
    keeps_messages: bool = False


class Timeouts(msgspec.Struct, frozen=True):
    """How long the data path waits for an engine, in seconds."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    between_events_s: float = 120.0


class Endpoint(msgspec.Struct, frozen=True):
    """Where one start of one engine is spoken to. Survives pickling and msgpack.

    `address` is a URL whose path stands for `/v1` (`http://127.0.0.1:4711/v1`, `https://host/api/v1`), or
    `unix:/path/to.sock` (paths are then taken from the root); where the `dialect` is Ollama's it is the daemon's root.
    `headers` are added to every request and hold the
    engine's key: never log them. `is_ours`: we run the process on this machine, so a reset before any answer byte
    means that the request was not read (docs/decisions.md, "Retries"). `gathers`: it notices that a client has gone
    only while it streams, so a whole answer is asked for as a stream and put together (dialects/openai/collector.py).
    `once`: each request has a connection of its own, because the engine closes kept ones at any moment.
    `dial`: the IP address to connect to instead of looking the URL's host up, whose name stays in the `Host` header and
    in TLS.
    """

    engine: str
    generation: int
    address: str
    headers: dict[str, str] = {}
    timeouts: Timeouts = Timeouts()
    is_ours: bool = False
    usage: Usage = Usage.TRY
    gathers: bool = False
    once: bool = False
    dial: str | None = None
    dialect: Dialect = Dialect.OPENAI

    def __repr__(self) -> str:
        return f"<Endpoint {self.engine}#{self.generation} {self.address}>"


class Explain(Protocol):
    """One sentence, fit for a client, from an exit code and the last lines that were printed. `has_served`: it was
    ready before, and the lines are those of its last moments.
    """

    def __call__(self, code: int, tail: Sequence[str], has_served: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start: its argument list and its whole environment.

    `explain` says why it ended. `secrets` are values that its log must not show. `vital`: how the titles of those of
    its processes begin without which it cannot go on, with what their end means.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    explain: Explain = exit_in_words
    secrets: tuple[str, ...] = ()
    vital: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Need:
    """What one start of an engine takes of the machine.

    `memory_gb` is host memory. `gpus`: how many; `named`: exactly these (index, UUID or MIG UUID) instead. `share` is
    the part of each GPU's memory. Where the machine has no GPU at all, unnamed ones are not needed: it runs on the CPU.
    `is_guess`: nobody has said how much host memory it takes, so that alone is no reason to refuse it.
    """

    memory_gb: float = 0.0
    gpus: int = 0
    named: tuple[str, ...] = ()
    share: float = 1.0
    is_guess: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine said when asked how it is; asking starts nothing.

    `models` are the names it serves, None when it did not say. `in_flight` is its own count of running and waiting
    requests, None when it does not count. `progress` are numbers of which one changes whenever it does any work; None
    when it has no such numbers. `is_mute`: it is up, and what computes in it did not answer. `facts`: of its models by
    their names (of Ollama's by the full ones); "" is any name. `warning`: what its administrator should know.
    `version`: the engine's own, None when it did not say. `is_dead`: it is not up, and what it has been sent will get
    no answer; one of ours never will be up again.
    """

    is_up: bool
    reason: str | None = None
    models: tuple[str, ...] | None = None
    in_flight: int | None = None
    progress: tuple[float, ...] | None = None
    is_mute: bool = False
    facts: Mapping[str, ModelFacts] = field(default_factory=dict)
    warning: str | None = None
    version: str | None = None
    is_dead: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is: in words for a client, and in bytes. `checked_bytes`: of what came, by its digest."""

    told: str
    done_bytes: int
    total_bytes: int
    checked_bytes: int = 0


class Fetcher(Protocol):
    """What an engine needs on this machine before it can be started, and how it comes here."""

    def missing(self) -> Launch | None:
        """The process that brings it, to be ended with TERM at any time; None when all is here. Blocks shortly."""
        ...

    def progress(self, tail: Sequence[str]) -> Progress | None:
        """How far it is, from the last lines that the process printed; None when it has not said."""
        ...


class Sleeper(Protocol):
    """An engine that can give its memory back without ending. All raise BackendError for a failure."""

    async def sleep(self, endpoint: Endpoint, level: int) -> None:
        """Level 1 keeps the weights in host memory, 2 drops them. No request may run, and none may come until it wakes:
        a sleeping engine answers `/health` with 200 and lets requests hang.
        """
        ...

    async def wake_up(self, endpoint: Endpoint) -> None:
        """As before; returns when the weights are back. Whether it still works, `warm_up` tells."""
        ...

    async def is_sleeping(self, endpoint: Endpoint) -> bool:
        """Whether it sleeps now."""
        ...


class Adapters(Protocol):
    """An engine that takes LoRA adapters while it runs; a restart forgets them. All raise BackendError."""

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        """Serve this folder under that name; one that is loaded already is replaced by what the folder holds now."""
        ...

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        """Forget it; nothing when it is not loaded."""
        ...

    async def listed(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The names of those that are loaded."""
        ...


class Engine(Protocol):
    """One engine as the supervisor sees it. Passive: it describes and asks, and never decides.

    `is_strict`: the models it lists are all it has, so another name does not exist there. `fetcher`, `sleeper` and
    `adapters` are None when it cannot do that, or is not configured to.
    """

    name: str
    is_strict: bool

    @property
    def fetcher(self) -> Fetcher | None:
        """What must be brought here before `launch`."""
        ...

    @property
    def sleeper(self) -> Sleeper | None:
        """How it is put to sleep."""
        ...

    @property
    def adapters(self) -> Adapters | None:
        """How it gets adapters."""
        ...

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch | None:
        """The process that serves on 127.0.0.1:`port` and accepts only `key`; None when somebody else runs it."""
        ...

    def inputs(self) -> Sequence[Path]:
        """The files and folders that a start is made from: where a start failed and one of them changes, another start
        may end otherwise. Blocks shortly.
        """
        ...

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """Where start number `generation` is spoken to."""
        ...

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Ask how it is. Never raises for an engine's failure: that is `is_up=False` with a reason."""
        ...

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Make it do the smallest real piece of its work (one token, one embedding); BackendError when it cannot."""
        ...
