"""The ports through which an engine is run and asked, and the values that go through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backends.endpoint import Endpoint, ModelFacts
from backends.model_files.sources import Sources
from backends.process.exit_reasons import exit_in_words
from backends.process.footprint import Footprint, nothing_reported


class Explain(Protocol):
    """Why a process ended, in one sentence fit for a client, from its exit code (negative: the signal) and the last
    lines that it printed. `has_served`: it was ready before, and the lines are those of its last seconds.
    """

    def __call__(self, code: int, tail: Sequence[str], has_served: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start: its argument list and its whole environment.

    `explain` says why it ended. `secrets` are values that its log must not show. `vital`: the processes below it
    without which it cannot go on, by how their titles begin, with what the end of one means. `reported` takes what it
    reports of its memory from the lines that it printed while it started. `sources`: what its answers depend on; None
    where that is not known altogether.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    explain: Explain = exit_in_words
    secrets: tuple[str, ...] = ()
    vital: Mapping[str, str] = field(default_factory=dict)
    reported: Callable[[Sequence[str]], Footprint] = nothing_reported
    sources: Sources | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """What one start of an engine takes of the machine.

    `memory_gb` is host memory. `gpus`: how many; `named`: exactly these (index, UUID or MIG UUID) instead. `share`: its
    part of each GPU's memory, 0 to 1. Where the machine has no GPU at all, unnamed ones are not needed: it runs on the
    CPU. `is_guess`: `memory_gb` is not configured, so it alone is no reason to refuse the start.
    """

    memory_gb: float = 0.0
    gpus: int = 0
    named: tuple[str, ...] = ()
    share: float = 1.0
    is_guess: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """How an engine is, as it reported when it was asked; asking starts nothing.

    `reason`: why it is not up. `models`: the names that it serves, None when it did not list them. `in_flight`: its own
    count of running and waiting requests, None when it does not count them. `progress`: numbers of which one changes
    whenever it does any work; None when it has no such numbers. `is_mute`: it is up, but does not give its counters in
    time. `facts`: of its models, by their names (of a daemon's by their full names); "" stands for any name. `warning`:
    what its administrator should know. `version`: the engine's own, None when it did not give it. `is_dead`: it is not
    up, and requests that it has will get no response; one that we run will never be up again. `digests`: of a daemon's
    models by their full names, the digest that it keeps of everything in each. `metrics`: the URL at which it shows its
    own metrics in Prometheus's text format; None where it shows none.
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
    digests: Mapping[str, str] = field(default_factory=dict)
    metrics: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is: as a text for clients, and in bytes. `checked_bytes`: how much of it was compared with its
    digest.
    """

    text: str
    done_bytes: int
    total_bytes: int
    checked_bytes: int = 0


class Fetcher(Protocol):
    """Downloads what an engine needs on this machine before it can be started."""

    def missing(self) -> Launch | None:
        """The process that downloads it, which may be ended with TERM at any time; None when all is here. Blocks
        shortly.
        """
        ...

    def progress(self, tail: Sequence[str]) -> Progress | None:
        """How far the download is, from the last lines that the process printed; None when it has not reported it."""
        ...


class Sleeper(Protocol):
    """Puts an engine to sleep: it gives its memory back without ending. All raise BackendError for a failure."""

    async def sleep(self, endpoint: Endpoint, level: int) -> None:
        """Level 1 keeps the weights in host memory, level 2 drops them. No request may run, and none may be sent until
        it wakes: a sleeping engine answers `/health` with 200 and lets requests hang.
        """
        ...

    async def wake_up(self, endpoint: Endpoint) -> None:
        """Take the memory again; returns when the weights are back. Whether it works, only `warm_up` shows."""
        ...


@dataclass(frozen=True, slots=True)
class Proof:
    """What a comparison of a loaded adapter with its base has shown, in log-probabilities (of embeddings: in what they
    consist of). `effect`: how far they are apart at least; `noise`: how far answers of the base alone are apart.
    `why_not`: they could not be compared.
    """

    effect: float = 0.0
    noise: float = 0.0
    why_not: str | None = None


class Adapters(Protocol):
    """Loads LoRA adapters into a running engine; a restart forgets them. All raise BackendError."""

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        """Serve the adapter at `path` as `name`. One that is loaded already is replaced by what is at the path now.
        What files alone tell against it is found before the engine gets it.
        """
        ...

    async def prove(self, endpoint: Endpoint, name: str) -> Proof:
        """Hold what it answers against what its base answers. NotFinite when one of them answers no numbers,
        EngineFailed when the adapter answers as its base does.
        """
        ...

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        """Forget it; does nothing when it is not loaded."""
        ...

    async def listed(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The names of the adapters that are loaded."""
        ...


class Engine(Protocol):
    """One engine as the supervisor sees it. Passive: it describes and asks, and never decides.

    `name`: the backend's. `is_strict`: the models that it lists are all it has, so that another name does not exist
    there. `fetcher`, `sleeper` and `adapters` are None when it cannot do that, or is not configured to.
    """

    name: str
    is_strict: bool

    @property
    def fetcher(self) -> Fetcher | None:
        """Downloads what is missing before `launch`."""
        ...

    @property
    def sleeper(self) -> Sleeper | None:
        """Puts it to sleep and wakes it."""
        ...

    @property
    def adapters(self) -> Adapters | None:
        """Loads its adapters."""
        ...

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch | None:
        """The process that serves on 127.0.0.1:`port`, on these GPUs, and accepts only `key`; None when somebody else
        runs the engine. Raises BackendError when it cannot be started as it is configured.
        """
        ...

    def inputs(self) -> Sequence[Path]:
        """The files and folders that a start depends on: after a failed start, another one is worth trying once one of
        them has changed. Blocks shortly.
        """
        ...

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        """How to reach the start with this number, port and key."""
        ...

    async def probe(self, endpoint: Endpoint) -> Probe:
        """Ask how it is. Never raises for the engine's failures: those are `is_up=False` with a reason."""
        ...

    async def warm_up(self, endpoint: Endpoint) -> None:
        """Make it do the smallest real piece of its work (one token, one embedding). BackendError when it cannot."""
        ...
