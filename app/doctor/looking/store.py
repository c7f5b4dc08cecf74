"""Where keys, limits and usage are kept: the store, and what waits on this disk for it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from app.config.team import StoreConfig
from app.doctor.facts import StoreFacts, UsageFacts
from app.store import checkup
from app.store.checkup import Checkup
from app.store.database import Database
from app.store.opening import COMMAND, database_at
from app.supervisor.state_folder import STORE
from app.usage.segment_reader import DAMAGED
from app.usage.segments import FOLDER

# For each question; a server that is away is asked one.
TIMEOUT_S: Final = 5.0


def store(config: StoreConfig, state: Path) -> StoreFacts:
    """The store as it is. Nothing in it is changed, and a file that is not there is not made."""
    url, file = config.secret_url, state / STORE
    database = database_at(url, file, TIMEOUT_S, COMMAND)
    if url is None and not file.exists():
        return StoreFacts(database.place, exists=False)
    return StoreFacts(database.place, is_server=url is not None, report=asyncio.run(_looked(database)))


async def _looked(database: Database) -> Checkup:
    async with contextlib.aclosing(database):
        return await checkup.look(database)


def usage(state: Path) -> UsageFacts | None:
    """The files in which usage records wait; None where there are none yet."""
    folder = state / FOLDER
    if not folder.is_dir():
        return None
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
        damaged = tuple(sorted(path.name for path in files if DAMAGED in path.name))
        waiting = sum(path.stat().st_blocks * 512 for path in files if path.name not in damaged)
    except OSError as exc:
        return UsageFacts(folder, trouble=exc.strerror or str(exc))
    return UsageFacts(folder, waiting, damaged)
