"""Looks at the files of engines and adapters that were given up: when these have changed, or the time is up, they are
tried again. Proves again the adapters of an engine that has answered what are no numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Final

import structlog

from app.supervisor.file_stamp import stamp
from app.supervisor.fleet.unit import Unit
from backends.endpoint import State
from backends.errors import BackendError, NotFinite
from backends.lifecycle.events import FilesChanged, Start

LOOK_S: Final = 2.0

log = structlog.get_logger()


class RetryFailed:
    """For all units. A change counts when the next look sees the same: files take time to be copied.

    `changed` is called when adapters were tried again.
    """

    def __init__(self, units: Callable[[], Iterable[Unit]], changed: Callable[[], None]) -> None:
        self._units = units
        self._changed = changed
        self._seen: dict[tuple[str, str], Hashable] = {}  # by backend and adapter ("": the engine itself)

    async def run(self) -> None:
        """Look every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for unit in list(self._units()):
                try:
                    await self._look(unit)
                except Exception:
                    log.exception("files not looked at", backend=unit.name)

    async def _look(self, unit: Unit) -> None:
        if unit.life.is_given_up:
            current = await asyncio.to_thread(lambda: stamp(unit.engine.inputs()))
            unit.runner.note_inputs(current)
            if self._has_changed(unit.name, "", unit.runner.inputs, current) and unit.life.state is State.FAILED:
                log.info("engine's files have changed", backend=unit.name)
                unit.post(FilesChanged())
                if unit.starts_at_boot:
                    unit.post(Start())
        elif unit.life.state is State.READY and unit.adapters.is_suspected:
            with contextlib.suppress(BackendError):  # it is started anew then, or does not answer at all
                await unit.adapters.check(unit.endpoint)
            self._changed()
        elif unit.life.state is State.READY and unit.adapters.missing:
            await self._look_at_adapters(unit)

    async def _look_at_adapters(self, unit: Unit) -> None:
        adapters, now = unit.adapters, time.time()
        is_due = False
        for name in list(adapters.missing):
            path, before = adapters.paths.get(name), adapters.stamps.get(name)
            if path is None:
                continue
            current = await asyncio.to_thread(stamp, [path])
            is_due |= self._has_changed(unit.name, name, before, current) or adapters.due.get(name, now + 1) <= now
        if is_due and unit.life.state is State.READY:
            with contextlib.suppress(NotFinite):  # it is started anew then
                await adapters.settle(unit.endpoint)
            self._changed()

    def _has_changed(self, backend: str, adapter: str, before: Hashable, current: Hashable) -> bool:
        key = (backend, adapter)
        seen = self._seen.get(key)
        self._seen[key] = current
        if current == before or seen != current:
            return False
        del self._seen[key]
        return True
