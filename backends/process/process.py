"""One engine's process as the supervisor's event loop sees it.

Between us and the engine stands its guard (backends/process/guard.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Final

from backends.engine import Launch
from backends.process import guard, heartbeat, temp_folder, vital_signs
from backends.process.exit_reasons import RECENT_S
from backends.process.footprint import Footprint, measured
from backends.process.log_tail import LogTail
from backends.process.ownership import MARK_VARIABLE, kill_tagged, tagged

_INHERITED: Final = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HF_HOME", "SYSTEMROOT"),
        *("HF_HUB_CACHE", "HF_ENDPOINT"),
        *("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    }
)
_HELD_BACK: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Process:
    """One start of one engine. Made by `spawn`; `gone()` must be awaited by whoever holds it."""

    def __init__(self, popen: subprocess.Popen[bytes], mark: str, tail: LogTail, folder: str, launch: Launch) -> None:
        self.pid: int | None = None
        self.guard_pid = popen.pid
        self.mark = mark
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._tail = tail
        self._explain, self._vital = launch.explain, launch.vital
        self._has_begun = asyncio.Event()
        self.shared: set[str] = set()  # its files of shared memory, as its guard has seen them
        self._folder = folder
        self._writer: asyncio.StreamWriter | None = None
        self._life: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.mark} pid={self.pid} guard={self.guard_pid}>"

    async def attach(self, line: socket.socket, output: int) -> None:
        """Take our ends of the guard's socket and of the output; returns when the engine's process exists or cannot."""
        reader, self._writer = await asyncio.open_unix_connection(sock=line)
        self._life = asyncio.create_task(self._follow(reader, output), name=f"process {self.mark}")
        await self._has_begun.wait()

    def tail(self, within_s: float | None = None) -> list[str]:
        """The last lines it wrote; `within_s`: only what came no longer ago."""
        return self._tail.lines(within_s)

    def why(self, code: int, *, has_served: bool) -> str:
        """Why it ended with this code, or fails with 0, in one sentence."""
        return self._explain(code, self.tail(RECENT_S if has_served else None), has_served)

    async def loss(self) -> str:
        """Wait for the end of one of its processes that it cannot go on without, of those that it has now."""
        return await vital_signs.loss(self.guard_pid, self._vital)

    def signs(self) -> Hashable:
        """Something that differs from before when any of it has printed, read or written since. Blocks shortly."""
        moved = heartbeat.io(guard.descendants(self.guard_pid))
        return None if moved is None else (self._tail.seen_bytes, moved)

    def cpu_s(self) -> float:
        """Processor time that its processes have used so far. Blocks shortly."""
        return heartbeat.cpu_s(guard.descendants(self.guard_pid))

    def footprint(self) -> Footprint:
        """What it takes of the machine now. Blocks shortly."""
        return measured(guard.descendants(self.guard_pid), self.tail())

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
            await asyncio.to_thread(self._bury)
        self._has_begun.set()
        if self._writer is not None:
            self._writer.close()
        # Nobody holds the other end any more, except a process that lost its mark: do not wait for that one.
        await asyncio.wait({listening}, timeout=1.0)
        listening.cancel()
        await asyncio.wait({listening})

    def _bury(self) -> None:
        """What the guard would have done."""
        kill_tagged(f"{self.mark}\0", self.pid)
        guard.remove_unused(self.shared)
        guard.remove_folder(self._folder)

    def _hear(self, words: list[bytes]) -> None:
        match words:
            case [b"holds", *path]:
                self.shared.add(os.fsdecode(b" ".join(path)))
            case [b"started", pid]:
                self.pid = int(pid)
                self._has_begun.set()
            case [b"exited", code] if not self.exited.done():
                self.exited.set_result(int(code))


async def spawn(launch: Launch, mark: str, secrets: Sequence[str] = ()) -> Process:
    """Start an engine under its guard; it inherits no descriptor.

    Its environment is the launch's, the mark, and a TMPDIR of its own that goes with it.

    `secrets` never appear in `tail()`. An engine that cannot be started is one that has exited.
    """
    own = await asyncio.to_thread(temp_folder.make, mark, launch.env.get("TMPDIR"))
    folder = own.folder
    ours, theirs = socket.socketpair()
    output, engine_output = os.pipe()
    argv = [sys.executable, "-I", "-S", guard.__file__, f"{theirs.fileno()},{own.lock}", folder, *launch.argv]
    # The guard ignores these; until its first line has run, they wait. The mask is inherited, a handler is not.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        popen = subprocess.Popen(  # noqa: ASYNC220 - a vfork, milliseconds; the loop's own way cannot keep the mask
            argv,
            env={**launch.env, "TMPDIR": folder, MARK_VARIABLE: mark},
            stdin=subprocess.DEVNULL,
            stdout=engine_output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), own.lock),
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        os.close(output)
        guard.remove_folder(folder)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        own.close()
        os.close(engine_output)
    process = Process(popen, mark, LogTail(secrets), folder, launch)
    await process.attach(ours, output)
    return process


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has; the engine says so if somebody takes it meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine may have of our own environment: where things are, and no secret of ours."""
    return {name: value for name, value in environ.items() if name in _INHERITED}


def adopt_orphans() -> None:
    """Let what a killed guard leaves behind become our children, where the system can (Linux)."""
    guard.become_subreaper()


async def sweep(state_id: str) -> int:
    """End every process of an earlier life of this state folder; how many there were."""
    return await asyncio.to_thread(_sweep, f"{state_id}:")


def _sweep(mark: str) -> int:
    shared = guard.shared_files(tagged(mark))
    count = kill_tagged(mark)
    guard.remove_unused(shared)
    return count


async def _listen(output: int, tail: LogTail) -> None:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(output, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(65_536):
            tail.feed(data)
    finally:
        transport.close()
