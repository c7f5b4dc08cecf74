"""Downloads the files that one engine needs for its next start, in a process that is watched by its progress."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import structlog

from backends.engine import Fetcher, Launch, Progress
from backends.lifecycle.events import Exited, Fetched, FetchProgress, Stalled
from backends.process import heartbeat
from backends.process.heartbeat import Heartbeat
from backends.process.process import Process

if TYPE_CHECKING:
    from app.supervisor.fleet.runner import Runner
    from app.supervisor.fleet.unit import Unit

LOOK_S: Final = 0.5

log = structlog.get_logger()


class ModelDownload:
    """Of one unit; runs before each of its starts."""

    def __init__(self, unit: Unit, runner: Runner) -> None:
        self._unit = unit
        self._runner = runner
        self._began = 0.0
        self._first: Progress | None = None
        self._latest: Progress | None = None

    @property
    def left_s(self) -> float | None:
        """How many seconds it will still take at the pace until now; None while that is not known."""
        first, latest = self._first, self._latest
        if first is None or latest is None or latest.done_bytes <= first.done_bytes:
            return None
        took_s = asyncio.get_running_loop().time() - self._began
        return (latest.total_bytes - latest.done_bytes) * took_s / (latest.done_bytes - first.done_bytes)

    async def run(self, generation: int) -> None:
        """Download what is missing; the result is reported as an event."""
        unit, fetcher = self._unit, self._unit.engine.fetcher
        launch = await asyncio.to_thread(fetcher.missing) if fetcher is not None else None
        if fetcher is None or launch is None:
            unit.post(Fetched(generation))
            return
        # The engine of that generation may be serving beside it.
        running = await self._runner.spawned(f"fetch-{secrets.token_hex(4)}", launch)
        log.info("engine's model is fetched", backend=unit.name, pid=running.pid)
        self._began = asyncio.get_running_loop().time()
        try:
            await self._follow(generation, fetcher, running)
        finally:
            self._first = self._latest = None
            running.kill()
            await running.gone()
        unit.post(_outcome(generation, launch, running, unit.chance()))

    async def _follow(self, generation: int, fetcher: Fetcher, running: Process) -> None:
        """Report progress until it has ended. There is no deadline; it has stalled when no byte comes or is checked."""
        unit = self._unit
        managed = unit.config.as_managed()
        stall_s = managed.start_stall_s if managed is not None else 0.0
        felt: Heartbeat | None = None
        while not running.exited.done():
            await asyncio.wait({running.exited}, timeout=min(LOOK_S, stall_s / 4))
            now = asyncio.get_running_loop().time()
            self._latest = latest = fetcher.progress(running.tail())
            if latest is not None:
                self._first = self._first or latest
                unit.post(FetchProgress(generation, latest.text))
            signs = (latest.done_bytes, latest.checked_bytes) if latest is not None else ()
            felt = heartbeat.advance(felt, signs, now)
            if now - felt.since >= stall_s:
                far = f" ({latest.text})" if latest is not None else ""
                reason = f"no byte of its model came for {stall_s:g} s{far}: check the network"
                unit.post(Stalled(generation, reason))  # which ends the process


def _outcome(generation: int, launch: Launch, running: Process, chance: float) -> Fetched | Exited:
    code = running.exited.result()
    if code == 0:
        return Fetched(generation, is_news=True)
    return Exited(generation, launch.explain(code, running.tail()), chance)
