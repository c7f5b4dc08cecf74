"""Whether files are still what they were: their sizes, times and numbers, never their content."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Final

MOST_FILES: Final = 2000  # of one folder


def stamp(paths: Iterable[Path | str]) -> Hashable:
    """Something that differs from before when one of these files, or a file in one of these folders, has changed, come
    or gone. Blocks shortly.
    """
    return tuple((str(path), _file(path), _folder(path)) for path in (Path(each).expanduser() for each in paths))


def _file(path: Path) -> Hashable:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _folder(path: Path) -> Hashable:
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, MOST_FILES))
    except (OSError, ValueError):
        return None
    return tuple((name, _file(path / name)) for name in names)
