"""The state folder: private to its user, held by one supervisor at a time; and the paths of the files in it."""

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

from app import running_gateway
from app.config.settings import CONTROL_SOCKET
from backends.process import compile_cache

MEASUREMENTS: Final = "measures.json"
CAPABILITIES: Final = "proofs.json"
CERTIFICATES: Final = "certificates.json"
STORE: Final = "store.db"


class StateError(Exception):
    """The folder cannot be used. The message says why and what to do."""


class StateFolder:
    """The folder, locked by this process inside a `with` block.

    Entering raises StateError when the folder cannot be used. However the process ends, the kernel frees the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<StateFolder {self.path} {'held' if self._lock is not None else 'free'}>"

    @property
    def control_socket(self) -> Path:
        """The socket that the admin application listens on."""
        return self.path / CONTROL_SOCKET

    @property
    def relay_socket(self) -> Path:
        """The socket over which the relays talk to the supervisor."""
        return self.path / "relay.sock"

    @property
    def capabilities(self) -> Path:
        """The file with what tests have shown of models."""
        return self.path / CAPABILITIES

    @property
    def certificates(self) -> Path:
        """The file with the certificate of each public name."""
        return self.path / CERTIFICATES

    @property
    def comparisons(self) -> Path:
        """The folder with the runs of `modelport compare`."""
        return self.path / "comparisons"

    @property
    def votes(self) -> Path:
        """The file with the votes about blind comparisons."""
        return self.path / "votes.jsonl"

    @property
    def store(self) -> Path:
        """The embedded store's file."""
        return self.path / STORE

    @property
    def keys(self) -> Path:
        """The file with the store's keys as they were last known."""
        return self.path / "keys.json"

    @property
    def identity(self) -> Path:
        """The file with who this gateway is among others."""
        return self.path / "gateway.json"

    @property
    def audit(self) -> Path:
        """The file with what the audit in the store does not have yet."""
        return self.path / "audit.jsonl"

    @property
    def measurements(self) -> Path:
        """The file with how much memory engines were measured to take."""
        return self.path / MEASUREMENTS

    @property
    def digests(self) -> Path:
        """The file with the digests of what engines were started from."""
        return self.path / "digests.json"

    @property
    def pins(self) -> Path:
        """The folder that keeps which commit of each Hugging Face model is used, in one file per model."""
        return self.path / "hub"

    @property
    def caches(self) -> Path:
        """The folder with what engines have compiled, by their versions."""
        return self.path / "compiled"

    @property
    def id(self) -> str:
        """16 hex digits that mark our processes: the same for every supervisor on this folder, different for others."""
        return hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:16]

    def __enter__(self) -> Self:
        _make_ready(self.path)
        self._lock = _take(self.path / "lock", self.path)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            for path in (self.control_socket, self.relay_socket):
                path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def sweep(self) -> None:
        """Remove what an earlier supervisor left: sockets without a listener, counter files of old versions, compiled
        files of old engines. StateError when that is not possible.
        """
        try:
            for leftover in (self.control_socket, self.relay_socket):
                leftover.unlink(missing_ok=True)
            # Only the files that relays wrote: others are not ours to remove.
            for counter in (self.path / "metrics").glob("*.db"):
                counter.unlink()
            compile_cache.prune(self.caches)
        except OSError as exc:
            raise _unusable(self.path, exc) from exc

    def check(self) -> None:
        """Raise StateError when the folder was removed: a relay that starts could not reach us any more."""
        if not self.relay_socket.exists():
            raise StateError(
                f"{self.relay_socket} has been removed while the gateway ran, so no relay can be started; keep what "
                "cleans up temporary files away from the state folder, or choose another with --state"
            )


def prepare(path: Path) -> None:
    """Make the folder what a supervisor takes for its own, without taking it: for commands that put something there
    before there was a gateway. StateError when it cannot be one.
    """
    _make_ready(path)
    try:
        (path / "lock").touch(mode=0o600)
    except OSError as exc:
        raise _unusable(path, exc) from exc


def is_held(path: Path) -> bool:
    """Whether a supervisor runs on the folder."""
    try:
        with (path / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def check_free(path: Path) -> None:
    """StateError where a supervisor runs on the folder."""
    if is_held(path):
        holder = ""
        with contextlib.suppress(OSError, ValueError):
            holder = (path / "lock").read_text().strip()
        raise _in_use(path, holder)


def bind_private(path: Path) -> socket.socket:
    """A Unix socket bound to `path` that only this user can open. StateError when it fails, as on a full disk."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        # Before this call it is protected by the folder, which is 0700.
        path.chmod(0o600)
    except OSError as exc:
        listener.close()
        raise _unusable(path.parent, exc) from exc
    return listener


def _in_use(folder: Path, holder: str) -> StateError:
    """`holder`: what the lock file says, a process id if all is well."""
    who = f"process {holder}" if holder.isdigit() else "another process"
    if url := running_gateway.address(folder / CONTROL_SOCKET):
        who += f", at {url}"
    return StateError(
        f"a gateway already runs on the state folder {folder} ({who}); stop it or choose another with --state"
    )


def _unusable(path: Path, exc: OSError) -> StateError:
    return StateError(f"the state folder {path} cannot be used: {exc.strerror}; choose one with --state")


def _make_ready(path: Path) -> None:
    """Create the folder, or check that it is ours alone: a lock is worth nothing where others may write."""
    try:
        try:
            path.mkdir(mode=0o700, parents=True)
            return
        except FileExistsError:
            status = path.stat()
            has_content = any(path.iterdir())
        if status.st_uid != os.getuid():
            raise StateError(f"the state folder {path} belongs to another user; choose one with --state")
        if has_content and not _is_lock(path / "lock"):
            raise StateError(
                f"the folder {path} holds other files, so it cannot be the state folder; choose a new or an empty one "
                "with --state"
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & stat.S_ISVTX:
            raise StateError(f"the folder {path} is shared by several users; choose a folder in it with --state")
        if mode & 0o077 and has_content:
            raise StateError(
                f"other users may enter the state folder {path}; close it to them with `chmod 700 "
                f"{shlex.quote(str(path))}`, or choose another with --state"
            )
        if mode & 0o077:
            path.chmod(0o700)
    except OSError as exc:
        raise _unusable(path, exc) from exc


def _is_lock(path: Path) -> bool:
    """Whether this is a supervisor's lock file: it holds a process id, or nothing yet."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            return re.fullmatch(rb"(\d+\n)?", file.read(32)) is not None
    except OSError:
        return False


def _take(lock: Path, folder: Path) -> int:
    # Opened without truncating: until the lock is ours, the process id in it is the holder's.
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
        raise _in_use(folder, holder) from exc
    except OSError as exc:  # a network's file system without a lock service
        os.close(descriptor)
        raise StateError(
            f"the state folder {folder} is on a file system that gives no locks ({exc.strerror}), so two gateways "
            "could use it at once; choose one on a local disk with --state"
        ) from exc
    content = f"{os.getpid()}\n".encode()
    # For people only, so a full disk does not matter: what holds the folder is the lock.
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content) if os.pread(descriptor, len(content), 0) == content else 0)
    return descriptor
