"""The runs of all gateways on one store: each brings in what lies in its own state folder, and shows what others have.

Its own it reads from its folder, so that nobody needs the store for those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from app.store.database import StoreDown, StoreError
from app.store.tables.votes import RunRow, RunTable
from app.supervisor.comparisons import runs
from app.supervisor.comparisons.runs import RunEntry
from app.table import Key

log = structlog.get_logger()

LOOK_S: Final = 5.0
MOST: Final = 1000


class Runs:
    """The runs in `folder`, and those of other gateways. `table` None: there are no others. `gateway`: our id.
    `is_alone`: nobody else uses this store, so it gets none of ours; it may have some that were copied from another.
    """

    def __init__(
        self, folder: Path, table: RunTable | None, gateway: Callable[[], str], *, is_alone: bool = False
    ) -> None:
        self._folder = folder
        self._table = table
        self._gateway = gateway
        self._is_alone = is_alone

    def __repr__(self) -> str:
        return f"<Runs {self._folder}>"

    async def list_runs(self, viewer: Key | None) -> list[dict[str, Any]]:
        """Those all of whose models the viewer may use, newest first; only our own while the store is away.
        Problem (503) for a folder that cannot be read.
        """
        own = await asyncio.to_thread(runs.list_runs, self._folder, viewer)
        names = {each["id"] for each in own}
        return runs.newest_first([*own, *(each for each in await self._others(viewer) if each["id"] not in names)])

    async def read_report(self, name: str, file: str, viewer: Key | None) -> bytes:
        """One of a run's reports. Problem (404) where there is none, or none for this viewer."""
        if self._table is None or await asyncio.to_thread((self._folder / name).is_dir):
            return await asyncio.to_thread(runs.read_report, self._folder, name, file, viewer)
        if not runs.is_name(name):
            raise runs.no_such_run()
        try:
            row = await self._table.one(name)
            run = _entry(row) if row is not None else None
            if row is None or run is None or not runs.may_see(viewer, run):
                raise runs.no_such_run()
            content = await self._table.report(row, file)
        except StoreDown as exc:
            raise runs.store_away(str(exc)) from exc
        if content is None:
            raise runs.no_report(run)
        return content

    async def run(self) -> None:
        """Bring in what is new or has changed in our folder, until cancelled."""
        known: dict[str, str] | None = None  # what the store has of ours: name → stamp
        while self._table is not None and not self._is_alone:
            try:
                if known is None:
                    known = await self._table.stamps(self._gateway())
                await self._bring(self._table, known)
            except StoreDown:
                known = None
            except StoreError as exc:
                log.error("runs not brought into the store", reason=str(exc))
            await asyncio.sleep(LOOK_S)

    async def aclose(self) -> None:
        """What is not in the store yet comes there with the next start."""

    async def _bring(self, table: RunTable, known: dict[str, str]) -> None:
        now = await asyncio.to_thread(runs.stamps, self._folder)
        for name, stamp in now.items():
            if known.get(name) == stamp:
                continue
            read = await asyncio.to_thread(runs.read_run, self._folder / name)
            if read is not None:
                run, stamp, reports = read
                entry = msgspec.json.encode(run).decode()
                has_report = runs.REPORT_JSON in reports
                await table.put(RunRow(self._gateway(), name, stamp, run.created, entry, has_report), reports)
            known[name] = stamp
        if gone := known.keys() - now.keys():
            await table.remove(self._gateway(), sorted(gone))
            for name in gone:
                del known[name]

    async def _others(self, viewer: Key | None) -> list[dict[str, Any]]:
        if self._table is None:
            return []
        try:
            rows = await self._table.read(MOST)
        except StoreDown as exc:
            log.warning("only this gateway's runs are shown", reason=str(exc))
            return []
        return [
            runs.shown(run, row.id, row.has_report)
            for row in rows
            if row.gateway != self._gateway() and (run := _entry(row)) is not None and runs.may_see(viewer, run)
        ]


def _entry(row: RunRow) -> RunEntry | None:
    try:
        return msgspec.json.decode(row.entry, type=RunEntry)
    except msgspec.DecodeError:
        return None
