"""One engine's process as the supervisor's event loop sees it, and what remains of earlier lives.

Between us and the engine stands its guard (backends/guard.py). Every process of an engine carries a mark in its
environment, so that whatever escaped a killed guard, or an earlier supervisor, can be found and ended.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from backends import guard
from backends.base import Launch

MARK_VARIABLE: Final = "MODELPORT_MARK"
TAIL_LINES: Final = 200
TAIL_BYTES: Final = 64 * 1024
_LINE_BYTES: Final = 4096
_INHERITED: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HF_HOME", "SYSTEMROOT"),
        *("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    }
)
_BURIAL_S: Final = 5.0
_HELD_BACK: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Tail:
    """The last lines of an engine's output: at most TAIL_LINES and TAIL_BYTES, secrets replaced."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._longest = max((len(secret) for secret in secrets), default=0)
        self._lines: collections.deque[str] = collections.deque()
        self._size_bytes = 0
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """More output, cut anywhere."""
        *whole, rest = (self._partial + data).split(b"\n")
        for line in whole:
            self._keep(line)
        # A line is cut only behind what a secret across the cut would need to be recognised.
        self._partial = rest[: _LINE_BYTES + self._longest]

    def lines(self) -> list[str]:
        """Oldest first; the last one may be unfinished."""
        if not self._partial:
            return list(self._lines)
        unfinished = self._readable(self._partial)
        for secret in self._secrets:
            # The rest of it may be on its way.
            cuts = (size for size in range(len(secret) - 1, 2, -1) if unfinished.endswith(secret[:size]))
            unfinished = unfinished[: len(unfinished) - next(cuts, 0)]
        return [*self._lines, unfinished]

    def _readable(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").rstrip("\r")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:_LINE_BYTES]

    def _keep(self, line: bytes) -> None:
        text = self._readable(line[: _LINE_BYTES + self._longest])
        self._lines.append(text)
        self._size_bytes += len(text)
        while len(self._lines) > TAIL_LINES or self._size_bytes > TAIL_BYTES:
            self._size_bytes -= len(self._lines.popleft())


class Process:
    """One start of one engine. Made by `spawn`; `gone()` must be awaited by whoever holds it."""

    def __init__(self, popen: subprocess.Popen[bytes], mark: str, tail: Tail) -> None:
        self.pid: int | None = None
        self.guard_pid = popen.pid
        self.mark = mark
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._tail = tail
        self._has_begun = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._life: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.mark} pid={self.pid} guard={self.guard_pid}>"

    async def attach(self, line: socket.socket, output: int) -> None:
        """Take our ends of the guard's socket and of the output; returns when the engine's process exists or cannot."""
        reader, self._writer = await asyncio.open_unix_connection(sock=line)
        self._life = asyncio.create_task(self._follow(reader, output), name=f"process {self.mark}")
        await self._has_begun.wait()

    def tail(self) -> list[str]:
        """The last lines it wrote."""
        return self._tail.lines()

    def terminate(self) -> None:
        """TERM to the engine's process group."""
        self._tell(b"term\n")

    def kill(self) -> None:
        """KILL to everything it started."""
        self._tell(b"kill\n")

    async def stop(self, grace_s: float) -> int:
        """TERM, KILL after `grace_s`; its exit code, when nothing of it is left."""
        self.terminate()
        done, _ = await asyncio.wait({self.exited}, timeout=grace_s)
        if not done:
            self.kill()
        await self.gone()
        return self.exited.result()

    async def gone(self) -> None:
        """Nothing of it is left, its guard included."""
        if self._life is not None:
            await asyncio.shield(self._life)

    def _tell(self, words: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(words)

    async def _follow(self, reader: asyncio.StreamReader, output: int) -> None:
        listening = asyncio.create_task(_listen(output, self._tail))
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._hear(line.split())
        code = await asyncio.to_thread(self._popen.wait)
        if not self.exited.done():
            # The guard itself was killed. The engine went with it; what it had started may be our child now.
            self.exited.set_result(code or 1)
            await asyncio.to_thread(bury, f"{self.mark}\0", self.pid)
        self._has_begun.set()
        if self._writer is not None:
            self._writer.close()
        # Nobody holds the other end any more, except a process that lost its mark: do not wait for that one.
        await asyncio.wait({listening}, timeout=1.0)
        listening.cancel()
        await asyncio.wait({listening})

    def _hear(self, words: list[bytes]) -> None:
        match words:
            case [b"started", pid]:
                self.pid = int(pid)
                self._has_begun.set()
            case [b"exited", code] if not self.exited.done():
                self.exited.set_result(int(code))


async def spawn(launch: Launch, mark: str, secrets: Sequence[str] = ()) -> Process:
    """Start an engine under its guard. Its environment is the launch's and the mark; it inherits no descriptor.

    `secrets` never appear in `tail()`. An engine that cannot be started is one that has exited.
    """
    ours, theirs = socket.socketpair()
    output, engine_output = os.pipe()
    argv = [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno()), *launch.argv]
    # The guard ignores these; until its first line has run, they wait. The mask is inherited, a handler is not.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        popen = subprocess.Popen(  # noqa: ASYNC220 - a vfork, milliseconds; the loop's own way cannot keep the mask
            argv,
            env={**launch.env, MARK_VARIABLE: mark},
            stdin=subprocess.DEVNULL,
            stdout=engine_output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(output)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        os.close(engine_output)
    process = Process(popen, mark, Tail(secrets))
    await process.attach(ours, output)
    return process


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine may have of our own environment: where things are, and no secret of ours."""
    return {name: value for name, value in environ.items() if name in _INHERITED}


def adopt_orphans() -> None:
    """Let what a killed guard leaves behind become our children, where the system can (Linux)."""
    guard.become_subreaper()


async def sweep(state_id: str) -> int:
    """End every process of an earlier life of this state folder; how many there were."""
    return await asyncio.to_thread(bury, f"{state_id}:")


async def _listen(output: int, tail: Tail) -> None:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(output, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(65_536):
            tail.feed(data)
    finally:
        transport.close()


def bury(mark: str, pid: int | None = None) -> int:
    """KILL every process whose mark begins so, and `pid`'s group; reap those that are our children. Blocks.

    A mark ends with NUL in the environment, so `mark + NUL` means exactly this one. Returns how many there were.
    Gives up after 5 s on one that does not die.
    """
    if pid is not None:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    seen = set() if pid is None else {pid}
    end = time.monotonic() + _BURIAL_S
    while time.monotonic() < end:
        alive = marked(mark)
        seen.update(alive)
        for one in alive:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        if not _reap(seen) and not alive:
            break
        time.sleep(0.01)
    return len(seen)


def _reap(pids: Iterable[int]) -> bool:
    """Take the exits of our children among these; whether one of them is still running."""
    is_any_running = False
    for pid in pids:
        with contextlib.suppress(OSError):  # not our child, or taken before
            is_any_running |= os.waitpid(pid, os.WNOHANG)[0] == 0
    return is_any_running


def marked(mark: str) -> list[int]:
    """Every process but this one whose mark begins so. Empty where there is no /proc."""
    wanted = b"\0" + f"{MARK_VARIABLE}={mark}".encode()
    found = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if wanted in b"\0" + (entry / "environ").read_bytes():
                        found.append(int(entry.name))
    return found
