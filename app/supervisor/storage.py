"""What is written into the state folder, whole or not at all, and whether its disk takes it.

Requests need nothing of it, so a full disk stops none. What could not be written is kept and written later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

LOOK_S: Final = 2.0
# With less than this left it is tried whether anything can be written: what is "left" is not the same for every user.
ENOUGH_BYTES: Final = 4 * 1024 * 1024
TRIAL_BYTES: Final = 64 * 1024


class JsonStore:
    """One file, as its owner last wanted it. `path` None: no file. Its methods block and may be called in threads."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._missing: bytes | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Kept {self.path} {'behind' if self._missing is not None else 'written'}>"

    def write(self, data: bytes) -> None:
        """It is to hold this. That it cannot be written is only logged: it is tried again."""
        with self._lock:
            self._missing = data
        if (reason := self.catch_up()) is not None:
            log.warning("not written; it is tried again", path=str(self.path), reason=reason)

    def catch_up(self) -> str | None:
        """Write what is missing; why that is not possible."""
        with self._lock:
            if self.path is not None and self._missing is not None:
                try:
                    write_whole(self.path, self._missing)
                except OSError as exc:
                    return exc.strerror or str(exc)
            self._missing = None
        return None


class Storage:
    """Looks at the state folder again and again. `trouble`: why it cannot be written; None while it can."""

    def __init__(self, folder: Path, files: Sequence[JsonStore]) -> None:
        self._folder = folder
        self._files = files
        self.trouble: str | None = None

    def __repr__(self) -> str:
        return f"<Storage {self._folder} {self.trouble or 'well'}>"

    async def run(self) -> None:
        """Look until it is cancelled."""
        while True:
            self.hear(await asyncio.to_thread(self.look))
            await asyncio.sleep(LOOK_S)

    def look(self) -> str | None:
        """Why it cannot be written. Blocks; writes what is missing."""
        reasons = [each.catch_up() for each in self._files]
        return next((reason for reason in reasons if reason is not None), None) or why_not(self._folder)

    def hear(self, trouble: str | None) -> None:
        """It is so now; a change is said."""
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


def why_not(folder: Path, look: Callable[[str], os.statvfs_result] = os.statvfs) -> str | None:
    """Why nothing can be written there; None when something can. Blocks."""
    trial = folder / "trial.new"
    try:
        found = look(os.fspath(folder))
        has_room = found.f_bavail * found.f_frsize >= ENOUGH_BYTES and (found.f_favail > 0 or found.f_files == 0)
        if has_room and os.access(folder, os.W_OK):
            return None
        try:
            _fill(trial, bytes(TRIAL_BYTES))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def write_whole(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    fresh = path.with_suffix(".new")
    try:
        _fill(fresh, data)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def _fill(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
