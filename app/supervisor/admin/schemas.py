"""The responses of the admin application, as types. Their docstrings are what `/openapi.json` says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.supervisor.capacity.gpu_quarantine import Quarantine
from app.supervisor.ejection.ejected_model import EjectedModel
from app.supervisor.fleet.status import Adapter, BackendStatus
from app.supervisor.replicas.adapters import ProofRecord
from backends.endpoint import State


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorDetail(_Answer):
    """What went wrong: `message` for people, `code` for programs, `param`: the field or parameter that is meant."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(_Answer):
    """Every response that is not 2xx."""

    error: ErrorDetail


class FailureAnswer(_Answer):
    """The last end of an engine that nobody asked for. `life`: which start it was."""

    life: int
    reason: str
    ago_s: float


class ReplacementAnswer(_Answer):
    """A backend does not run with its new configuration yet: `pending`, it will; `failed`, it does not start with it
    and goes on with the one before.
    """

    state: Literal["pending", "failed"]
    reason: str


class ServingAnswer(_Answer):
    """What a backend's answers for a model are made from. `digest`: as in the header `x-modelport-serving`; null where
    a file has changed since the engine's start (`is_unverified`). `weights`, `template`, `adapter`: of the contents of
    these files, null where there are none of their own; of a daemon's model, `weights` is the daemon's digest of it.
    """

    backend: str
    digest: str | None
    is_unverified: bool = False
    weights: str | None = None
    template: str | None = None
    adapter: str | None = None
    version: str | None = None


class PublicModelAnswer(_Answer):
    """A public name. `state` is that of its best backend, `reason` says why it does not serve.

    `serving`: how many of its `engines` (backends, replicas) serve it now; `restarts`: of all of them, and
    `last_failure`: the last end of one of them that nobody asked for, kept when it serves again. `parent`: the model
    that an adapter belongs to. `context_length`: tokens of prompt and response together, as its engine reports it.
    `parity`: what its certificate says.
    `servings`: what the answers of each backend are made from, as far as that is known.
    """

    name: str
    state: State
    reason: str | None = None
    backends: tuple[str, ...]
    context_length: int | None = None
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    serving: int = 0
    engines: int = 0
    servings: tuple[ServingAnswer, ...] = ()
    restarts: int = 0
    last_failure: FailureAnswer | None = None
    replacement: ReplacementAnswer | None = None
    parity: str | None = None


class BackendAnswer(_Answer):
    """One backend. `generation`: the number of this start; `since_s`: for how long it has had this state; `load_s`: how
    long its start took.

    `in_flight`: requests that it has or that wait for it; `waiting`: those of them that wait because it has as many as
    it may have; `engine_in_flight`: the engine's own count, null when it has none.
    `swaps`: how often it was stopped to make room for another; `devices`: the GPUs it runs on. `is_managed`: the
    gateway runs it. `url`: where a daemon with models of its own listens; `loaded`: the models in its memory, with
    their size in bytes. `last_failure` is kept when it serves again. `ejected`: the models that
    requests pass it over for.
    """

    name: str
    kind: str
    state: State
    reason: str | None = None
    generation: int = 0
    pid: int | None = None
    restarts: int = 0
    since_s: float = 0.0
    load_s: float | None = None
    in_flight: int = 0
    waiting: int = 0
    engine_in_flight: int | None = None
    models: tuple[str, ...] | None = None
    swaps: int = 0
    devices: tuple[str, ...] = ()
    is_managed: bool = True
    url: str | None = None
    loaded: dict[str, int] = {}
    last_failure: FailureAnswer | None = None
    replacement: ReplacementAnswer | None = None
    ejected: tuple[EjectedModel, ...] = ()

    @classmethod
    def of(cls, status: BackendStatus) -> BackendAnswer:
        """The answer for one backend, from what the fleet reports."""
        return cls(
            name=status.name,
            kind=status.kind,
            state=status.state,
            reason=status.reason,
            generation=status.generation,
            pid=status.pid,
            restarts=status.restarts,
            since_s=round(status.since_s, 3),
            load_s=None if status.load_s is None else round(status.load_s, 3),
            in_flight=status.leases,
            engine_in_flight=status.in_flight,
            models=status.models,
            swaps=status.swaps,
            waiting=status.waiting,
            devices=status.devices,
            is_managed=status.is_managed,
            url=status.daemon.url if status.daemon is not None else None,
            loaded=dict(status.daemon.loaded) if status.daemon is not None else {},
            last_failure=failure(status),
            replacement=replacement(status),
            ejected=status.ejected,
        )


def failure(status: BackendStatus) -> FailureAnswer | None:
    """The last end of a backend that nobody asked for; None when there was none."""
    last = status.last_failure
    return FailureAnswer(life=last.life, reason=last.reason, ago_s=round(last.ago_s, 3)) if last is not None else None


def replacement(status: BackendStatus) -> ReplacementAnswer | None:
    """How far a backend is with its new configuration; None when it runs with it."""
    pending = status.replacement
    return ReplacementAnswer(state=pending.state, reason=pending.reason) if pending is not None else None


class QuarantineAnswer(_Answer):
    """A GPU on which nothing is started: its memory did not come back after that backend had ended."""

    device: str
    backend: str
    reason: str

    @classmethod
    def of(cls, quarantine: Quarantine) -> QuarantineAnswer:
        """The answer for one GPU."""
        return cls(device=quarantine.device, backend=quarantine.backend, reason=quarantine.reason)


class StoreAnswer(_Answer):
    """Where keys, limits and usage are kept. `place`: a path, or HOST:PORT/DATABASE. `reason`: why it is not reachable,
    and `down_s`: for how long. `gateway`: what this gateway is called there; `gateways`: how many share it, as far as
    is known, null where it never was; `names`: their machines; `silent`: how many of them have not been heard of for
    some seconds. `ahead_s`: by how much its clock is ahead of ours. `usage_pending`: usage records of this gateway that
    it does not have yet; `usage_lost`: that it will never have. `keys_refused`: why clients' keys that are kept there
    are refused now; null while they are known.
    """

    kind: Literal["sqlite", "postgresql"]
    place: str
    is_up: bool
    reason: str | None = None
    down_s: float | None = None
    gateway: str
    gateways: int | None = None
    names: tuple[str, ...] = ()
    silent: int = 0
    ahead_s: float = 0.0
    usage_pending: int = 0
    usage_lost: int = 0
    keys_refused: str | None = None


class Health(_Answer):
    """`ok`: every name is served, or its first request starts it. `degraded`: some name is not served and will not be.

    `quarantined`: GPUs on which nothing is started until their memory is back, or the configuration is reloaded.
    `state_folder`: why it cannot be written, such as a full disk; requests go on, and `status` is `degraded`. `store`:
    where keys, limits and usage are kept; while it is away requests go on, too, and `status` is `degraded`.
    `gateway`: the name of the machine that it runs on, which tells several gateways apart. `config`: a digest of the
    configuration in force, the same in all gateways that have the same file.
    """

    status: Literal["ok", "degraded", "starting", "draining"]
    version: str
    uptime_s: float
    models: tuple[PublicModelAnswer, ...]
    backends: tuple[BackendAnswer, ...]
    quarantined: tuple[QuarantineAnswer, ...] = ()
    state_folder: str | None = None
    store: StoreAnswer | None = None
    gateway: str = ""
    config: str = ""


class Version(_Answer):
    """The version of the gateway that runs."""

    version: str


class Models(_Answer):
    """The public names; `wildcards` as they are written in the configuration. `pairs`: of models to compare, a word for
    each and its public name; the first is what the others are held against.
    """

    models: tuple[PublicModelAnswer, ...]
    wildcards: tuple[str, ...] = ()
    pairs: dict[str, dict[str, str]] = {}


class RelayProcesses(_Answer):
    """The processes of the data path. `connected`: the process ids of those that the supervisor talks to."""

    pids: tuple[int, ...]
    connected: tuple[int, ...]
    restarts: int


class Status(_Answer):
    """`/health`, with the processes, the address and the state folder."""

    health: Health
    pid: int
    address: str
    config: str | None
    state_folder: str
    table_version: int
    leases: int
    relays: RelayProcesses


class LifeAnswer(_Answer):
    """One start of an engine. `reason`: why it ended; null when it was asked to, or while it runs. `ended_ago_s`: null
    while it runs.
    """

    life: int
    reason: str | None = None
    ended_ago_s: float | None = None


class Logs(_Answer):
    """The last lines that a backend's process wrote in one life, oldest first. `lives`: those that can be asked for.
    `printed`: how many lines it has written altogether; the last of `lines` is one more where it is `unfinished`."""

    backend: str
    life: int | None = None
    lines: tuple[str, ...]
    printed: int = 0
    unfinished: bool = False
    lives: tuple[LifeAnswer, ...] = ()


class ProbeAnswer(_Answer):
    """What is known of a model at one backend. `capabilities`: `verified` or `failed`, by a real request or by the
    engine's own report; `declared`: claimed and not tested. `version` is the engine's.
    """

    backend: str
    version: str | None = None
    context_length: int | None = None
    capabilities: dict[str, str] = {}


class ProbesAnswer(_Answer):
    """What tests have shown of a model, at each different engine that serves it."""

    model: str
    probes: tuple[ProbeAnswer, ...]


class AdapterOrder(BaseModel):
    """An adapter to load: its public name, and its folder on the gateway's machine. `proof`: whether its answers are
    held against the base's; its files are checked in any case.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=256)
    path: str = Field(min_length=1, max_length=4096)
    proof: Literal["on", "off"] = "on"


class ProofAnswer(_Answer):
    """How the latest load of an adapter ended, of several engines the least good. `verdict`: `proved`; `off`, when it
    was not asked for; `unclear`, when it could not be compared (`why_not`), and is served; `failed`. `effect`: how far
    its answers are from the base's, in log-probabilities; `noise`: how far the base's are from each other.
    """

    verdict: Literal["proved", "off", "unclear", "failed"]
    seconds: float
    effect: float | None = None
    noise: float | None = None
    why_not: str | None = None

    @classmethod
    def of(cls, records: Sequence[ProofRecord]) -> ProofAnswer | None:
        """The least good of these."""
        if not records:
            return None
        record = min(records, key=lambda each: ("failed", "unclear", "off", "proved").index(each.verdict))
        proof = record.proof
        is_compared = proof is not None and proof.why_not is None
        return cls(
            verdict=record.verdict,
            seconds=round(record.seconds, 3),
            effect=proof.effect if proof is not None and is_compared else None,
            noise=proof.noise if proof is not None and is_compared else None,
            why_not=proof.why_not if proof is not None else None,
        )


class AdapterAnswer(_Answer):
    """One adapter of a backend. `reason`: why the engine does not have it; null when it has it, or does not run.
    `proof`: null before it was loaded for the first time.
    """

    name: str
    path: str
    reason: str | None = None
    proof: ProofAnswer | None = None


class AdaptersAnswer(_Answer):
    """The adapters of one backend."""

    backend: str
    adapters: tuple[AdapterAnswer, ...]

    @classmethod
    def of(cls, backend: str, adapters: Sequence[Adapter]) -> AdaptersAnswer:
        """These, as they are now."""
        return cls(
            backend=backend,
            adapters=tuple(
                AdapterAnswer(name=each.name, path=each.path, reason=each.reason, proof=ProofAnswer.of(each.records))
                for each in adapters
            ),
        )


class Reloaded(_Answer):
    """The new configuration is in force, except for the `pending` backends, which do not run with it yet.
    `needs_restart`: changed settings that are read only at a start.
    """

    table_version: int
    needs_restart: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
