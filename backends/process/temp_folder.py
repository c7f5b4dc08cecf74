"""A folder for the temporary files of one engine's start, gone with it.

Its path is short, because engines put Unix sockets into it (about 100 bytes are possible). Every start has its own: the
engine before may still be serving. Who holds the folder's lock uses it; the others of the same backend are what a
killed supervisor and a killed guard left behind, and the next start removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONGEST_BASE: Final = 40


@dataclass(frozen=True, slots=True)
class TempFolder:
    """A folder, and the descriptor that holds its lock: whoever inherits that holds it too."""

    folder: str
    lock: int

    def close(self) -> None:
        """Leave the lock to those who inherited it."""
        os.close(self.lock)


def place(mark: str, base: str | None) -> tuple[Path, str]:
    """Where the folders of an engine with this mark are: below `base`, or the system's when that is too long; and how
    their names begin.
    """
    parent = base if base is not None and len(base) <= LONGEST_BASE else "/tmp"  # noqa: S108
    if not os.access(parent, os.W_OK):
        parent = tempfile.gettempdir()
    backend, _, _ = mark.rpartition(":")
    return Path(parent), f"mp-{hashlib.sha256(backend.encode()).hexdigest()[:8]}-"


def make(mark: str, base: str | None) -> TempFolder:
    """A new one, empty and our own; what nobody uses any more of this backend's earlier ones goes. Blocks."""
    parent, prefix = place(mark, base)
    with contextlib.suppress(OSError):
        for left in parent.glob(f"{prefix}*"):
            _remove_unused(left)
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
        with contextlib.suppress(FileNotFoundError):  # another start took it for one that is left behind
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _is_locked(lock) and Path(folder).is_dir():
                return TempFolder(folder, lock)
            os.close(lock)


def _is_locked(lock: int) -> bool:
    """Take the lock. Where the file system knows none, nothing there is ever taken for left behind."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_unused(folder: Path) -> None:
    with contextlib.suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
