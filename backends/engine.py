"""The ports through which an engine is run and asked, and the values that go through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backends.endpoint import Endpoint, ModelFacts
from backends.process.exit_reasons import exit_in_words
from backends.process.footprint import Footprint, nothing_reported


class Explain(Protocol):
    """One sentence, fit for a client, from an exit code and the last lines that were printed. `has_served`: it was
    ready before, and the lines are those of its last moments.
    """

    def __call__(self, code: int, tail: Sequence[str], has_served: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start: its argument list and its whole environment.

    `explain` says why it ended. `secrets` are values that its log must not show. `vital`: how the titles of those of
    its processes begin without which it cannot go on, with what their end means. `reported` reads what it printed of
    its memory from the lines that it printed while it started.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    explain: Explain = exit_in_words
    secrets: tuple[str, ...] = ()
    vital: Mapping[str, str] = field(default_factory=dict)
    reported: Callable[[Sequence[str]], Footprint] = nothing_reported


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
    """How far a download is: as a text for clients, and in bytes. `checked_bytes`: how much of it was compared with its
    digest.
    """

    text: str
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
