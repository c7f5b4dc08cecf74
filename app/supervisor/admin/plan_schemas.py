"""The response of `/admin/plan`, as types: what engines may use of this machine, and what each gets."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class GpuAnswer(_Answer):
    """One GPU or MIG device that engines may use. `quarantine`: why nothing is started there for now."""

    uuid: str
    index: int
    memory_gb: float
    is_mig: bool = False
    quarantine: str | None = None


class SeatAnswer(_Answer):
    """Where one backend runs when everything configured is loaded in turn; sizes in GB.

    `fits`: beside all before it; `is_possible`: at all. `memory_gb` is the host memory that is reserved for it, and
    `memory_source` how that is known. `weights_gb` is the size of its files, `estimated_gb` the estimate made of that,
    `measured_gb` the host memory and `device_gb` the GPU memory that its last start took; the rest is what the engine
    itself reported then. `lacks`: settings that name what is missing on this machine, or broken.
    """

    backend: str
    fits: bool
    is_possible: bool
    memory_gb: float | None = None
    memory_source: Literal["given", "measured", "estimated"] | None = None
    devices: tuple[str, ...] = ()
    share: float = 0.0
    weights_gb: float | None = None
    estimated_gb: float | None = None
    measured_gb: float | None = None
    device_gb: float | None = None
    loaded_weights_gb: float | None = None
    kv_gb: float | None = None
    kv_tokens: int | None = None
    notes: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class RelayPlan(_Answer):
    """How many relays there are to be, of the cores that the gateway may use and those that engines keep busy.
    `is_auto`: by these two, not by a number that was set.
    """

    count: int
    is_auto: bool
    cores: int
    engine_cores: int


class PlanAnswer(_Answer):
    """What engines may use of this machine, and what each gets."""

    memory_gb: float
    gpus: tuple[GpuAnswer, ...]
    seats: tuple[SeatAnswer, ...]
    relays: RelayPlan
