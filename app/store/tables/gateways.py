"""The gateways that use a store: each says once a second that it is there, by the store's own clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.store.database import Database

# One that has not been heard of for so long is silent: it is gone, or cut off and going on by itself with its share of
# all limits, which it begins to do after the same time.
SILENT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Census:
    """The gateways at one moment, `now`, by the store's clock. `silent`: of `count`, how many have not been heard of
    for SILENT_S; they are counted until they sign off or are forgotten. `names`: host name of each by its id.
    """

    now: float
    count: int
    silent: int
    names: dict[str, str]


async def beat(
    database: Database,
    id: str,
    life: str,
    name: str,
    version: str,
    forget_after_s: float | None = None,
    has_signed_on: bool = False,
) -> Census | None:
    """Say that this gateway is there, in this life of it. None where another process says so under the same id.

    `forget_after_s`: those that have been silent for longer are no longer counted; None: nobody is forgotten.
    `has_signed_on`: this life has said so before, so that whoever else is there under this id came later.
    """
    async with database.transaction() as statements:
        told = await statements.execute(
            "INSERT INTO gateways (id, life, name, version, started, seen) "
            "VALUES ($1, $2, $3, $4, store_time(), store_time()) ON CONFLICT (id) DO UPDATE SET life = excluded.life, "
            "name = excluded.name, version = excluded.version, seen = excluded.seen, "
            "started = CASE WHEN gateways.life = excluded.life THEN gateways.started ELSE excluded.started END "
            "WHERE gateways.life = excluded.life OR $5 = 0",
            *(id, life, name, version, int(has_signed_on)),
        )
        if not told:
            return None
        if forget_after_s is not None:
            await statements.execute("DELETE FROM gateways WHERE seen < store_time() - $1", float(forget_after_s))
        rows = await statements.fetch("SELECT id, name, seen, store_time() AS now FROM gateways")
    now = float(rows[0]["now"])
    return Census(
        now,
        count=len(rows),
        silent=sum(row["seen"] < now - SILENT_S for row in rows),
        names={row["id"]: row["name"] for row in rows},
    )


async def embedded(database: Database) -> Census:
    """The same for a store that one gateway has to itself: it is only asked for its time."""
    rows = await database.fetch("SELECT store_time() AS now")
    return Census(float(rows[0]["now"]), 1, 0, {})


async def sign_off(database: Database, id: str, life: str) -> None:
    """This life of this gateway ends: it is no longer counted."""
    await database.execute("DELETE FROM gateways WHERE id = $1 AND life = $2", id, life)
