"""The system: Python, processor, libraries, clock, limits. Pure."""

from __future__ import annotations

import datetime
from typing import Final

from app.doctor.diagnosis import Says, error, ok, warn
from app.doctor.facts import SHM, MachineFacts
from app.supervisor.capacity.forecast import SMALL_SHM_BYTES
from app.supervisor.open_files import connections
from backends.huggingface.cache import in_words
from backends.inspection import Inspection

OLDEST_PYTHON: Final = (3, 11)
SMALL_SHM_WARN_BYTES: Final = 1 << 30
DAY_S: Final = 86_400.0
JUMP_S: Final = 2.0
_SYSTEMS: Final = ("Linux", "Darwin")


def used(facts: MachineFacts) -> list[tuple[str, Inspection]]:
    """What there is to look at of the backends that are configured."""
    return [(name, each) for name, each in facts.inspections if name is not None]


def python(facts: MachineFacts) -> Says:
    """Version and system."""
    version = ".".join(map(str, facts.python))
    if facts.python[:2] < OLDEST_PYTHON:
        yield error(f"Python {version}", "Install Python 3.11 or newer, and Modelport in it.")
    elif facts.system.partition(" ")[0] not in _SYSTEMS:
        yield warn(f"Python {version} on {facts.system}", "Run the gateway on Linux or macOS; others are not tried.")
    else:
        yield ok(f"Python {version} on {facts.system}")


def processor(facts: MachineFacts) -> Says:
    """What engines ask of an x86 processor."""
    lacking: dict[str, list[str]] = {}
    for name, each in used(facts):
        for flag in each.processor if facts.processor is not None else ():
            if flag not in (facts.processor or ()):
                lacking.setdefault(flag, []).append(name)
    for flag, names in lacking.items():
        yield error(
            f"the processor has no {flag.upper()}, and {', '.join(names)} computes with it",
            "Serve the model on another machine, or, in a virtual machine, pass the host's processor on (cpu: host).",
        )
    if not lacking:
        yield ok("it has what the engines ask for" if facts.processor is not None else f"{facts.system}: nothing known")


def libraries(facts: MachineFacts) -> Says:
    """The shared libraries that engines load."""
    on_cpu = not facts.gpu.gpus
    needed: dict[tuple[str, str], list[str]] = {}
    for name, each in used(facts):
        for library in each.libraries:
            if on_cpu or not library.only_on_cpu:
                needed.setdefault((library.file, library.package), []).append(name)
    lacking = {key: names for key, names in needed.items() if not facts.libraries.get(key[0], True)}
    for (file, package), names in lacking.items():
        yield error(
            f"{file} is not there, and {', '.join(names)} cannot start without it",
            f"Install {package} (Debian, Ubuntu: apt-get install {package}).",
        )
    if not lacking:
        files = ", ".join(sorted(file for file, _ in needed))
        yield ok(f"{files} can be loaded" if files else "no backend needs one of the system's")


def clock(facts: MachineFacts) -> Says:
    """Certificates and the ends of keys are read by it."""
    today = datetime.datetime.fromtimestamp(facts.now, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if facts.now < facts.built_at - DAY_S:
        built = datetime.datetime.fromtimestamp(facts.built_at, datetime.UTC).strftime("%Y-%m-%d")
        yield error(
            f"it is {today}, and this program was installed on {built}",
            "Set the clock (timedatectl set-ntp true): keys end by it, and certificates are refused.",
        )
    elif abs(facts.jumped_s) > JUMP_S:
        yield warn(
            f"it was set by {facts.jumped_s:+.0f} s while this was written",
            "Look at what sets it (timedatectl, chronyc tracking): keys end by it, and logs lose their order.",
        )
    else:
        yield ok(today)


def container(facts: MachineFacts) -> Says:
    """The limits of our control group."""
    limits = facts.container
    where = "container" if limits.is_container else "control group"
    memory = f"{in_words(limits.memory_bytes)} of memory" if limits.memory_bytes is not None else ""
    cores = f"{limits.cores:g} cores" if limits.cores is not None else ""
    said = " and ".join(filter(None, (memory, cores)))
    if limits.cores is not None and limits.cores < 1:
        yield warn(
            f"the {where} may use {limits.cores:g} of a core",
            "Give it one for each relay, and what engines compute on (docker: --cpus; systemd: CPUQuota=).",
        )
    elif said:
        yield ok(f"the {where} may use {said}")
    else:
        yield ok(f"in a {where} without limits" if limits.is_container else "no limits of memory or processor time")


def shared_memory(facts: MachineFacts) -> Says:
    """Through which the workers of one engine talk."""
    config = facts.config.config
    runs = {name: each.as_managed() for name, each in config.backends.items()} if config is not None else {}
    shared = {name: run.workers() for name, run in runs.items() if run is not None and run.workers() > 1}
    if facts.shm_bytes is None:
        yield ok(f"this system has no {SHM}")
        return
    size = in_words(facts.shm_bytes)
    advice = "Start the container with --shm-size=16g or --ipc=host (Compose: shm_size: 16gb, or ipc: host)."
    for name, workers in shared.items():
        if facts.shm_bytes <= SMALL_SHM_BYTES:
            yield error(f"{SHM} has {size}, and the {workers} workers of {name} need more of it to start", advice)
        elif facts.shm_bytes < SMALL_SHM_WARN_BYTES:
            yield warn(f"{SHM} has {size}, which is little for the {workers} workers of {name}", advice)
    if not shared:
        yield ok(f"{SHM} has {size}; no backend uses several workers")
    elif facts.shm_bytes >= SMALL_SHM_WARN_BYTES:
        yield ok(f"{SHM} has {size}")


def open_files(facts: MachineFacts) -> Says:
    """The limit of open files against `server.max_connections`."""
    if facts.open_files is None:
        yield ok("no limit of open files")
        return
    config = facts.config.config
    wanted = config.server.max_connections if config is not None else 0
    possible = connections(facts.open_files) or 0
    if possible < wanted:
        yield warn(
            f"{facts.open_files} open files are allowed: {possible} connections per relay instead of {wanted} "
            "(server.max_connections)",
            f"Allow {2 * wanted + 64} (ulimit -Hn; systemd: LimitNOFILE=; docker: --ulimit nofile=).",
        )
    else:
        yield ok(f"{facts.open_files} open files are allowed")
