"""A small disk that tests fill: a file system of its own where this process may mount one, else the shared memory of a
container. Where there is neither, the folder is made read-only, which gives another error.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SMALL_BYTES: Final = 128 * 1024 * 1024
WORDS: Final = ("No space left on device", "Permission denied")


class Disk:
    """`folder` is on it."""

    def __init__(self, folder: Path, is_small: bool) -> None:
        self.folder = folder
        self._is_small = is_small
        self._filler = folder / "filler"

    def fill(self) -> None:
        """From now on nothing can be written."""
        if self._is_small:
            with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(512))
        else:
            self.folder.chmod(0o500)

    def free(self) -> None:
        """From now on there is space again."""
        self.folder.chmod(0o700)
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A small disk at that path."""
    with contextlib.ExitStack() as stack:
        is_small = _mounted(stack, folder) or _in_shared_memory(stack, folder)
        if not is_small:
            folder.mkdir(mode=0o700)
        disk = Disk(folder, is_small)
        stack.callback(disk.free)
        yield disk


def _mounted(stack: contextlib.ExitStack, folder: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "modelport-test", os.fspath(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        folder.rmdir()
        return False
    stack.callback(subprocess.run, ["umount", "-l", os.fspath(folder)], check=True)
    return True


def _in_shared_memory(stack: contextlib.ExitStack, folder: Path) -> bool:
    try:
        disk = os.statvfs("/dev/shm")
        if disk.f_blocks * disk.f_frsize > SMALL_BYTES:
            return False
        made = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
    except OSError:
        return False
    folder.symlink_to(made)
    stack.callback(folder.unlink)
    return True
