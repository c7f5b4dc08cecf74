"""What an operator writes under `backends:`; one class per kind. Checked before the first port opens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from backends.config.fields import GB, Device, Seconds
from backends.endpoint import Timeouts
from backends.engine import Need


def _as_word(value: object) -> object:
    """YAML reads `off` as false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class TimeoutsConfig(BaseModel):
    """How long a request waits for this engine, in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect_s: Seconds = Field(5.0, description="For a connection to the engine.")
    first_byte_s: Seconds = Field(
        600.0, description="For the first byte of its answer; then 504 and the work is cancelled."
    )
    between_events_s: Seconds = Field(
        120.0, description="Between two pieces of an answer; then the stream ends with an error."
    )

    def values(self) -> Timeouts:
        """The same as a value that the data path can carry."""
        return Timeouts(self.connect_s, self.first_byte_s, self.between_events_s)


class BackendConfig(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeouts: TimeoutsConfig = Field(
        default_factory=TimeoutsConfig, description="How long a request waits for this engine."
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Requests that the engine has at the same time; more wait here. Default: `slots` of a llama_cpp, "
        "`num_parallel` and at least 4 of ollama, no limit for the others.",
    )
    max_waiting: int = Field(
        256,
        ge=0,
        le=1_000_000,
        description="Requests that may wait for its start (more are answered 503), and for a place (429).",
    )
    max_wait_s: Seconds | None = Field(
        None, description="A wait longer than this, or expected to be, is refused; default: `server.wait_s`."
    )

    def limit(self) -> int | None:
        """How many requests the engine has at the same time; None: as many as come."""
        return self.max_in_flight

    def media_domains(self) -> tuple[str, ...]:
        """The hosts, in lower case, from which the engine may fetch pictures and sounds."""
        return ()

    def as_managed(self) -> ManagedConfig | None:
        """This configuration, where we run the process; None where somebody else does."""
        return None

    def engines(self) -> Sequence[BackendConfig]:
        """Each engine that somebody else runs for it, with a configuration of its own."""
        return (self,)

    def address(self) -> Mapping[str, object]:
        """Where an engine is that somebody else runs, as JSON without secrets: the same for the same engine."""
        return {}

    def followed_host(self) -> str | None:
        """The host whose addresses in the DNS are its engines; None where it has one that stays."""
        return None

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Settings of the kind's own that cannot be meant together: each as the key to change and a sentence."""
        yield from ()


class ManagedConfig(BackendConfig):
    """What every kind has whose process we run."""

    start: Literal["boot", "demand"] = Field(
        "boot", description="`boot`: with the gateway; `demand`: when the first request asks for it."
    )
    start_timeout_s: Seconds = Field(
        600.0, description="A start that is not ready by then is ended and counts as failed."
    )
    stop_grace_s: Seconds = Field(10.0, description="Between TERM and KILL when the engine is stopped.")
    env: dict[str, str] = Field(default_factory=dict, description="More environment variables for the engine.")
    memory_gb: GB | None = Field(
        None, description="Host memory it takes, in GB, counted against `server.memory_gb`; default: a guess."
    )
    devices: Literal["auto"] | tuple[Device, ...] = Field(
        "auto", description="GPUs for it and its replicas: indices, `GPU-…` or `MIG-…`; `auto`: free ones."
    )
    unload_after_s: Seconds | None = Field(
        None, description="Idle for so long, it is put to sleep or stopped, until the next request; default: never."
    )
    pinned: bool = Field(False, description="Never stopped to make room for another engine.")
    replicas: int = Field(1, ge=1, le=64, description="Independent engines of this one entry that share its requests.")
    start_stall_s: Seconds = Field(
        300.0, description="A start that neither prints nor reads nor writes for so long is ended and counts as failed."
    )
    stall_timeout_s: Seconds = Field(
        120.0,
        description="Requests run and nothing moves for so long: a test token, and a restart when that fails too.",
    )

    @property
    def named_devices(self) -> tuple[str, ...]:
        """The GPUs as they are written under `devices`, for all replicas together; empty for `auto`."""
        return () if self.devices == "auto" else tuple(str(device) for device in self.devices)

    def gpus_each(self) -> int | None:
        """How many GPUs one engine uses; None: as many as are named for it."""
        return None

    def as_managed(self) -> ManagedConfig | None:
        """This configuration: we run the process."""
        return self

    def is_cpu_only(self) -> bool:
        """Whether it computes in the host's memory although the machine has GPUs."""
        return False

    def need(self) -> Need:
        """What one start takes of the machine, as far as it is configured."""
        named = self.named_devices
        return Need(memory_gb=self.memory_gb or 0.0, gpus=self.gpus_each() or len(named), named=named)

    def gpus_in_words(self) -> str:
        """How many GPUs one engine uses and by which settings, for a message."""
        return "it runs on 1"

    def setting_for_gpus(self, count: int) -> str | None:
        """The setting with which one engine would use `count` GPUs, for a message; None where there is no such one."""
        return None

    def setting_for_share(self, share: float) -> str | None:
        """The setting with which one engine would take this share of each of its GPUs, or less; None where there is no
        such one.
        """
        return None

    def workers(self) -> int:
        """How many processes of one start exchange data through shared memory; 1: none."""
        return 1

    def cores(self, usable: int, *, is_on_cpu: bool) -> int:
        """How many of the usable cores one engine keeps busy while it works: one where a GPU computes, else all."""
        return usable if is_on_cpu else 1

    def sleep_level(self) -> int:
        """The level at which it sleeps instead of being stopped; 0: it is stopped."""
        return 0

    def adapter_paths(self) -> Mapping[str, str]:
        """The paths of its adapters, by public name."""
        return {}

    def unproved_adapters(self) -> Collection[str]:
        """The public names of those adapters that are served without being held against the base."""
        return ()


class AdapterConfig(BaseModel):
    """One adapter, where there is more to say of it than its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="Its folder, or the name of a repository on the hub.")
    proof: Annotated[Literal["on", "off"], BeforeValidator(_as_word)] = Field(
        "on", description="`off`: it is not held against its base's answers; its files are checked all the same."
    )


class AdaptableConfig(ManagedConfig):
    """What every kind has that can sleep and take adapters while it runs."""

    sleep: Literal[1, 2] | None = Field(
        None, description="Put to sleep instead of stopped: 1 keeps the weights in host memory, 2 forgets them."
    )
    adapters: dict[Annotated[str, Field(min_length=1, max_length=256)], str | AdapterConfig] = Field(
        default_factory=dict, description="Adapters (LoRA) by public name, with their folders, or `{path, proof}`."
    )

    def sleep_level(self) -> int:
        """The level at which it sleeps instead of being stopped; 0: it is stopped."""
        return self.sleep or 0

    def adapter_paths(self) -> Mapping[str, str]:
        """The paths of its adapters, by public name."""
        return {name: each if isinstance(each, str) else each.path for name, each in self.adapters.items()}

    def unproved_adapters(self) -> Collection[str]:
        """The public names of those that are not held against the base."""
        return {name for name, each in self.adapters.items() if not isinstance(each, str) and each.proof == "off"}
