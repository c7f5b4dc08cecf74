"""Probes one engine again and again, and notices when it runs and does nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from backends.config.base import ManagedConfig
from backends.endpoint import State
from backends.engine import Probe
from backends.errors import BackendError
from backends.lifecycle.events import Probed, Stalled
from backends.lifecycle.phases import Phase
from backends.process import heartbeat
from backends.process.heartbeat import Heartbeat
from backends.process.process import Process

if TYPE_CHECKING:
    from app.supervisor.fleet.unit import Unit

STARTING_S: Final = 0.25  # between probes of an engine that loads: the first request waits for this
READY_S: Final = 5.0  # of one that serves; its process is watched besides, so this only finds hangs
ATTACHED_UP_S: Final = 10.0  # of somebody else's: failing requests bring the next look forward
ATTACHED_DOWN_S: Final = 5.0  # a daemon that was just started should not wait long
DOUBT_S: Final = 1.0  # after one silence, and never more often than that while it serves; somebody else's
FAILING_S: Final = 0.1  # the same for one of ours whose connections are refused: its clients wait for what we find
SIGNS_S: Final = 5.0  # between looks at what a starting one reads and writes: each walks through /proc
COMPUTING: Final = 5.0  # times `stall_timeout_s` without a token, for one that computes
GROWN: Final = 0.05  # the part of its memory by which it must have changed to be worth noting
COMPUTES: Final = 0.1  # processors for that, on average, also on a busy machine; who waits uses next to none

log = structlog.get_logger()


async def watch(unit: Unit, process: Process | None) -> None:
    """Probe it until cancelled. `process`: None for an engine that somebody else runs."""
    watcher = _Watcher(unit, process)
    vigil: asyncio.Task[None] | None = None
    try:
        while True:
            await watcher.look()
            if vigil is None and process is not None and unit.life.state is State.READY:
                vigil = asyncio.create_task(_notice(unit, process), name=f"vigil {unit.name}")
            await watcher.pause()
    finally:
        if vigil is not None:
            vigil.cancel()
            await asyncio.wait({vigil})


async def _notice(unit: Unit, process: Process) -> None:
    """Report when a process that it cannot go on without has ended, whatever its server still answers."""
    generation = unit.life.generation
    reason = await process.loss()
    log.warning("engine lost one of its processes", backend=unit.name, generation=generation, reason=reason)
    unit.post(Probed(generation, is_up=False, reason=reason, is_dead=True))


class _Watcher:
    """One start of one engine. `process` is None for somebody else's."""

    def __init__(self, unit: Unit, process: Process | None) -> None:
        self._unit = unit
        self._process = process
        self._config = unit.config.as_managed()
        self._work: Heartbeat | None = None
        self._start: Heartbeat | None = None
        self._signs_at = 0.0
        self._failure = ""  # the last one that was logged
        self._warning: str | None = None
        self._processes = 0

    async def look(self) -> None:
        """Probe once, report the result, and check for a standstill."""
        unit = self._unit
        generation = unit.life.generation
        unit.runner.looking()
        try:
            probe = await unit.engine.probe(unit.endpoint)
        except Exception as exc:
            if self._failure != (failure := repr(exc)):
                self._failure = failure
                log.exception("probe failed", backend=unit.name)
            probe = Probe(False, "it could not be asked; see the log")
        else:
            self._failure = ""
        if probe.warning is not None and probe.warning != self._warning:
            self._warning = probe.warning
            log.warning("engine has a flaw", backend=unit.name, warning=probe.warning)
        unit.probed(generation, probe)
        if self._config is None:
            return
        try:
            await self._weigh()
            await self._mind(self._config, probe)
        except Exception:
            log.exception("watch failed", backend=unit.name)

    async def _weigh(self) -> None:
        """Note what it takes of the machine again, where it starts and ends a process of its own while it serves."""
        unit, process = self._unit, self._process
        if process is None or not unit.endpoint.likelihood or unit.life.state is not State.READY:
            return
        before, self._processes = self._processes, await asyncio.to_thread(process.count)
        if self._processes <= 1 and before <= 1:
            return
        now, known = await unit.runner.footprint(), unit.record.footprint
        if now is None or not now.resident_gb or known is None or not known.resident_gb:
            return
        if abs(now.resident_gb - known.resident_gb) > GROWN * known.resident_gb:
            await unit.measure()

    async def _mind(self, config: ManagedConfig, probe: Probe) -> None:
        life = self._unit.life
        if life.state is State.READY:
            self._start = None
            await self._mind_work(config, probe)
        elif life.phase in (Phase.LOADING, Phase.WARMING):
            self._work = None
            await self._mind_start(config)
        else:
            self._work = self._start = None

    async def _mind_start(self, config: ManagedConfig) -> None:
        now = asyncio.get_running_loop().time()
        if self._process is None or now - self._signs_at < min(SIGNS_S, config.start_stall_s / 4):
            return
        self._signs_at = now
        self._start = heartbeat.advance(self._start, await asyncio.to_thread(self._process.signs), now)
        if now - self._start.since >= config.start_stall_s:
            reason = f"its start stood still: no output, no reading and no writing for {config.start_stall_s:g} s"
            self._unit.post(Stalled(self._unit.life.generation, reason))

    async def _mind_work(self, config: ManagedConfig, probe: Probe) -> None:
        """Counters that stand still are a suspicion; a test request that gets no token proves it.

        Where the engine computes meanwhile, it may be busy with one long piece of a prompt, or its workers spin for
        ever: it gets more time.
        """
        unit, clock = self._unit, asyncio.get_running_loop().time
        now = clock()
        # Its first response may take as long as it likes: caches are filled, kernels are compiled.
        is_watched = unit.occupancy.served_generation == unit.life.generation or probe.is_mute
        # What is asked beside its server does not move its counters, which count each request from the first moment.
        is_used = unit.occupancy.idle_since is None and not unit.endpoint.likelihood
        signs = heartbeat.work(probe, is_used=is_used) if is_watched else None
        self._work = heartbeat.advance(self._work, signs, now)
        if now - self._work.since < config.stall_timeout_s:
            return
        generation = unit.life.generation
        if probe.is_mute:
            # No test is needed: what would answer it does not answer the probes.
            unit.post(Stalled(generation, f"what computes in it has not answered for {config.stall_timeout_s:g} s"))
            self._work = None
            return
        log.warning("engine stands still; testing it", backend=unit.name, generation=generation)
        cpu_s = await self._cpu_s()
        failure = await self._test(config.stall_timeout_s)
        if failure is not None and await self._is_still(probe):
            stood_s, used_s = clock() - self._work.since, await self._cpu_s() - cpu_s
            if used_s >= COMPUTES * max(clock() - now, config.stall_timeout_s):
                if stood_s < COMPUTING * config.stall_timeout_s:
                    log.info("engine computes; waiting for it", backend=unit.name, generation=generation)
                    return
                stood = f"it computed for {stood_s:.0f} s without a token"
            else:
                stood = f"it stood still for {config.stall_timeout_s:g} s"
            unit.post(Stalled(generation, f"{stood} with requests in it, and {failure}"))
        self._work = None

    async def _cpu_s(self) -> float:
        return await asyncio.to_thread(self._process.cpu_s) if self._process is not None else 0.0

    async def _test(self, timeout_s: float) -> str | None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._unit.engine.warm_up(self._unit.endpoint)
        except BackendError as exc:
            return f"a test request failed: {exc.message}"
        except TimeoutError:
            return f"a test request had no answer within {timeout_s:g} s"
        return None

    async def _is_still(self, before: Probe) -> bool:
        """Whether there is still no progress: the test may only have waited behind a long prompt."""
        probe = await self._unit.engine.probe(self._unit.endpoint)
        return not probe.is_up or probe.progress == before.progress

    async def pause(self) -> None:
        """Wait until the next probe is due, or somebody asks for one."""
        unit = self._unit
        is_ready = unit.life.state is State.READY
        least = (DOUBT_S if unit.policy.is_attached else FAILING_S) if is_ready else STARTING_S
        await asyncio.sleep(least)
        await unit.runner.look_asked(self._interval_s() - least)

    def _interval_s(self) -> float:
        unit = self._unit
        is_ready = unit.life.state is State.READY
        if unit.life.missed_probes:
            return DOUBT_S
        if unit.policy.is_attached:
            return ATTACHED_UP_S if is_ready else ATTACHED_DOWN_S
        if is_ready and self._config is not None:
            return min(READY_S, max(DOUBT_S, self._config.stall_timeout_s / 4))
        return READY_S if is_ready or unit.life.state is State.SLEEPING else STARTING_S
