"""What the kernel knows about processes and the machine: CPU time, memory, cores, descendants."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

_PROC = Path("/proc")


class Unfit(Exception):
    """This machine cannot run the benchmark; the message says why and what to do."""


def exit_code(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace, Console], int], width: int) -> int:
    """What `run` returns for the arguments of the command line; 2, and why, where this machine is unfit. `width`: of
    what is printed where there is no terminal, in characters."""
    console = Console(width=None if sys.stdout.isatty() else width)
    try:
        return run(parser.parse_args(), console)
    except Unfit as exc:
        console.print(f"bench: {exc}", style="red", markup=False)
        return 2


def cores() -> tuple[int, int]:
    """Two cores: one for what is measured, one for everything else. Unfit where there are not two."""
    if not hasattr(os, "sched_getaffinity") or not _PROC.joinpath("self/schedstat").exists():
        raise Unfit("CPU time per thread comes from /proc/PID/task/*/schedstat, which only Linux has")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise Unfit(f"two cores are needed, one for the gateway and one for the load; usable here: {len(usable)}")
    return usable[0], usable[1]


@contextlib.contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """What is started inside runs on these cores only, with all its threads and children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_ns(pid: int) -> int:
    """CPU time of all threads that a process has now, in nanoseconds."""
    return sum(int(task.read_text().split()[0]) for task in _PROC.glob(f"{pid}/task/*/schedstat"))


def cpu_shares_ns(pid: int) -> tuple[int, int]:
    """CPU time of a process now, in its own code and in the system's for it, in nanoseconds; a hundredth of a second
    exact.
    """
    words = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return int(words[11]) * tick_ns, int(words[12]) * tick_ns


def rss_bytes(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def connections(pid: int, port: int) -> int:
    """How many connections a process has to its clients at that local port."""
    established = set()
    for line in (_PROC / "net" / "tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "01" and int(words[1].rpartition(":")[2], 16) == port:
            established.add(f"socket:[{words[9]}]")
    held = 0
    for link in (_PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            held += str(link.readlink()) in established
    return held


def argv(pid: int) -> list[str]:
    """The arguments of a process; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def children(pid: int) -> list[int]:
    """The ids of the processes whose parent it is."""
    pids: list[int] = []
    for listing in _PROC.glob(f"{pid}/task/*/children"):
        pids.extend(int(word) for word in listing.read_text().split())
    return pids


def version_of(python: str) -> str:
    """The version of an interpreter, as `3.13`; Unfit where it is none."""
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as exc:
        raise Unfit(f"{python} is not a Python interpreter: {exc}") from exc


def in_words() -> str:
    """The machine in one line: cores, processor, memory, kernel, and how busy it was in the last five minutes."""
    name = "unknown CPU"
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    kernel = platform.release().split("-")[0]
    cores = len(os.sched_getaffinity(0))
    load = f"load average {os.getloadavg()[1]:.1f} (the benchmark alone: 1 to 2)"
    return f"{cores} cores of {name}, {memory_gb:.0f} GB, Linux {kernel} ({platform.machine()}), {load}"
