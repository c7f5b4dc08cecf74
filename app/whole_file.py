"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file under another name in its folder, wait until the disk has it, and rename it. OSError where that is
    not possible; then the file is what it was. `mode`: its rights, less what the umask takes. Blocks.

    Two processes may write the same file at once: one of their files is there. What a killed one left is removed.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        if not _runs(left.name.split(".")[-2]):
            with contextlib.suppress(OSError):
                left.unlink()
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _runs(pid: str) -> bool:
    """Whether there is a process of this number, or this is none."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError, OverflowError):  # somebody else's, for one
        return True
    return True
