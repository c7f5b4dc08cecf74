"""Whether files have changed: by their sizes, times and inode numbers, never by their content."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Final

MAX_FILES: Final = 2000  # of one folder; more are not looked at


def stamp(paths: Iterable[Path | str]) -> Hashable:
    """A value that is different once one of these files, or a file directly in one of these folders, was changed, added
    or removed. Blocks shortly.
    """
    return tuple((str(path), _file(path), _folder(path)) for path in (Path(each).expanduser() for each in paths))


def _file(path: Path) -> Hashable:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _folder(path: Path) -> Hashable:
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, MAX_FILES))
    except (OSError, ValueError):
        return None
    return tuple((name, _file(path / name)) for name in names)
