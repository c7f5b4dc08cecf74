"""Where engines run, as tables: what there is, what is taken, what one needs, what it gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.supervisor.capacity import devices
from app.supervisor.capacity.placement import Allocation, DoesNotFit, Gpu, Machine, place, visible
from backends.engine import Need

HOST = Machine(8.0)
TWO = Machine(64.0, (Gpu("GPU-a", 0, 80), Gpu("GPU-b", 1, 80)))
CUT = Machine(
    64.0,
    (
        Gpu("GPU-a", 0, 80),
        Gpu("GPU-b", 1, 80, is_split=True),
        Gpu("MIG-1", 1, 20, is_mig=True),
        Gpu("MIG-2", 1, 20, is_mig=True),
    ),
)

PLACES: dict[str, tuple[Machine, list[Allocation], Need, Allocation | str]] = {
    "memory that is free": (HOST, [Allocation(4)], Need(4), Allocation(4)),
    "memory that is not": (HOST, [Allocation(4)], Need(5), "it needs 5 GB of memory, and 4 of 8 are free"),
    "more memory than there is": (HOST, [], Need(9), "it needs 9 GB of memory, and 8 of 8 are free"),
    "decimal fractions": (Machine(0.3), [Allocation(0.1), Allocation(0.1)], Need(0.1), Allocation(0.1)),
    "a guess that is free": (HOST, [Allocation(4)], Need(4, is_guess=True), Allocation(4)),
    "a guess that is not": (
        HOST,
        [Allocation(4)],
        Need(5.125, is_guess=True),
        "it needs about 5.12 GB of memory, and 4 of 8 are free",
    ),
    "a guess beyond the machine, alone": (HOST, [], Need(9, is_guess=True), Allocation(8.0)),
    "a guess beyond the machine, beside others": (HOST, [Allocation(1)], Need(9, is_guess=True), "it needs about 9 GB"),
    "memory in large numbers": (
        Machine(2048.0),
        [],
        Need(4096),
        "it needs 4096 GB of memory, and 2048 of 2048 are free",
    ),
    "nothing needed": (Machine(1), [Allocation(1)], Need(), Allocation()),
    "no GPU here, so the CPU": (HOST, [], Need(1, gpus=2), Allocation(1)),
    "a free GPU": (TWO, [Allocation(0, ("GPU-a",), 0.9)], Need(0, gpus=1), Allocation(0, ("GPU-b",), 1.0)),
    "the emptiest GPU": (
        TWO,
        [Allocation(0, ("GPU-a",), 0.3)],
        Need(0, gpus=1, share=0.5),
        Allocation(0, ("GPU-b",), 0.5),
    ),
    "shares that leave room": (
        Machine(8, (Gpu("GPU-a", 0),)),
        [Allocation(0, ("GPU-a",), 0.45)],
        Need(0, gpus=1, share=0.55),
        Allocation(0, ("GPU-a",), 0.55),
    ),
    "shares that leave none": (
        TWO,
        [Allocation(0, ("GPU-a", "GPU-b"), 0.5)],
        Need(0, gpus=1, share=0.6),
        "it needs 60% of 1 GPUs, and 0 have so much free",
    ),
    "both GPUs, in their order": (TWO, [], Need(0, gpus=2, share=0.9), Allocation(0, ("GPU-a", "GPU-b"), 0.9)),
    "more GPUs than there are": (TWO, [], Need(0, gpus=3), "it needs 3 GPUs, and there are 2"),
    "named by index": (TWO, [], Need(0, gpus=1, named=("1",)), Allocation(0, ("GPU-b",), 1.0)),
    "named by identifier": (TWO, [], Need(0, named=("GPU-b", "GPU-a")), Allocation(0, ("GPU-b", "GPU-a"), 1.0)),
    "named and taken": (
        TWO,
        [Allocation(0, ("GPU-b",), 0.9)],
        Need(0, named=("1",), share=0.2),
        "device 1 (GPU-b) is taken: 10% of it are free",
    ),
    "named and not here": (
        TWO,
        [],
        Need(0, named=("7",)),
        "it is to run on device 7, which does not exist here (known: 0 (GPU-a), 1 (GPU-b))",
    ),
    "named where there is no GPU": (
        HOST,
        [],
        Need(0, named=("0",)),
        "it is to run on device 0, which does not exist here (known: none)",
    ),
    "named twice": (TWO, [], Need(0, named=("0", "GPU-a")), "device GPU-a is named twice"),
    "too few named": (TWO, [], Need(0, gpus=2, named=("0",)), "it needs 2 GPUs and 1 are named"),
    "MIG only when named": (
        CUT,
        [Allocation(0, ("GPU-a",), 1)],
        Need(0, gpus=1),
        "100% of 1 GPUs, and 0 have so much free",
    ),
    "no GPU that is whole": (
        Machine(8.0, CUT.gpus[1:]),
        [],
        Need(0, gpus=1),
        "it needs 1 GPUs, and there are 0 (MIG devices are used only where `devices` names them)",
    ),
    "tensor parallel on one MIG device": (
        CUT,
        [],
        Need(0, gpus=2, named=("MIG-1",)),
        "it needs 2 GPUs and 1 are named",
    ),
    "a MIG device by name": (CUT, [], Need(0, gpus=1, named=("MIG-2",)), Allocation(0, ("MIG-2",), 1.0)),
    "a MIG device serves one": (
        CUT,
        [Allocation(0, ("MIG-2",), 0.4)],
        Need(0, named=("MIG-2",), share=0.4),
        "device 1 (MIG-2) is taken: 60% of it are free",
    ),
    "no tensor parallel over MIG": (CUT, [], Need(0, named=("MIG-1", "MIG-2")), "without tensor parallel: name one"),
    "named on a machine whose GPUs cannot be asked": (
        Machine(8.0, has_unknown_gpus=True),
        [],
        Need(0, named=("0",)),
        "there are others, which NVML does not list",
    ),
    "a GPU that is cut": (CUT, [], Need(0, named=("1",)), "device 1 is cut into MIG devices: name one of these"),
}


@pytest.mark.parametrize("name", PLACES)
def test_an_engine_is_placed_as_the_table_says(name: str) -> None:
    machine, taken, need, expected = PLACES[name]

    placed = place(need, machine, taken)

    if isinstance(expected, Allocation):
        # A MIG device is taken as a whole, whatever the engine's own share of it is.
        assert placed == expected
    else:
        assert isinstance(placed, DoesNotFit)
        assert expected in placed.reason


@pytest.mark.parametrize(
    ("chosen", "uuids"),
    [
        (None, ["GPU-a", "GPU-b", "MIG-1", "MIG-2"]),
        ("", []),
        ("0", ["GPU-a"]),
        ("1,0", ["GPU-b", "MIG-1", "MIG-2", "GPU-a"]),
        ("MIG-2", ["MIG-2"]),
        ("GPU-a", ["GPU-a"]),
        ("0,7,1", ["GPU-a"]),
        ("-1", []),
    ],
)
def test_only_what_the_gateway_may_see_itself_is_given_to_engines(chosen: str | None, uuids: Sequence[str]) -> None:
    assert [gpu.uuid for gpu in visible(CUT.gpus, chosen)] == uuids


@given(
    st.lists(
        st.builds(
            Need,
            memory_gb=st.floats(0, 40),
            gpus=st.integers(0, 3),
            share=st.sampled_from([0.1, 0.3, 0.45, 0.9, 1.0]),
        ),
        max_size=12,
    )
)
def test_whatever_is_placed_nothing_is_given_twice(needs: list[Need]) -> None:
    taken: list[Allocation] = []

    for need in needs:
        placed = place(need, TWO, taken)
        if isinstance(placed, Allocation):
            taken.append(placed)

    assert math.fsum(each.memory_gb for each in taken) <= TWO.memory_gb + 1e-5
    for gpu in TWO.gpus:
        assert math.fsum(each.share for each in taken if gpu.uuid in each.devices) <= 1 + 1e-5


@pytest.mark.parametrize(
    ("limit", "gigabytes"), [("max", 16.384), ("2000000000", 2.0), ("", 16.384)], ids=["host", "container", "nothing"]
)
def test_the_memory_is_the_hosts_or_the_containers(tmp_path: Path, limit: str, gigabytes: float) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    if limit:
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")

    assert devices.host_memory_gb(tmp_path) == gigabytes


def test_the_machine_is_what_is_configured_and_what_the_port_tells() -> None:
    machine = devices.machine(4.0, {"CUDA_VISIBLE_DEVICES": "1"}, lambda: TWO.gpus)

    assert machine == Machine(4.0, (TWO.gpus[1],))
    assert devices.machine(None, {}, lambda: ()).memory_gb > 0


def test_free_memory_is_counted_as_vllm_counts_it(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal: 9000000 kB\nMemFree: 1000000 kB\nMemAvailable: 5 kB\nActive(file): 500000 kB\n"
        "Inactive(file): 250000 kB\nSReclaimable: 250000 kB\nHugePages_Total: 0\n"
    )

    assert devices.free_memory_gb(tmp_path) == 2.048
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("3000000000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("2500000000\n")
    assert devices.free_memory_gb(tmp_path) == 0.5
    assert devices.free_memory_gb(tmp_path / "none") is None
