"""A folder for the temporary files of one engine's start, gone with it.

Its path is short, because engines put Unix sockets into it (about 100 bytes are possible); and the same for every start
of one backend, so that what a killed supervisor and a killed guard left behind is found by the next start.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

LONGEST_BASE: Final = 40


def place(mark: str, base: str | None) -> str:
    """Where the folder of an engine with this mark is: below `base`, or the system's when that is too long."""
    parent = base if base is not None and len(base) <= LONGEST_BASE else "/tmp"  # noqa: S108
    if not os.access(parent, os.W_OK):
        parent = tempfile.gettempdir()
    backend, _, _ = mark.rpartition(":")
    return str(Path(parent) / f"mp-{hashlib.sha256(backend.encode()).hexdigest()[:12]}")


def make(mark: str, base: str | None) -> str:
    """That folder, empty and our own; another one when it is somebody else's. Blocks."""
    folder = Path(place(mark, base))
    try:
        if _is_ours(folder):
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    except OSError:
        return tempfile.mkdtemp(prefix="mp-", dir=folder.parent)
    return str(folder)


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
