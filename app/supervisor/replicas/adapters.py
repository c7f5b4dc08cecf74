"""The adapters of one engine: what it is to have, what this start of it has, and why it has not the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping

import structlog

from app.supervisor.admin import status_text
from app.supervisor.file_stamp import stamp
from backends.endpoint import Endpoint
from backends.engine import Adapters
from backends.errors import BackendError, EngineFailed
from backends.lifecycle.machine import REST_S

log = structlog.get_logger()


class AdapterSet:
    """`paths` by public name are what clients may ask for; `missing` says why the engine has not one of them, `due`
    when that is tried again (Unix seconds). One piece of work at a time is done at the engine.
    """

    def __init__(self, backend: str, paths: Mapping[str, str], port: Adapters | None) -> None:
        self.paths = dict(paths)
        self.missing: dict[str, str] = {}
        self.due: dict[str, float] = {}
        self.stamps: dict[str, Hashable] = {}  # of the folders of missing ones, when they were tried
        self._backend = backend
        self._port = port
        self._has: dict[str, str] = {}
        self._start = 0
        self._work = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<AdapterSet {self._backend} {sorted(self.paths)} missing={sorted(self.missing)}>"

    @property
    def is_possible(self) -> bool:
        """Whether the engine takes adapters at all."""
        return self._port is not None

    def begin(self) -> None:
        """A new start of the engine has none."""
        self._has.clear()
        self._start += 1

    def keep(self, name: str, path: str) -> None:
        """From now on it is one of these; the engine has it, or gets it when it starts."""
        self.paths[name] = path
        self._forgive(name)

    def drop(self, name: str) -> None:
        """It is none of these any more; `settle` takes it from the engine."""
        self.paths.pop(name, None)
        self._forgive(name)

    def _forgive(self, name: str) -> None:
        for noted in (self.missing, self.due, self.stamps):
            noted.pop(name, None)

    def told(self, name: str) -> str | None:
        """Why the engine has not this one, and what is done about that; None where it has it."""
        reason = self.missing.get(name)
        if reason is None:
            return None
        return status_text.adapter_explained(self._backend, name, reason, self.due.get(name))

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        """Have the engine take it, which changes nothing of what it is to have; BackendError when it refuses."""
        if self._port is None:
            raise EngineFailed(self._backend, "its engine takes no adapters")
        async with self._work:
            await self._load(self._port, endpoint, name, path)

    async def restore(self, endpoint: Endpoint, name: str) -> None:
        """Of this name let the engine have what it is to have, whatever it was made to take meanwhile."""
        self._has[name] = ""  # neither of both
        await self.settle(endpoint)

    async def settle(self, endpoint: Endpoint, *, again: bool = True) -> None:
        """Let the engine have what it is to have, and nothing else. What it refuses is noted and not tried again here;
        `again`: what it has refused before is.

        What is ordered meanwhile counts: when this returns nothing is left to be done.
        """
        if self._port is None:
            for each in self.paths:
                self.missing.setdefault(each, "its engine takes no adapters")
            return
        refused = set() if again else {(name, self.paths[name]) for name in self.missing if name in self.paths}
        async with self._work:
            while (name := self._next(refused)) is not None:
                if (wanted := self.paths.get(name)) is None:
                    await self._unload(self._port, endpoint, name)
                elif not await self._taken(self._port, endpoint, name, wanted):
                    refused.add((name, wanted))

    def _next(self, refused: set[tuple[str, str]]) -> str | None:
        wanted = (
            name for name, path in self.paths.items() if self._has.get(name) != path and (name, path) not in refused
        )
        return next(wanted, next((name for name in self._has if name not in self.paths), None))

    async def _taken(self, port: Adapters, endpoint: Endpoint, name: str, path: str) -> bool:
        before = await asyncio.to_thread(stamp, [path])
        try:
            await self._load(port, endpoint, name, path)
        except BackendError as exc:
            log.error("adapter not loaded", backend=self._backend, adapter=name, reason=exc.message)
            if self.paths.get(name) == path:
                self.missing[name], self.stamps[name] = exc.message, before
                self.due[name] = time.time() + REST_S
            return False
        if self.paths.get(name) == path:
            self._forgive(name)
        return True

    async def _load(self, port: Adapters, endpoint: Endpoint, name: str, path: str) -> None:
        start = self._start
        await port.load(endpoint, name, path)
        if start == self._start:
            self._has[name] = path
        log.info("adapter loaded", backend=self._backend, adapter=name)

    async def _unload(self, port: Adapters, endpoint: Endpoint, name: str) -> None:
        self._has.pop(name, None)
        try:
            await port.unload(endpoint, name)
        except BackendError as exc:
            log.warning("adapter not unloaded", backend=self._backend, adapter=name, reason=exc.message)
