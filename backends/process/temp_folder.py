"""A folder for the temporary files of one engine's start, removed with it.

Its path is short, because engines put Unix sockets into it (about 100 bytes are possible). Every start has its own: the
engine of the start before may still be serving. Whoever holds the folder's lock uses it; a folder of the same backend
whose lock nobody holds was left behind by a killed supervisor and a killed guard, and the next start removes it.
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
    """A folder, and the descriptor that holds its lock: whoever inherits the descriptor holds the lock too."""

    folder: str
    lock: int

    def close(self) -> None:
        """Leave the lock to the processes that inherited it."""
        os.close(self.lock)


def location(tag: str, base: str | None) -> tuple[Path, str]:
    """Where the folders of a process with this tag are (below `base`, or the system's folder when that is too long or
    cannot be written), and the prefix of their names, which all starts of one backend share.
    """
    parent = base if base is not None and len(base) <= LONGEST_BASE else "/tmp"  # noqa: S108
    if not os.access(parent, os.W_OK):
        parent = tempfile.gettempdir()
    backend, _, _ = tag.rpartition(":")
    return Path(parent), f"mp-{hashlib.sha256(backend.encode()).hexdigest()[:8]}-"


def make(tag: str, base: str | None) -> TempFolder:
    """A new one, empty and readable by us only, with its lock held; earlier ones of this backend that nobody uses any
    more are removed. Blocks.
    """
    parent, prefix = location(tag, base)
    with contextlib.suppress(OSError):
        for earlier in parent.glob(f"{prefix}*"):
            _remove_unused(earlier)
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
        with contextlib.suppress(FileNotFoundError):  # another start took it for one that was left behind
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _is_locked(lock) and Path(folder).is_dir():
                return TempFolder(folder, lock)
            os.close(lock)


def _is_locked(lock: int) -> bool:
    """Take the lock, shared. Where the file system has no locks it counts as taken, and nothing there is removed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_unused(folder: Path) -> None:
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
