"""What a command did by itself, while no gateway runs, put into the store's audit."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from app.store.database import Database
from app.store.tables.audit import AuditTable
from app.store.tables.audit_entry import AuditEntry, details, new_id


async def note(database: Database, action: str, target: str = "", fields: Mapping[str, Any] | None = None) -> None:
    """Write down that this user has done it just now. StoreError where the store does not take it."""
    entry = AuditEntry(
        id=new_id(),
        at=time.time(),
        actor=_user(),
        via="command",
        action=action,
        target=target,
        details=details(fields or {}),
        gateway=platform.node(),
    )
    await AuditTable(database).add([entry])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in a container
        return f"user {os.getuid()}"
