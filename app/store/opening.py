"""Which store a configuration means."""

from __future__ import annotations

from pathlib import Path

from app.store.database import TIMEOUT_S, Database
from app.store.sqlite import SqliteDatabase

# What a server's administrator sees of a connection.
GATEWAY = "modelport"
COMMAND = "modelport command"


def database_at(url: str | None, file: Path, timeout_s: float = TIMEOUT_S, application: str = GATEWAY) -> Database:
    """The store, not connected yet: PostgreSQL at `url`, or SQLite in `file` where that is None."""
    if url is None:
        return SqliteDatabase(file, timeout_s)
    # Only who uses a server loads what speaks to it.
    from app.store.postgresql import PostgresDatabase

    return PostgresDatabase(url, timeout_s, application)
