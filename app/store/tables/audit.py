"""The audit in the store: one row for each order, put there once, read newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from app.store.database import Database, Row
from app.store.tables.audit_entry import AuditEntry, Via

MOST_READ: Final = 1000


class AuditQuery(msgspec.Struct, frozen=True):
    """Which entries are wanted. `since`, `until`: Unix seconds, the second excluded. `action`: one, or with all below
    it (`keys` for `keys.new`). `before`: the id of an entry; only what stands below it in the list.
    """

    since: float | None = None
    until: float | None = None
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    before: str | None = None
    limit: int = 100

    def wants(self, entry: AuditEntry) -> bool:
        """Whether the entry is among those, `before` aside."""
        return (
            (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
            and self.actor in (None, entry.actor)
            and self.target in (None, entry.target)
            and (self.action is None or entry.action == self.action or entry.action.startswith(f"{self.action}."))
        )


class AuditTable:
    """The entries in one database. StoreDown where it cannot be asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<AuditTable {self._database!r}>"

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        """Put them there; one that is there already stays as it is."""
        await self._database.many(
            "INSERT INTO audit (id, at, actor, via, action, target, status, details, gateway, request_id, address) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING",
            [
                (
                    *(entry.id, entry.at, entry.actor, entry.via, entry.action, entry.target, entry.status),
                    *(msgspec.json.encode(entry.details).decode(), entry.gateway, entry.request_id, entry.address),
                )
                for entry in entries
            ],
        )

    async def read(self, query: AuditQuery) -> list[AuditEntry]:
        """Those that are wanted, newest first."""
        sql, values = _select(query)
        return [_entry(row) for row in await self._database.fetch_long(sql, *values)]

    async def forget(self, before: float) -> None:
        """Remove what is older (Unix seconds)."""
        await self._database.execute("DELETE FROM audit WHERE at < $1", before)


def _select(query: AuditQuery) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def where(condition: str, value: Any) -> None:
        values.append(value)
        conditions.append(condition.replace("?", f"${len(values)}"))

    if query.since is not None:
        where("at >= ?", query.since)
    if query.until is not None:
        where("at < ?", query.until)
    if query.actor is not None:
        where("actor = ?", query.actor)
    if query.target is not None:
        where("target = ?", query.target)
    if query.action is not None:
        escaped = query.action.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        where("action = ?", query.action)
        where("action LIKE ? ESCAPE '\\'", f"{escaped}.%")
        second, first = conditions.pop(), conditions.pop()
        conditions.append(f"({first} OR {second})")
    if query.before is not None:
        where("(at, id) < (SELECT at, id FROM audit WHERE id = ?)", query.before)
    values.append(max(1, min(query.limit, MOST_READ + 1)))  # by one more it is known whether there are more
    narrowed = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT * FROM audit{narrowed} ORDER BY at DESC, id DESC LIMIT ${len(values)}", values  # noqa: S608  # ours


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=row["at"],
        actor=row["actor"],
        via=cast("Via", row["via"]),
        action=row["action"],
        target=row["target"],
        status=row["status"],
        details=msgspec.json.decode(row["details"]),
        gateway=row["gateway"],
        request_id=row["request_id"],
        address=row["address"],
    )
