"""The adapters of one engine: those it is to have, those that this start of it has, and why others are missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping

import structlog

from app.supervisor import status_text
from app.supervisor.file_stamp import stamp
from backends.endpoint import Endpoint
from backends.engine import Adapters
from backends.errors import BackendError, EngineFailed
from backends.lifecycle.machine import REST_S

log = structlog.get_logger()


class AdapterSet:
    """Of one engine; one adapter is loaded or unloaded at a time.

    `paths`: what clients may ask for, with its folder. By the same public names: `missing`: why the engine does not
    have one of them; `due`: when that is tried again (Unix seconds).
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
        """The engine starts anew, or wakes up: it has no adapter now."""
        self._has.clear()
        self._start += 1

    def keep(self, name: str, path: str) -> None:
        """The engine is to have it from now on; it has it already, or gets it when it starts."""
        self.paths[name] = path
        self._forgive(name)

    def drop(self, name: str) -> None:
        """The engine is not to have it any more; `settle` unloads it."""
        self.paths.pop(name, None)
        self._forgive(name)

    def _forgive(self, name: str) -> None:
        for known in (self.missing, self.due, self.stamps):
            known.pop(name, None)

    def explained(self, name: str) -> str | None:
        """Why the engine does not have this one, and what is done about that; None where it has it."""
        reason = self.missing.get(name)
        if reason is None:
            return None
        return status_text.adapter_explained(self._backend, name, reason, self.due.get(name))

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        """Load it at the engine now; `paths` stay as they are. BackendError when the engine refuses it."""
        if self._port is None:
            raise EngineFailed(self._backend, "its engine takes no adapters")
        async with self._work:
            await self._load(self._port, endpoint, name, path)

    async def restore(self, endpoint: Endpoint, name: str) -> None:
        """Undo `load`: under this name the engine gets what it is to have."""
        self._has[name] = ""  # no path: it differs from what it is to have
        await self.settle(endpoint)

    async def settle(self, endpoint: Endpoint, *, again: bool = True) -> None:
        """Load and unload until the engine has what it is to have, also what is ordered while this runs.

        An adapter that it refuses becomes `missing` and is not tried again in this call; `again`: those that were
        missing before are tried.
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
