"""GPU memory that comes back, comes late, or does not. No GPU: the port is scripted as NVML documents its answers."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.supervisor.capacity import devices
from app.supervisor.capacity.devices import GpuLoad, nvml
from app.supervisor.capacity.gpu_quarantine import GpuQuarantine, Quarantine, may_be_used, missing_gb
from app.supervisor.capacity.placement import Gpu, Machine
from app.supervisor.capacity.schedule import Capacity
from backends.endpoint import State
from backends.engine import Need
from backends.llama_cpp.config import LlamaCppConfig
from tests.rigs.fleet import Relays, managed, one, running

A, B = Gpu("GPU-a", 0, 80.0, used_gb=1.0), Gpu("GPU-b", 1, 80.0, used_gb=1.0)
US = os.getpid()
GONE = 2**22 + 1  # above the largest process id that Linux gives


def used(gb: float, *users: tuple[int, float | None]) -> Gpu:
    return replace(A, used_gb=gb, users=users)


LOOKS: dict[str, tuple[Gpu, Gpu, Collection[int], bool, float]] = {
    "as before": (used(1), used(1), [], False, 0),
    "a little more, as drivers keep for themselves": (used(1), used(2.5), [], False, 0),
    "much more, and nobody's": (used(1), used(31), [], False, 30),
    "more, of a process that came meanwhile": (used(1), used(31, (7, 30.0)), [7], False, 0),
    "more, of a process that was there before": (used(21, (7, 20.0)), used(41, (7, 40.0)), [], False, 0),
    "another has left and we have not": (used(41, (7, 40.0)), used(31), [], False, 30),
    "remains of ours, still listed": (used(1), used(31, (9, 30.0)), [], False, 30),
    "another's size is kept from us": (used(21, (7, None)), used(41, (7, None)), [7], False, 0),
    "sizes are kept from us, and ours is listed": (used(21, (7, None)), used(41, (7, None), (9, None)), [7], False, 20),
    "a neighbour of ours that is not shown": (used(1), used(31), [], True, 0),
    "a neighbour of ours that is shown": (used(1), used(61, (7, 30.0)), [7], True, 30),
    "less than before": (used(31), used(1), [], False, 0),
}


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_missing_is_what_is_in_use_and_nobodys(name: str) -> None:
    before, now, alive, is_shared, expected = LOOKS[name]

    assert missing_gb(before, now, alive, is_shared) == pytest.approx(expected)


@dataclass
class Port:
    """The GPUs as they are told, one answer after the other; the last one again and again."""

    answers: list[Sequence[Gpu]]
    asked: int = 0

    def __call__(self) -> Sequence[Gpu]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def quarantine_of(port: Port, within_s: float = 600.0) -> GpuQuarantine:
    return GpuQuarantine(port, within_s=within_s, poll_s=0.001, recheck_s=0.001)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - nobody tells of what is waited for
            await asyncio.sleep(0.001)


async def test_memory_that_comes_late_is_waited_for() -> None:
    port = Port([[used(31), B], [used(31), B], [], [used(1), B]])
    quarantine = quarantine_of(port)

    await quarantine.wait_until_free("gpu", [A])

    assert port.asked == 4
    assert quarantine.quarantined == {}


async def test_memory_that_does_not_come_puts_its_gpu_in_quarantine_until_it_does() -> None:
    port = Port([[used(31), B]])
    quarantine, lifted = quarantine_of(port, within_s=0), asyncio.Event()
    quarantine.on_lifted = lifted.set

    await quarantine.wait_until_free("gpu", [A, B])
    assert quarantine.quarantined == {"GPU-a": Quarantine("GPU-a", "gpu", 30.0)}
    assert quarantine.quarantined["GPU-a"].reason == ("GPU-a is in quarantine: 30 GB of it did not come back after gpu")
    asked = port.asked
    await until(lambda: port.asked > asked + 1)
    assert not lifted.is_set()
    port.answers = [[used(1), B]]

    async with asyncio.timeout(60):
        await lifted.wait()
    assert quarantine.quarantined == {}
    await quarantine.close()


async def test_a_gpu_that_cannot_be_read_any_more_is_in_quarantine() -> None:
    quarantine = quarantine_of(Port([[B]]), within_s=0)

    await quarantine.wait_until_free("gpu", [A])

    assert quarantine.quarantined["GPU-a"].missing_gb is None
    assert "could not be read" in quarantine.quarantined["GPU-a"].reason
    await quarantine.close()


async def test_where_no_process_is_shown_a_gpu_with_room_for_the_share_is_used_again() -> None:
    port = Port([[used(4)]])
    quarantine, lifted = quarantine_of(port, within_s=0), asyncio.Event()
    quarantine.on_lifted = lifted.set

    await quarantine.wait_until_free("gpu", [A], 0.9)
    assert list(quarantine.quarantined) == ["GPU-a"]

    async with asyncio.timeout(20):
        await lifted.wait()
    assert quarantine.quarantined == {}
    await quarantine.close()


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (used(1), used(4), True),
        (used(1), used(31), False),
        (used(1), used(4, (GONE, 3.0)), False),
        (used(1, (7, None)), used(4), False),
    ],
)
def test_what_may_be_somebody_elses_leaves_room_and_has_no_process(before: Gpu, now: Gpu, expected: bool) -> None:
    assert may_be_used(before, now, 0.9) is expected


async def test_a_driver_that_never_answers_holds_nobody_up() -> None:
    answers, asked = threading.Event(), []

    def hangs() -> Sequence[Gpu]:
        asked.append(1)
        answers.wait(60)
        return [used(1)]

    quarantine = GpuQuarantine(hangs, within_s=0, poll_s=0.001, recheck_s=0.001, answer_s=0.01)

    async with asyncio.timeout(20):
        await quarantine.wait_until_free("gpu", [A])
    assert quarantine.quarantined["GPU-a"].missing_gb is None
    assert await quarantine.read(["GPU-a"]) == ()
    assert asked == [1], "it is not asked again before it has answered"
    assert all(each.daemon for each in threading.enumerate() if each.name == "GPUs")
    answers.set()
    await until(lambda: not quarantine.quarantined)
    async with asyncio.timeout(20):
        await quarantine.close()


async def test_the_administrator_ends_a_quarantine_whatever_the_gpu_looks_like() -> None:
    port = Port([[used(31)]])
    quarantine, lifted = quarantine_of(port, within_s=0), asyncio.Event()
    quarantine.on_lifted = lifted.set
    await quarantine.wait_until_free("gpu", [A])

    quarantine.lift()

    assert quarantine.quarantined == {}
    assert lifted.is_set()
    async with asyncio.timeout(60):
        await quarantine.close()


async def test_nobody_waits_for_memory_when_the_gateway_ends() -> None:
    port = Port([[used(31)]])
    quarantine = quarantine_of(port)
    waiting = asyncio.create_task(quarantine.wait_until_free("gpu", [A]))
    await until(lambda: port.asked > 2)

    async with asyncio.timeout(60):
        await quarantine.close()
        await waiting

    assert quarantine.quarantined == {}


async def test_a_process_that_lives_is_somebody_elses_and_one_that_does_not_is_ours() -> None:
    quarantine = quarantine_of(Port([[used(31, (US, 30.0))]]), within_s=0)
    await quarantine.wait_until_free("gpu", [A])
    assert quarantine.quarantined == {}

    quarantine = quarantine_of(Port([[used(31, (GONE, 30.0))]]), within_s=0)
    await quarantine.wait_until_free("gpu", [A])
    assert list(quarantine.quarantined) == ["GPU-a"]
    await quarantine.close()


async def test_what_an_engine_took_of_its_gpus_is_the_difference() -> None:
    quarantine = quarantine_of(Port([[used(41), replace(B, used_gb=31.5)]]))

    assert await quarantine.taken_gb([A, B]) == 70.5
    assert await quarantine.taken_gb([]) is None


# -- NVML's own answers


class Nvml:
    """pynvml's functions as nvidia-ml-py documents them: sizes in bytes, errors raised as NVMLError."""

    class NVMLError(Exception):
        pass

    def __init__(self, lost: int | None = None) -> None:
        self.is_open = False
        self._lost = lost

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index == self._lost:
            raise self.NVMLError("GPU is lost")
        return f"GPU-{index}"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if handle == "GPU-0":
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, part: int) -> str:
        if part == 1:
            raise self.NVMLError("Not Found")
        return f"MIG-{part}"

    def nvmlDeviceGetUUID(self, handle: str) -> bytes | str:
        return handle.encode() if handle == "GPU-0" else handle

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total=80_000_000_000, used=3_000_000_000, free=77_000_000_000)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        if handle.startswith("MIG"):
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=37, memory=5)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        if handle.startswith("MIG"):
            raise self.NVMLError("Insufficient Permissions")
        return [SimpleNamespace(pid=7, usedGpuMemory=2_000_000_000), SimpleNamespace(pid=5, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=7, usedGpuMemory=2_000_000_000)]


def test_gpus_are_read_with_what_is_used_and_by_whom() -> None:
    library = Nvml()
    users = ((5, None), (7, 2.0))

    assert nvml(library) == (
        Gpu("GPU-0", 0, 80.0, used_gb=3.0, users=users),
        Gpu("GPU-1", 1, 80.0, is_split=True, used_gb=3.0, users=users),
        Gpu("MIG-0", 1, 80.0, is_mig=True, used_gb=3.0, users=((7, 2.0),)),
        Gpu("MIG-2", 1, 80.0, is_mig=True, used_gb=3.0, users=((7, 2.0),)),
    )
    assert not library.is_open


def test_the_stand_in_has_no_function_that_the_library_has_not() -> None:
    library = importlib.import_module("pynvml")

    names = [name for name in vars(Nvml) if name.lower().startswith("nvml")]
    assert [name for name in names if not callable(getattr(library, name, None))] == []
    assert len(names) == 13
    assert {name for name, _ in library.c_nvmlUtilization_t._fields_} >= {"gpu"}
    assert {name for name, _ in library.c_nvmlMemory_t._fields_} >= {"total", "used"}
    assert {name for name, _ in library.c_nvmlProcessInfo_t._fields_} >= {"pid", "usedGpuMemory"}


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    assert [gpu.uuid for gpu in nvml(Nvml(lost=1))] == ["GPU-0"]
    assert [load.uuid for load in devices.loads(Nvml(lost=1))] == ["GPU-0"]


def test_loads_are_those_of_whole_gpus_and_of_the_parts_of_the_others() -> None:
    library = Nvml()

    assert devices.loads(library) == (
        GpuLoad("GPU-0", 3_000_000_000, 80_000_000_000, 0.37),
        GpuLoad("MIG-0", 3_000_000_000, 80_000_000_000),
        GpuLoad("MIG-2", 3_000_000_000, 80_000_000_000),
    )
    assert not library.is_open


def test_gpus_that_cannot_be_asked_about_are_known_to_be_there(tmp_path: Path) -> None:
    assert not devices.has_accelerators(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert devices.has_accelerators(tmp_path)


# -- a fleet on them


class OnGpu(LlamaCppConfig):
    """A fake engine that wants a whole GPU."""

    def need(self) -> Need:
        return replace(super().need(), gpus=1)


def on_gpu(**values: object) -> OnGpu:
    return OnGpu.model_validate({"kind": "llama_cpp", "model": "plain", **values})


async def test_nothing_starts_on_a_gpu_before_the_memory_of_the_last_engine_is_back() -> None:
    relays, port = Relays(), Port([[used(1)]])
    bounds = Capacity(Machine(gpus=(A,)), swap_after_s=0.01)
    waits = quarantine_of(port)
    async with running(relays, bounds, quarantine=waits, a=on_gpu(), b=on_gpu(start="demand")) as fleet:
        await relays.until_state("a", State.READY)
        assert one(fleet, "a").devices == ("GPU-a",)
        port.answers = [[used(31)]]
        wanted = asyncio.create_task(fleet.wanted("b"))
        await relays.until_state("a", State.STOPPED)
        asked = port.asked
        await until(lambda: port.asked > asked + 3)
        assert one(fleet, "b").generation == 0
        assert one(fleet, "a").devices == ("GPU-a",), "its place is kept"

        port.answers = [[used(1)]]

        assert (await wanted).is_ready
        assert one(fleet, "b").devices == ("GPU-a",)


async def test_a_gpu_in_quarantine_is_said_avoided_and_used_again_when_its_memory_is_back() -> None:
    relays, port = Relays(), Port([[used(1), B]])
    bounds = Capacity(Machine(gpus=(A, B)))
    waits = quarantine_of(port, within_s=0)
    async with running(relays, bounds, quarantine=waits, a=on_gpu(), b=on_gpu(start="demand")) as fleet:
        await relays.until_state("a", State.READY)
        assert one(fleet, "a").devices == ("GPU-a",)
        port.answers = [[used(31), B]]

        await fleet.restart("a")
        await relays.until_state("a", State.READY, generation=2)
        assert [each.device for each in fleet.quarantined] == ["GPU-a"]
        assert one(fleet, "a").devices == ("GPU-b",)

        await fleet.stop("a")
        await until(lambda: one(fleet, "a").devices == ())
        assert (await fleet.wanted("b")).is_ready
        assert one(fleet, "b").devices == ("GPU-b",), "another one does not go there either"

        port.answers = [[used(1), B]]
        await until(lambda: not fleet.quarantined)
        await fleet.start("a")
        await relays.until_state("a", State.READY, generation=3)
        assert one(fleet, "a").devices == ("GPU-a",)


async def test_what_has_no_gpu_but_one_in_quarantine_says_so_and_starts_by_itself_after_a_reload() -> None:
    relays, port = Relays(), Port([[used(1)]])
    bounds = Capacity(Machine(gpus=(A,)))
    waits = GpuQuarantine(port, within_s=0, poll_s=0.001, recheck_s=600)
    async with running(relays, bounds, quarantine=waits, a=on_gpu()) as fleet:
        await relays.until_state("a", State.READY)
        port.answers = [[used(31)]]

        await fleet.restart("a")
        await relays.until(lambda: relays.row("a").reason is not None)
        row = relays.row("a")
        assert row.state is State.STOPPED
        assert row.reason is not None
        assert "GPU-a is in quarantine: 30 GB of it did not come back after a" in row.reason

        fleet.share(bounds)

        await relays.until_state("a", State.READY, generation=2)
        assert not fleet.quarantined


async def test_a_gateway_that_ends_starts_nothing_though_memory_comes_back_at_that_moment() -> None:
    relays, port = Relays(), Port([[used(1)]])
    waits = GpuQuarantine(port, within_s=0, poll_s=0.001, recheck_s=600)
    async with running(relays, Capacity(Machine(gpus=(A,))), quarantine=waits, a=on_gpu()) as fleet:
        await relays.until_state("a", State.READY)
        port.answers = [[used(31)]]
        await fleet.restart("a")
        await relays.until_state("a", State.STOPPED)
        port.answers = [[used(1)]]

        await fleet.close(0)

        assert one(fleet, "a").generation == 1


async def test_an_engine_without_a_gpu_never_waits_for_one() -> None:
    relays, port = Relays(), Port([[used(31)]])
    async with running(relays, quarantine=quarantine_of(port), a=managed()) as fleet:
        await relays.until_state("a", State.READY)
        await fleet.restart("a")
        await relays.until_state("a", State.READY, generation=2)

    assert port.asked == 0
