"""What the doctor sees: one value, gathered once. Sizes in bytes; None always means: not known on this system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.config.model import Config
from app.store.checkup import Checkup
from app.supervisor.admin.plan_schemas import PlanAnswer
from backends.inspection import Inspection

HUB: Final = "models of the hub"
SHM: Final = "/dev/shm"  # noqa: S108 - only looked at


@dataclass(frozen=True, slots=True)
class ConfigFacts:
    """The configuration as a start would read it, but without asking for a key. `source`: its file, None without one.

    `errors`: why there is none; `warnings`: what is allowed and probably a mistake, as (place, sentence). `variables`:
    those of the environment that it names.
    """

    config: Config | None = None
    source: Path | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    variables: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A folder, or why it cannot be looked at (`trouble`). `has_content`: anything lies in it; `has_lock`: a lock file
    of a supervisor's does. `holder`: the process that holds the lock, "" for one that is not known, None for nobody.
    `can_be_made`: it is not there, and the folder above it lets us make it.
    """

    path: Path
    exists: bool = False
    is_folder: bool = False
    owner: int = 0
    mode: int = 0o700
    has_content: bool = False
    has_lock: bool = False
    holder: str | None = None
    can_be_made: bool = True
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disk of one folder, or of the nearest that is there above it. `what`: what the folder is for; `device`: the
    same for folders on one disk. `trouble`: why it cannot be looked at.
    """

    what: str
    path: Path
    free_bytes: int = 0
    total_bytes: int = 0
    free_files: int | None = None
    device: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class PortFacts:
    """An address that the gateway is to listen on. `trouble`: why it cannot, `advice`: what to do. `users`: the
    processes that listen on the port, each with its name, as far as they are shown to us.
    """

    setting: str
    host: str
    port: int
    trouble: str | None = None
    advice: str = ""
    users: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """A program of an engine. `backend`: whose, None where no backend is configured of its kind. `path`: where it is,
    None where it is not; `is_file`: a file of the name is there and cannot be run. `trouble`: why it does not work;
    `is_mute`: it is only that it does not tell its version. `flaw`: what is known to be wrong with that version.
    """

    what: str
    command: str
    backend: str | None = None
    path: str | None = None
    is_file: bool = False
    version: str | None = None
    trouble: str | None = None
    is_mute: bool = False
    flaw: str | None = None


@dataclass(frozen=True, slots=True)
class AttachedFacts:
    """An engine that somebody else runs, as it answered. `is_implied`: nobody configured it. `reason`: why it is not
    up; `flaw`: what its administrator should know.
    """

    backend: str
    where: str
    is_implied: bool = False
    is_up: bool = False
    version: str | None = None
    models: int | None = None
    reason: str | None = None
    flaw: str | None = None


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """NVIDIA's driver through NVML. `has_devices`: its device files are there; `has_others`: those of another maker.
    `gpus`: index, name, memory and how much of it is used; `lost`: index of one that does not answer, and why.
    `trouble`: why NVML does not answer. `hidden`: how many CUDA_VISIBLE_DEVICES hides.
    """

    has_devices: bool = False
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[tuple[int, str, int, int], ...] = ()
    lost: tuple[tuple[int, str], ...] = ()
    trouble: str | None = None
    hidden: int = 0
    has_others: bool = False


@dataclass(frozen=True, slots=True)
class HubFacts:
    """A model of the Hugging Face hub that a backend names. `is_here`: in the cache. `is_offline`: its download is
    forbidden by the backend's environment; `has_token`: it gets a token.
    """

    backend: str
    model: str
    is_here: bool = False
    is_offline: bool = False
    has_token: bool = False


@dataclass(frozen=True, slots=True)
class CollectorFacts:
    """Where traces are sent: host and port. `trouble`: why no connection can be made."""

    where: str
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store that is configured: a server, or a file. `exists`: of a file, a gateway has made it. `report`: what it
    said; None where it was not asked, as it does not exist yet.
    """

    place: str
    is_server: bool = False
    exists: bool = True
    report: Checkup | None = None


@dataclass(frozen=True, slots=True)
class UsageFacts:
    """The folder where usage records wait for the store. `damaged`: files that could not be read and were put aside.
    `trouble`: why it cannot be looked at.
    """

    folder: Path
    waiting_bytes: int = 0
    damaged: tuple[str, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """The limits of our control group: memory in bytes and cores. None: no limit. `is_container`: in a container."""

    memory_bytes: int | None = None
    cores: float | None = None
    is_container: bool = False


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """The tool environments: those that work, those whose interpreter is gone, and leftovers of killed commands."""

    folder: Path
    whole: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """The gateway that runs on the state folder. `trouble`: it holds the folder and does not answer. `failed`: backends
    with the reason why they do not serve; `quarantined`: GPUs that nothing is started on, with the reason.
    """

    pid: int | None = None
    version: str | None = None
    status: str | None = None
    address: str | None = None
    config: str | None = None
    failed: tuple[tuple[str, str], ...] = ()
    quarantined: tuple[str, ...] = ()
    state_folder: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Everything. `now`: seconds since 1970; `jumped_s`: by how much the clock was set while we looked; `built_at`:
    when the newest of our own files was written. `inspections`: what there is to look at of each backend, and (None) of
    kinds that no backend is of. `libraries`: whether a shared library can be loaded, by file name. `processor`: the
    flags of an x86 processor, None for another. `open_files`: the limit that cannot be raised. `late`: what could not
    be looked at in time, each with the check that needs it.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    user: int = 0
    python: tuple[int, int, int] = (3, 11, 0)
    system: str = "Linux x86_64"
    now: float = 0.0
    jumped_s: float = 0.0
    built_at: float = 0.0
    config: ConfigFacts = ConfigFacts()
    inspections: tuple[tuple[str | None, Inspection], ...] = ()
    libraries: Mapping[str, bool] = field(default_factory=dict)
    processor: frozenset[str] | None = None
    open_files: int | None = None
    shm_bytes: int | None = None
    container: ContainerFacts = ContainerFacts()
    gpu: GpuFacts = GpuFacts()
    state: FolderFacts | None = None
    disks: tuple[DiskFacts, ...] = ()
    tools: ToolFacts | None = None
    ports: tuple[PortFacts, ...] = ()
    collector: CollectorFacts | None = None
    store: StoreFacts | None = None
    usage: UsageFacts | None = None
    programs: tuple[ProgramFacts, ...] = ()
    attached: tuple[AttachedFacts, ...] = ()
    hub: tuple[HubFacts, ...] = ()
    plan: PlanAnswer | None = None
    gateway: GatewayFacts | None = None
    late: tuple[tuple[str, str], ...] = ()
