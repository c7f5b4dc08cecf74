"""JSON files in the state folder: each is written whole or not at all.

No request needs them, so a full disk stops none: what could not be written is kept in memory and written later.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import structlog

log = structlog.get_logger()

Content = TypeVar("Content")


class JsonStore(Generic[Content]):
    """One JSON file that holds a `content` value, as its owner last wanted it. `path` None: nothing is kept on disk.

    The methods block; they may be called from several threads.
    """

    def __init__(self, path: Path | None, content: type[Content]) -> None:
        self.path = path
        self._content = content
        self._unwritten: bytes | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<JsonStore {self.path} {'behind' if self._unwritten is not None else 'written'}>"

    def read(self) -> Content | None:
        """What the file holds; None when there is no file. A file that is damaged counts as missing and is logged."""
        if self.path is None:
            return None
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=self._content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:  # not JSON, not what we write
            log.warning("file not readable; what it held is collected anew", path=str(self.path), reason=str(exc))
            return None

    def write(self, value: Content) -> None:
        """Make the file hold this. A failure is only logged: `catch_up` tries again."""
        with self._lock:
            self._unwritten = msgspec.json.encode(value)
        if (reason := self.catch_up()) is not None:
            log.warning("file not written; it is tried again", path=str(self.path), reason=reason)

    def catch_up(self) -> str | None:
        """Write what could not be written so far. Returns why that fails, None when the file is up to date."""
        with self._lock:
            if self.path is not None and self._unwritten is not None:
                try:
                    _write_whole(self.path, self._unwritten)
                except OSError as exc:
                    return exc.strerror or str(exc)
            self._unwritten = None
        return None


def _write_whole(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    try:
        write_synced(fresh, data)
        fresh.replace(path)
    except BaseException:  # a signal during the start, too
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that only this user can read, and wait until the disk has it. OSError when it does not take it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
