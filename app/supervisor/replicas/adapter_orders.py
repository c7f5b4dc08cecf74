"""Loads and unloads an adapter at all replicas of a backend while they serve: at all of them or at none."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from app.ipc import ADAPTER, adapter_key
from app.supervisor.fleet.event_loop import EventLoop, LeaseView
from app.supervisor.fleet.unit import Unit
from backends.endpoint import State
from backends.errors import BackendError, EngineFailed

LOOK_S: Final = 0.05

log = structlog.get_logger()


async def load(event_loop: EventLoop, backend: str, name: str, path: str, *, is_proved: bool = True) -> None:
    """Load it at every replica that serves, and prove it there; the others get it when they start. BackendError when
    one refuses it, or it does not prove itself: then no replica has it. KeyError for an unknown backend.
    """
    for each in event_loop.replicas(backend):
        if not each.adapters.is_possible:
            raise EngineFailed(each.name, "its engine takes no adapters")
    done: list[tuple[Unit, int]] = []
    try:
        while (unit := _next(event_loop, backend, done)) is not None:
            done.append((unit, unit.life.generation))
            await unit.adapters.load(unit.endpoint, name, path, is_proved=is_proved)
        units = event_loop.replicas(backend)
    except BaseException as exc:
        await _take_back(done, name, path)
        if isinstance(exc, KeyError) and done:
            raise EngineFailed(backend, "it was removed meanwhile") from exc
        raise
    for each in units:
        each.adapters.keep(name, path, is_proved=is_proved)
        each.enlist(name)
    event_loop.turn()


def _next(event_loop: EventLoop, backend: str, done: list[tuple[Unit, int]]) -> Unit | None:
    """A replica that serves and has not been asked since it started; some begin to serve meanwhile."""
    serving = [unit for unit in event_loop.replicas(backend) if unit.life.state is State.READY]
    return next((unit for unit in serving if (unit, unit.life.generation) not in done), None)


async def _take_back(done: list[tuple[Unit, int]], name: str, path: str) -> None:
    for unit, generation in done:
        is_there = unit.life.state is State.READY and unit.life.generation == generation
        if is_there and unit.adapters.paths.get(name) != path:
            try:
                await unit.adapters.restore(unit.endpoint)
            except BackendError as exc:
                log.warning("adapter not taken back", backend=unit.name, adapter=name, reason=exc.message)


async def unload(event_loop: EventLoop, leases: LeaseView, backend: str, name: str, drain_s: float) -> None:
    """Route no more requests to it, wait at most `drain_s` for those that use it, then unload it at the engines.
    KeyError for an unknown backend or adapter.
    """
    units = event_loop.replicas(backend)
    if all(name not in unit.adapters.paths for unit in units):
        raise KeyError(name)
    for unit in units:
        unit.adapters.drop(name)
        unit.unlist(name)
    event_loop.turn()
    version = event_loop.version
    end = asyncio.get_running_loop().time() + drain_s
    while asyncio.get_running_loop().time() < end:
        is_used = any(leases.held(adapter_key(unit.name, name), ADAPTER) for unit in units)
        if leases.is_applied(version) and not is_used:
            break
        await asyncio.sleep(LOOK_S)
    for unit in units:
        if unit.life.state is State.READY:
            await unit.adapters.settle(unit.endpoint)
