"""Everything that the doctor sees, gathered once. Whatever hangs holds up nothing else, and is named."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from app.config.load import load_all
from app.config.model import Config, ServerConfig
from app.config.settings import CONTROL_SOCKET, ServeOptions, resolve, state_folder
from app.config.warnings import warnings
from app.config.yaml_document import ConfigError
from app.doctor.facts import (
    HUB,
    SHM,
    ConfigFacts,
    ContainerFacts,
    GatewayFacts,
    GpuFacts,
    MachineFacts,
    PortFacts,
    ToolFacts,
)
from app.doctor.looking import engines, store, system
from app.doctor.looking.deadlines import Jobs, all_within
from app.supervisor.admin.plan_schemas import PlanAnswer
from app.supervisor.capacity import devices, report
from app.supervisor.capacity.measurements import MeasurementStore
from app.supervisor.state_folder import MEASUREMENTS
from backends.inspection import Inspection
from backends.toolenv import build
from backends.toolenv.environment import tools_folder
from backends.toolenv.failures import ToolError
from backends.toolenv.tools import TOOLS

DEADLINE_S: Final = 30.0
_GATEWAY_S: Final = 5.0
_NAMED: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
_ROOT: Final = Path(__file__).resolve().parents[2]


def look(env: Mapping[str, str], config: Path | None, state: Path | None, now: Callable[[], float]) -> MachineFacts:
    """What there is to see with this configuration and state folder (None: the ones that a start would take).

    `now`: seconds since 1970. Blocks, for DEADLINE_S at worst; nothing is started, made or changed.
    """
    began, began_monotonic = now(), time.monotonic()
    read, options = _configuration(env, config, state)
    where = options.state if options is not None else None
    listed = engines.inspections(read.config)
    hub_folders = engines.hub_folders([each for name, each in listed if name is not None and each.hub], env)
    jobs = {**_of_system(env), **_of_configuration(read, env), **_of_state(read, env, where), **_of(listed, env)}
    jobs |= {("disk", f"the models of the hub, {folder},"): partial(system.disk, HUB, folder) for folder in hub_folders}
    results, late = all_within(DEADLINE_S, jobs)
    programs = tuple(results[job] for job in jobs if job[0] == "programs" and results.get(job) is not None)
    disks = tuple(results[job] for job in jobs if job[0] == "disk" and job in results)
    ended = now()
    return MachineFacts(
        env=dict(env),
        user=os.getuid(),
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        system=f"{platform.system()} {platform.machine()}",
        now=ended,
        jumped_s=(ended - began) - (time.monotonic() - began_monotonic),
        built_at=max(path.stat().st_mtime for path in _ROOT.glob("*.py")),
        config=results.get(("config", "its files"), read),
        inspections=tuple(listed),
        libraries=results.get(("libraries", "libraries"), {}),
        processor=results.get(("processor", "processor")),
        open_files=_open_files(),
        shm_bytes=results.get(("shared-memory", SHM)),
        container=results.get(("container", "control group"), ContainerFacts()),
        gpu=results.get(("gpu", "NVML"), GpuFacts()),
        state=results.get(("state-folder", "state folder")),
        disks=disks,
        tools=results.get(("tools", "tool environments")),
        ports=results.get(("port", "ports"), ()),
        collector=results.get(("traces", "collector")),
        store=results.get(("store", "store")),
        usage=results.get(("usage", "records")),
        programs=programs,
        attached=results.get(("attached", "engines of others"), ()),
        hub=results.get(("hub", "cache"), ()),
        plan=results.get(("memory", "models")),
        gateway=results.get(("gateway", "gateway")),
        late=late,
    )


def _configuration(
    env: Mapping[str, str], config: Path | None, state: Path | None
) -> tuple[ConfigFacts, ServeOptions | None]:
    """The configuration, and the options of a start; None where the environment gives none."""
    try:
        options = resolve(env, config=config, state=state, insecure_no_key=True)
    except ConfigError as exc:
        named = state or (Path(name) if (name := env.get("MODELPORT_STATE")) else None)
        try:
            return ConfigFacts(None, config, tuple(exc.errors)), ServeOptions(state_folder(named), env=env)
        except ConfigError:  # it is the folder's path
            return ConfigFacts(None, config, tuple(exc.errors)), None
    source = options.config_path
    variables: frozenset[str] = frozenset()
    if source is not None and source.is_file():
        variables = frozenset(_NAMED.findall(source.read_text(encoding="utf-8", errors="replace")))
    try:
        return ConfigFacts(load_all(options), source, variables=variables), options
    except ConfigError as exc:
        return ConfigFacts(None, source, tuple(exc.errors), variables=variables), options


def _of_system(env: Mapping[str, str]) -> Jobs:
    return {
        ("processor", "processor"): system.processor_flags,
        ("shared-memory", SHM): devices.shm_bytes,
        ("container", "control group"): system.container,
        ("gpu", "NVML"): lambda: system.gpus(env),
    }


def _of_configuration(read: ConfigFacts, env: Mapping[str, str]) -> Jobs:
    config = read.config
    if config is None:
        return {}
    return {
        ("config", "its files"): lambda: dataclasses.replace(read, warnings=tuple(warnings(config))),
        ("attached", "engines of others"): lambda: engines.attached(config, is_implied=read.source is None),
        ("hub", "cache"): lambda: engines.hub(config, env),
        ("port", "ports"): lambda: _ports(config.server),
        ("traces", "collector"): lambda: system.collector(config.tracing.endpoint),
    }


def _of(listed: Sequence[tuple[str | None, Inspection]], env: Mapping[str, str]) -> Jobs:
    files = sorted({library.file for _, each in listed for library in each.libraries})
    jobs: Jobs = {("libraries", "libraries"): lambda: {file: system.has_library(file) for file in files}}
    for backend, each in listed:
        jobs["programs", f"{each.what} of {backend}" if backend else each.what] = partial(
            engines.program, backend, each, env
        )
    return jobs


def _ports(server: ServerConfig) -> tuple[PortFacts, ...]:
    """Those that are not just any free one."""
    wanted = (
        ("server.port", server.host, server.port),
        ("server.metrics_port", server.metrics_host, server.metrics_port),
    )
    return tuple(system.port(setting, host, number) for setting, host, number in wanted if number)


def _of_state(read: ConfigFacts, env: Mapping[str, str], state: Path | None) -> Jobs:
    if state is None:
        return {}
    tools = tools_folder(env, state)
    folders = {"state folder": state, "tool environments": tools}
    jobs: Jobs = {
        ("disk", f"the {what}, {folder},"): partial(system.disk, what, folder) for what, folder in folders.items()
    }
    jobs["state-folder", "state folder"] = lambda: system.folder(state)
    jobs["tools", "tool environments"] = lambda: tool_environments(tools)
    jobs["gateway", "gateway"] = lambda: running_gateway(state)
    jobs["usage", "records"] = lambda: store.usage(state)
    if (config := read.config) is not None:
        jobs["store", "store"] = lambda: store.store(config.store, state)
        jobs["memory", "models"] = lambda: _plan(config, read.source, env, state)
    return jobs


def _plan(config: Config, source: Path | None, env: Mapping[str, str], state: Path) -> PlanAnswer:
    """As a running gateway with this configuration says, which knows what its engines have taken; else as a start would
    find it.
    """
    try:
        said = _ask_gateway(state, "/admin/status")
        if said["config"] == (str(source.absolute()) if source is not None else None):
            return PlanAnswer.model_validate(_ask_gateway(state, "/admin/plan"))
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError):
        pass  # none runs, or it is in trouble, which another check says
    return report.plan(config, devices.machine(config.server.memory_gb, env), MeasurementStore(state / MEASUREMENTS))


def _ask_gateway(state: Path, path: str) -> Any:
    control = state / CONTROL_SOCKET
    if not control.exists():
        raise FileNotFoundError(f"{control} is not there")
    transport = httpx.HTTPTransport(uds=str(control))
    with httpx.Client(transport=transport, base_url="http://gateway", timeout=_GATEWAY_S) as client:
        return client.get(path).raise_for_status().json()


def tool_environments(folder: Path) -> ToolFacts:
    """Those of this program's that are there. Nothing is made or removed."""
    whole: list[str] = []
    broken: list[str] = []
    left: list[str] = []
    for name, tool in TOOLS.items():
        place = build.place(folder, tool)
        if place.is_dir():
            (whole if build.is_whole(place) else broken).append(name)
        if any(folder.glob(f"{name}-????????????{build.MAKING}")) and not _is_made_now(folder, name):
            left.append(name)
    return ToolFacts(folder, tuple(whole), tuple(broken), tuple(left))


def _is_made_now(folder: Path, tool: str) -> bool:
    try:
        with build.held(folder, tool, lambda _: None, wait_s=0):
            return False
    except (ToolError, OSError):
        return True


def running_gateway(state: Path) -> GatewayFacts | None:
    """The gateway on this state folder; None where none runs."""
    held = system.folder(state).holder
    if held is None:
        return None
    pid = int(held) if held.isdigit() else None
    try:
        said = _ask_gateway(state, "/admin/status")
        health = said["health"]
        return GatewayFacts(
            pid,
            version=health["version"],
            status=health["status"],
            address=said["address"],
            config=said["config"],
            failed=tuple(
                (each["name"], each["reason"] or "") for each in health["backends"] if each["state"] == "failed"
            ),
            quarantined=tuple(each["reason"] for each in health["quarantined"]),
            state_folder=health["state_folder"],
        )
    except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as exc:
        return GatewayFacts(pid, trouble=f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)


def _open_files() -> int | None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard
