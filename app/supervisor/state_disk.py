"""Whether the disk of the state folder can be written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from app.supervisor.json_store import JsonStore, write_synced

log = structlog.get_logger()

CHECK_S: Final = 2.0
# With less than this left a trial file is written: how much is "left" is not the same for every user.
ENOUGH_BYTES: Final = 4 * 1024 * 1024
TRIAL_BYTES: Final = 64 * 1024


class StateDisk:
    """Checks the state folder every two seconds. `trouble`: why it cannot be written; None while it can."""

    def __init__(self, folder: Path, files: Sequence[JsonStore[Any]]) -> None:
        self._folder = folder
        self._files = files
        self.trouble: str | None = None

    def __repr__(self) -> str:
        return f"<StateDisk {self._folder} {self.trouble or 'writable'}>"

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self.report(await asyncio.to_thread(self.check))
            await asyncio.sleep(CHECK_S)

    def check(self) -> str | None:
        """Write what the files are behind with. Returns why the folder cannot be written, else None. Blocks."""
        reasons = [file.catch_up() for file in self._files]
        return next((reason for reason in reasons if reason is not None), None) or why_not_writable(self._folder)

    def report(self, trouble: str | None) -> None:
        """Take over the result of a check; a change is logged."""
        if trouble is not None and self.trouble is None:
            log.error(
                "the state folder cannot be written; requests go on, what engines were measured to take is kept in "
                "memory: make room on its disk",
                path=str(self._folder),
                reason=trouble,
            )
        elif trouble is None and self.trouble is not None:
            log.info("the state folder can be written again", path=str(self._folder))
        self.trouble = trouble


def why_not_writable(folder: Path, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> str | None:
    """Why nothing can be written into this folder; None when something can. Blocks."""
    trial = folder / "trial.new"
    try:
        disk = statvfs(os.fspath(folder))
        has_room = disk.f_bavail * disk.f_frsize >= ENOUGH_BYTES and (disk.f_favail > 0 or disk.f_files == 0)
        if has_room and os.access(folder, os.W_OK):
            return None
        try:
            write_synced(trial, bytes(TRIAL_BYTES))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None
