"""The limits of a control group, of both versions, in a container and outside of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.supervisor.capacity import control_group, devices

GB = 10**9
# What /proc/self/cgroup says, the files below /sys/fs/cgroup, and what it comes to: memory, what is left of it, cores.
GROUPS: Mapping[str, tuple[str, Mapping[str, str], int | None, int | None, float | None]] = {
    "no groups": ("", {}, None, None, None),
    "a container": (
        "0::/",
        {"memory.max": f"{2 * GB}", "memory.current": f"{GB}", "cpu.max": "150000 100000"},
        2 * GB,
        GB,
        1.5,
    ),
    "no limits": ("0::/", {"memory.max": "max", "memory.current": "5", "cpu.max": "max 100000"}, None, None, None),
    "a service": (
        "0::/system.slice/modelport.service",
        {
            "system.slice/modelport.service/memory.max": f"{8 * GB}",
            "system.slice/modelport.service/memory.current": f"{GB}",
            "system.slice/memory.max": "max",
            "system.slice/cpu.max": "200000 100000",
            "system.slice/modelport.service/cpu.max": "max 100000",
        },
        8 * GB,
        7 * GB,
        2.0,
    ),
    "a slice with less than its service": (
        "0::/a.slice/b.service",
        {
            "a.slice/b.service/memory.max": f"{8 * GB}",
            "a.slice/b.service/memory.current": f"{GB}",
            "a.slice/memory.max": f"{4 * GB}",
            "a.slice/memory.current": f"{4 * GB}",
        },
        4 * GB,
        0,
        None,
    ),
    "version 1": (
        "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n",
        {
            "memory/docker/x/memory.limit_in_bytes": f"{3 * GB}",
            "memory/docker/x/memory.usage_in_bytes": f"{GB}",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": f"{5 * GB}",
            "cpu/docker/x/cpu.cfs_quota_us": "50000",
            "cpu/docker/x/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
        3 * GB,
        2 * GB,
        0.5,
    ),
    "version 1 in a container": (
        "4:memory:/docker/x\n",
        {"memory/memory.limit_in_bytes": f"{GB}", "memory/memory.usage_in_bytes": "0"},
        GB,
        GB,
        None,
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_the_least_limit_of_all_groups_around_us_counts(tmp_path: Path, group: str) -> None:
    membership, files, memory, left, cores = GROUPS[group]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    assert control_group.memory_bytes(tmp_path) == memory
    assert control_group.memory_left_bytes(tmp_path) == left
    assert control_group.cores(tmp_path) == cores


def test_the_machines_memory_is_what_the_service_may_use(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/modelport.service\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 64000000 kB\n")
    group = tmp_path / "sys/fs/cgroup/system.slice/modelport.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("8000000000\n")

    assert devices.host_memory_gb(tmp_path) == 8.0
