"""The state folder: one supervisor at a time, private to its user, and what lies where in it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from app.config.settings import CONTROL_SOCKET
from backends.process import compile_cache

MEASURES: Final = "measures.json"
PROOFS: Final = "proofs.json"


class StateError(Exception):
    """The folder cannot be used; the message says why and what to do."""


class StateFolder:
    """The folder while this process holds its lock. The kernel gives the lock back when the process ends, however."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<StateFolder {self.path} {'held' if self._lock is not None else 'free'}>"

    @property
    def control_socket(self) -> Path:
        """Where the admin application listens."""
        return self.path / CONTROL_SOCKET

    @property
    def relay_socket(self) -> Path:
        """Where the relays are told what they must know."""
        return self.path / "relay.sock"

    @property
    def proofs(self) -> Path:
        """What tests have shown of models."""
        return self.path / PROOFS

    @property
    def measures(self) -> Path:
        """What engines were measured to take."""
        return self.path / MEASURES

    @property
    def pins(self) -> Path:
        """Which commits the models from the hub are, one file for each."""
        return self.path / "hub"

    @property
    def caches(self) -> Path:
        """What engines have compiled, by their versions."""
        return self.path / "compiled"

    @property
    def id(self) -> str:
        """The same for every supervisor on this folder, different for every other: marks our processes."""
        return hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:16]

    def __enter__(self) -> Self:
        _make_ready(self.path)
        self._lock = _take(self.path / "lock", self.path)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            for done in (self.control_socket, self.relay_socket):
                done.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def sweep(self) -> None:
        """Remove what an earlier supervisor left: sockets nobody listens on, and counters, which were files once."""
        try:
            for leftover in (self.control_socket, self.relay_socket):
                leftover.unlink(missing_ok=True)
            # Only what relays wrote: whatever else lies there is not ours to remove.
            for counter in (self.path / "metrics").glob("*.db"):
                counter.unlink()
            compile_cache.prune(self.caches)
        except OSError as exc:
            raise _unusable(self.path, exc) from exc

    def check(self) -> None:
        """StateError when somebody has removed it: no relay that starts could reach us any more."""
        if not self.relay_socket.exists():
            raise StateError(
                f"{self.relay_socket} has been removed while the gateway ran, so no relay can be started; keep what "
                "cleans up temporary files away from the state folder, or choose another with --state"
            )


def bind_private(path: Path) -> socket.socket:
    """A Unix socket at `path` that only this user can open. StateError when there can be none, as on a full disk."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        # Nobody else gets in before this either: the folder is 0700.
        path.chmod(0o600)
    except OSError as exc:
        listener.close()
        raise _unusable(path.parent, exc) from exc
    return listener


def _unusable(path: Path, exc: OSError) -> StateError:
    return StateError(f"the state folder {path} cannot be used: {exc.strerror}; choose one with --state")


def _make_ready(path: Path) -> None:
    """Make the folder, or see that it is ours and nobody else's: what others may write in is no place for a lock."""
    try:
        try:
            path.mkdir(mode=0o700, parents=True)
            return
        except FileExistsError:
            found = path.stat()
            content = any(path.iterdir())
        if found.st_uid != os.getuid():
            raise StateError(f"the state folder {path} belongs to another user; choose one with --state")
        if content and not _is_lock(path / "lock"):
            raise StateError(
                f"the folder {path} holds other things, so it is no place for the state; choose a new or an empty one "
                "with --state"
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_ISVTX:
            raise StateError(f"the folder {path} is shared by several users; choose a folder in it with --state")
        if mode & 0o077 and content:
            raise StateError(
                f"other users may enter the state folder {path}; close it to them with `chmod 700 "
                f"{shlex.quote(str(path))}`, or choose another with --state"
            )
        if mode & 0o077:
            path.chmod(0o700)
    except OSError as exc:
        raise _unusable(path, exc) from exc


def _is_lock(path: Path) -> bool:
    """Whether it is the lock of a supervisor that runs or ran: its process id, or nothing yet."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            return re.fullmatch(rb"(\d+\n)?", file.read(32)) is not None
    except OSError:
        return False


def _take(lock: Path, folder: Path) -> int:
    # Opened without truncating: the pid in it is the holder's until the lock is ours.
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise _unusable(folder, exc) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = ""
        with contextlib.suppress(OSError):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise StateError(
            f"modelport already runs on the state folder {folder} ({who}); stop it or choose another with --state"
        ) from exc
    told = f"{os.getpid()}\n".encode()
    # For people only: what holds the folder is the lock itself, also where the disk has no room for this.
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, told, 0)
    os.ftruncate(descriptor, len(told) if os.pread(descriptor, len(told), 0) == told else 0)
    return descriptor
