"""What gateways hold and have spent of keys' limits, as rows that only their own gateway writes, with absolute amounts:
writing one again changes nothing. Whoever is going to hold more locks the key first.

Slots of windows are numbers (app/supervisor/team/limits/spans.py); what is held is in the slot HELD.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.store.database import Database, Statements

HELD: Final = -1
# A row may become visible so long after the time that it says it was changed at: a transaction takes no longer.
LATE_S: Final = 6.0


@dataclass(frozen=True, slots=True)
class AmountRow:
    """What one gateway has spent in one slot, or holds, of one kind of limit of one key."""

    key: str
    kind: str
    gateway: str
    slot: int
    amount: float


@dataclass(frozen=True, slots=True)
class Peers:
    """The gateways of the store at one moment, `now`, by its clock. `said`: when each has last told what it has spent,
    None: never."""

    now: float
    said: dict[str, float | None]


async def lock(statements: Statements, keys: Iterable[str]) -> None:
    """Until the end of the transaction nobody else holds more of these keys' limits."""
    await statements.many(
        "INSERT INTO limit_keys (key, turns) VALUES ($1, 1) "
        "ON CONFLICT (key) DO UPDATE SET turns = limit_keys.turns + 1",
        [(key,) for key in sorted(keys)],
    )


async def write(statements: Statements, rows: Sequence[AmountRow]) -> None:
    """From now on it is so."""
    if rows:
        await statements.many(
            "INSERT INTO limit_amounts (key, kind, gateway, slot, amount, changed) "
            "VALUES ($1, $2, $3, $4, $5, store_time()) ON CONFLICT (key, kind, gateway, slot) "
            "DO UPDATE SET amount = excluded.amount, changed = excluded.changed",
            [(row.key, row.kind, row.gateway, row.slot, row.amount) for row in rows],
        )


async def peers(statements: Statements) -> Peers:
    """The gateways there are."""
    rows = await statements.fetch(
        "SELECT t.now, g.id, l.said FROM (SELECT store_time() AS now) t "
        "LEFT JOIN gateways g ON 1 = 1 LEFT JOIN limit_gateways l ON l.gateway = g.id"
    )
    return Peers(float(rows[0]["now"]), {row["id"]: row["said"] for row in rows if row["id"] is not None})


async def changes(statements: Statements, gateway: str, since: float, oldest: int) -> list[AmountRow]:
    """What other gateways have changed since that time, of slots from `oldest` on and of what they hold."""
    return _rows(
        await statements.fetch(
            "SELECT key, kind, gateway, slot, amount FROM limit_amounts "
            "WHERE changed > $1 AND gateway <> $2 AND (slot >= $3 OR slot = -1)",
            *(since - LATE_S, gateway, oldest),
        )
    )


async def own(statements: Statements, gateway: str, key: str) -> list[AmountRow]:
    """What this gateway has written itself, maybe in an earlier life."""
    return _rows(
        await statements.fetch(
            "SELECT key, kind, gateway, slot, amount FROM limit_amounts WHERE key = $1 AND gateway = $2", key, gateway
        )
    )


async def say(statements: Statements, gateway: str) -> None:
    """This gateway has told all that it spent without the store."""
    await statements.execute(
        "INSERT INTO limit_gateways (gateway, said) VALUES ($1, store_time()) "
        "ON CONFLICT (gateway) DO UPDATE SET said = excluded.said",
        gateway,
    )


async def sweep(database: Database, oldest: int) -> int:
    """Remove slots before `oldest`, and what gateways held that are no longer counted. Returns how many rows."""
    return await database.execute(
        "DELETE FROM limit_amounts WHERE (slot >= 0 AND slot < $1) OR (slot = -1 AND changed < store_time() - 86400 "
        "AND gateway NOT IN (SELECT id FROM gateways))",
        oldest,
    )


def _rows(rows: Iterable[object]) -> list[AmountRow]:
    return [
        AmountRow(row["key"], row["kind"], row["gateway"], int(row["slot"]), float(row["amount"]))  # type: ignore[index]
        for row in rows
    ]
