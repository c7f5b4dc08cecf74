"""What there is to know of a store without a gateway: reachable, its version, its clock, what is in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.store import copying, schema
from app.store.database import Database, StoreError
from app.store.tables.gateways import SILENT_S


@dataclass(frozen=True, slots=True)
class Checkup:
    """`trouble`: the first thing that is wrong, in a sentence; None: all is well. `took_s`: for one question. `schema`:
    the version that the store has, None where that is not known; 0: no gateway has used it yet. `ahead_s`: by how much
    its clock is ahead of this machine's. `gateways`: that use it, `silent`: of which nothing has been heard for some
    seconds. `rows`: of each table.
    """

    trouble: str | None = None
    took_s: float | None = None
    schema: int | None = None
    ahead_s: float | None = None
    gateways: int | None = None
    silent: int | None = None
    rows: dict[str, int] = field(default_factory=dict)


async def look(database: Database, now: Callable[[], float] = time.time) -> Checkup:
    """The store as it is. Nothing in it is changed."""
    try:
        await database.fetch("SELECT 1 AS one")  # connects
        began = time.perf_counter()
        version = await schema.version(database, database.dialect)
        took_s = time.perf_counter() - began
    except StoreError as exc:
        return Checkup(str(exc))
    if version == 0:
        return Checkup(took_s=took_s, schema=0)
    if version > schema.VERSION:
        return Checkup(str(schema.too_new(database, version)), took_s, version)
    try:
        before = now()
        told = await database.fetch("SELECT store_time() AS now")
        ahead_s = float(told[0]["now"]) - (before + now()) / 2
        seen = await database.fetch("SELECT seen, store_time() AS now FROM gateways")
        # Those of a later version come with it.
        tables = [table.name for table in schema.LOCK_ORDER if table.is_copied and version == schema.VERSION]
        rows = {table: await copying.count(database, table) for table in tables}
    except StoreError as exc:
        return Checkup(str(exc), took_s, version)
    silent = sum(row["seen"] < row["now"] - SILENT_S for row in seen)
    return Checkup(None, took_s, version, ahead_s, len(seen), silent, rows)
