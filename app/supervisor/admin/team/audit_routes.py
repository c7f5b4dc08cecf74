"""The route about who did what here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import FastAPI, Query

from app.store.tables.audit import MOST_READ, AuditQuery
from app.store.tables.audit_entry import AuditEntry

Answers = dict[int | str, dict[str, Any]]


class AuditApi(Protocol):
    """The audit of all gateways on one store."""

    async def record(self, entry: AuditEntry) -> None:
        """Write it down. It never fails: an order that was carried out is answered as what it is."""
        ...

    async def read(self, query: AuditQuery) -> list[AuditEntry]:
        """What is wanted of it, newest first. StoreDown."""
        ...


def add_audit_routes(app: FastAPI, audit: Callable[[], AuditApi], refusals: Answers) -> None:
    """Add it to the admin application."""

    @app.get("/admin/audit", tags=["admin"], responses=refusals)
    async def read_audit(
        since: Annotated[float | None, Query(description="Unix seconds.")] = None,
        until: Annotated[float | None, Query(description="Unix seconds, excluded.")] = None,
        actor: Annotated[str | None, Query(description="A key's name, or a user of the machine.")] = None,
        action: Annotated[str | None, Query(description="`backends.stop`, or all of `backends`.")] = None,
        target: Annotated[str | None, Query(description="What it was done to.")] = None,
        before: Annotated[str | None, Query(description="An entry's id: only what stands below it.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_READ)] = 100,
    ) -> dict[str, Any]:
        """Who did what through these routes, the page and the command line, newest first."""
        wanted = AuditQuery(since, until, actor, action, target, before, limit + 1)
        entries = await audit().read(wanted)
        data = [_shown(entry) for entry in entries[:limit]]
        return {"object": "list", "data": data, "has_more": len(entries) > limit}


def _shown(entry: AuditEntry) -> dict[str, Any]:
    """With every field, so that nobody has to know what is left out."""
    return {"object": "audit.entry", **msgspec.structs.asdict(entry)}
