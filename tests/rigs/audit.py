"""An audit that remembers, for tests of what is told to one."""

from __future__ import annotations

from app.store.tables.audit import AuditQuery
from app.store.tables.audit_entry import AuditEntry


class RememberedAudit:
    """`entries`: what it was told, oldest first."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def record(self, entry: AuditEntry) -> None:
        self.entries.append(entry)

    async def read(self, query: AuditQuery) -> list[AuditEntry]:
        return [entry for entry in reversed(self.entries) if query.wants(entry)][: query.limit]


class RememberedTeam:
    """As much of a team as the admin application asks of it."""

    def __init__(self) -> None:
        self.audit = RememberedAudit()
