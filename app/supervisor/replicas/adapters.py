"""The adapters of one engine: those it is to have, those that this start of it has, and why others are missing.

Each is proved before its name is public: its files are checked, it is loaded, and held against the base (`Adapters`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog

from app.supervisor import status_text
from app.supervisor.file_stamp import stamp
from backends.endpoint import Endpoint
from backends.engine import Adapters, Proof
from backends.errors import BackendError, EngineFailed, NoEffect, NotFinite
from backends.lifecycle.machine import REST_S
from backends.model_files.sources import Sources, in_folder

Verdict = Literal["proved", "off", "unclear", "failed"]

TRIAL: Final = " (trial)"  # behind the name under which one is proved that is to take another's place

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """How the latest load of one adapter ended. `verdict`: `proved`, `off` (not asked for), `unclear` (it could not be
    compared, and is served), `failed`. `proof`: what the comparison has shown, None where there was none.
    """

    verdict: Verdict
    seconds: float
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class AdapterCounts:
    """Of one engine: how many loads of adapters ended in which way, and how many adapters it does not have."""

    loads: Mapping[Verdict, int] = field(default_factory=dict)
    missing: int = 0


class AdapterSet:
    """Of one engine; one adapter is loaded or unloaded at a time.

    `paths`: what clients may ask for, with its folder. By the same public names: `missing`: why the engine does not
    have one of them; `due`: when that is tried again (Unix seconds), absent for one that spoils the engine; `records`:
    how the latest load ended. `unproved`: those that are not held against the base. `spoilt` is called when the engine
    computes no numbers any more and must be started anew, with the reason.
    """

    def __init__(
        self,
        backend: str,
        paths: Mapping[str, str],
        port: Adapters | None,
        unproved: Collection[str] = (),
        spoilt: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.paths = dict(paths)
        self.missing: dict[str, str] = {}
        self.due: dict[str, float] = {}
        self.stamps: dict[str, Hashable] = {}  # of the folders of missing ones, when they were tried
        self.records: dict[str, ProofRecord] = {}
        self.counts: dict[Verdict, int] = {}  # loads by their verdicts, since the backend is there
        self.sources: dict[str, Sources] = {}  # of those that it has: their files just before they were loaded
        self._backend = backend
        self._port = port
        self._unproved = set(unproved)
        self._spoilt = spoilt
        self._spoilers: dict[str, Hashable] = {}  # adapters that answered no numbers, with the stamps of their folders
        self._has: dict[str, str] = {}
        self._start = 0
        self._is_suspected = False
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
        self.sources.clear()
        self._start += 1
        self._is_suspected = False

    def keep(self, name: str, path: str, *, is_proved: bool = True) -> None:
        """The engine is to have it from now on; it has it already, or gets it when it starts."""
        self.paths[name] = path
        (self._unproved.discard if is_proved else self._unproved.add)(name)
        self._forgive(name)

    def drop(self, name: str) -> None:
        """The engine is not to have it any more; `settle` unloads it."""
        self.paths.pop(name, None)
        self.records.pop(name, None)
        self._forgive(name)

    def _forgive(self, name: str) -> None:
        for known in (self.missing, self.due, self.stamps, self._spoilers):
            known.pop(name, None)

    def explained(self, name: str) -> str | None:
        """Why the engine does not have this one, and what is done about that; None where it has it."""
        reason = self.missing.get(name)
        if reason is None:
            return None
        return status_text.adapter_explained(self._backend, name, reason, self.due.get(name))

    async def load(self, endpoint: Endpoint, name: str, path: str, *, is_proved: bool = True) -> None:
        """Load and prove it at the engine now; `paths` stay as they are. BackendError when the engine refuses it, or
        it does not prove itself: then it is unloaded, and what had the name before has it still.
        """
        if self._port is None:
            raise EngineFailed(self._backend, "its engine takes no adapters")
        async with self._work:
            try:
                await self._load(self._port, endpoint, name, path, is_proved=is_proved)
            except NotFinite as exc:
                if exc.adapter is not None or self._has:
                    self._spoilt(exc.message)
                raise

    def suspect(self) -> None:
        """The engine has answered what are no numbers. Without an adapter that is its model's own fault, and another
        start would not help.
        """
        self._is_suspected = bool(self._has)

    @property
    def is_suspected(self) -> bool:
        """Whether `check` is asked for."""
        return self._is_suspected

    async def check(self, endpoint: Endpoint) -> None:
        """Find out whether the engine computes numbers, with each of its adapters. NotFinite when it does not: then it
        is started anew, without the adapter that did it where one is known.
        """
        self._is_suspected = False
        if self._port is None:
            return
        async with self._work:
            for name in list(self._has):
                try:
                    await self._port.prove(endpoint, name)
                except NotFinite as exc:
                    await self._condemn(exc, name, self.paths.get(name))
                    raise
                except EngineFailed as exc:
                    log.warning("adapter not proved again", backend=self._backend, adapter=name, reason=exc.message)

    async def _condemn(self, exc: NotFinite, name: str, path: str | None) -> None:
        log.error("engine computes no numbers", backend=self._backend, adapter=name, reason=exc.message)
        if exc.adapter is not None and path is not None:
            self._spoilers[name] = self.stamps[name] = await asyncio.to_thread(stamp, [path])
            self.missing[name] = exc.message
            self.due.pop(name, None)
        self._spoilt(exc.message)

    async def restore(self, endpoint: Endpoint) -> None:
        """Undo `load`: the engine gets what it is to have."""
        await self.settle(endpoint, again=False)

    async def settle(self, endpoint: Endpoint, *, again: bool = True) -> None:
        """Load and unload until the engine has what it is to have, also what is ordered while this runs.

        An adapter that it refuses becomes `missing` and is not tried again in this call; `again`: those that were
        missing before are tried, other than those that have spoilt an engine. NotFinite when one of them spoils this.
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
        if self._spoilers.get(name, before) != before:
            self._forgive(name)  # its folder has changed since
        elif name in self._spoilers:
            return False
        try:
            await self._load(port, endpoint, name, path, is_proved=name not in self._unproved)
        except BackendError as exc:
            log.error("adapter not loaded", backend=self._backend, adapter=name, reason=exc.message)
            if self.paths.get(name) == path:
                self.missing[name], self.stamps[name] = exc.message, before
                self.due[name] = time.time() + REST_S
            if isinstance(exc, NotFinite) and exc.adapter is not None:
                self._spoilers[name] = before
                self.due.pop(name, None)
                self._spoilt(exc.message)
                raise
            return False
        if self.paths.get(name) == path:
            self._forgive(name)
        return True

    async def _load(self, port: Adapters, endpoint: Endpoint, name: str, path: str, *, is_proved: bool) -> None:
        start, began = self._start, time.monotonic()
        files = await asyncio.to_thread(_files, path)
        try:
            # Where clients use one that has the name now, the new one is proved under another.
            trial = name + TRIAL if self._has.get(name) else name
            proof = await self._tried(port, endpoint, trial, path, is_proved=is_proved)
            if trial != name:
                if name in self._has:
                    self._has[name] = ""  # no path, until it is known what the engine has
                await port.load(endpoint, name, path)
            if start == self._start:
                self._has[name] = path
                self.sources.pop(name, None)
                if files is not None:
                    self.sources[name] = files
        except BackendError:
            self._note(name, ProofRecord("failed", time.monotonic() - began))
            raise
        verdict: Verdict = "off" if proof is None else "unclear" if proof.why_not is not None else "proved"
        seconds = round(time.monotonic() - began, 3)
        self._note(name, ProofRecord(verdict, seconds, proof))
        if proof is not None and proof.why_not is not None:
            log.warning("adapter not proved", backend=self._backend, adapter=name, reason=proof.why_not)
        log.info("adapter loaded", backend=self._backend, adapter=name, proof=verdict, seconds=seconds)

    async def _tried(
        self, port: Adapters, endpoint: Endpoint, trial: str, path: str, *, is_proved: bool
    ) -> Proof | None:
        """Load it under this name and prove it; unloaded again where it fails, or has proved itself for another. One
        that need not be proved must answer numbers all the same.
        """
        await port.load(endpoint, trial, path)
        is_to_stay = False
        try:
            proof = await port.prove(endpoint, trial)
            is_to_stay = not trial.endswith(TRIAL)
            return proof if is_proved else None
        except NoEffect:
            if is_proved:
                raise
            is_to_stay = not trial.endswith(TRIAL)
            return None
        finally:
            if not is_to_stay:
                await self._unload(port, endpoint, trial)

    def _note(self, name: str, record: ProofRecord) -> None:
        self.records[name] = record
        self.counts[record.verdict] = self.counts.get(record.verdict, 0) + 1

    async def _unload(self, port: Adapters, endpoint: Endpoint, name: str) -> None:
        self._has.pop(name, None)
        self.sources.pop(name, None)
        try:
            await port.unload(endpoint, name)
        except BackendError as exc:
            log.warning("adapter not unloaded", backend=self._backend, adapter=name, reason=exc.message)


def _files(path: str) -> Sources | None:
    """What is in an adapter's folder; None where it is none of this machine."""
    try:
        return Sources(in_folder(Path(path).expanduser().resolve(), "adapter"))
    except OSError:
        return None
