"""Who listens on a port of this machine, as /proc tells (Linux)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LISTENS: Final = "0A"  # the state TCP_LISTEN


def users_of(port: int, root: Path = Path("/proc")) -> tuple[tuple[int, str], ...]:
    """The processes that listen on a TCP port, each with its name; those that are not shown to us are left out."""
    inodes = set(_inodes(port, root))
    if not inodes:
        return ()
    users = []
    for entry in sorted(root.glob("[0-9]*"), key=lambda entry: int(entry.name)):
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
            if any(_target(file) in inodes for file in (entry / "fd").iterdir()):
                users.append((int(entry.name), (entry / "comm").read_text().strip()))
    return tuple(users)


def _inodes(port: int, root: Path) -> Iterator[str]:
    """The sockets that listen on it, as links of open files name them."""
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            for line in (root / table).read_text().splitlines()[1:]:
                words = line.split()
                if len(words) > 9 and words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{words[9]}]"


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""
