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
from dataclasses import replace
from typing import Final

from backends.engine import Launch
from backends.process import guard, heartbeat, temp_folder, vital_processes
from backends.process.exit_reasons import RECENT_S
from backends.process.footprint import Footprint, resident_gb
from backends.process.log_tail import LogTail, Printed
from backends.process.ownership import TAG_VARIABLE, kill_tagged, tagged

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
    """One start of one engine. Made by `spawn`; whoever holds it must await `gone()`."""

    def __init__(self, popen: subprocess.Popen[bytes], tag: str, tail: LogTail, folder: str, launch: Launch) -> None:
        self.pid: int | None = None
        self.guard_pid = popen.pid
        self.tag = tag
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._tail = tail
        self._launch = launch
        self._has_begun = asyncio.Event()
        self.shared: set[str] = set()  # its files of shared memory, as its guard reported them
        self._folder = folder
        self._writer: asyncio.StreamWriter | None = None
        self._life: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.tag} pid={self.pid} guard={self.guard_pid}>"

    async def attach(self, guard_socket: socket.socket, output: int) -> None:
        """Take our ends of the guard's socket and of the output; returns when the engine's process exists, or could not
        be started.
        """
        reader, self._writer = await asyncio.open_unix_connection(sock=guard_socket)
        self._life = asyncio.create_task(self._follow(reader, output), name=f"process {self.tag}")
        await self._has_begun.wait()

    def tail(self, within_s: float | None = None) -> list[str]:
        """The last lines it printed, oldest first; `within_s`: only those of the last so many seconds."""
        return self._tail.lines(within_s)

    def printed(self) -> Printed:
        """How much it has printed altogether."""
        return self._tail.printed()

    def why(self, code: int, *, has_served: bool) -> str:
        """Why it ended with this exit code, in one sentence fit for a client; `has_served`: it was ready before."""
        return self._launch.explain(code, self.tail(RECENT_S if has_served else None), has_served)

    async def loss(self) -> str:
        """Wait until one of the processes that it cannot go on without ends; returns what that means, in one sentence.
        Waits for ever where it has none now.
        """
        return await vital_processes.loss(self.guard_pid, self._launch.vital)

    def signs(self) -> Hashable:
        """A value that changes whenever any of its processes prints, reads or writes; None where that cannot be seen.
        Blocks shortly.
        """
        counters = heartbeat.io(guard.descendants(self.guard_pid))
        return None if counters is None else (self._tail.seen_bytes, counters)

    def count(self) -> int:
        """How many processes it consists of now; 0 where that cannot be seen. Blocks shortly."""
        return len(guard.descendants(self.guard_pid))

    def cpu_s(self) -> float:
        """The processor time that its processes have used so far, in seconds. Blocks shortly."""
        return heartbeat.cpu_s(guard.descendants(self.guard_pid))

    def footprint(self) -> Footprint:
        """What it takes of the machine now. Blocks shortly."""
        reported = self._launch.reported(self.tail())
        return replace(reported, resident_gb=resident_gb(guard.descendants(self.guard_pid)))

    def terminate(self) -> None:
        """TERM to the engine's process group."""
        self._send(b"term\n")

    def kill(self) -> None:
        """KILL to everything it started."""
        self._send(b"kill\n")

    async def stop(self, grace_s: float) -> int:
        """TERM, and KILL after `grace_s` seconds; returns its exit code once nothing of it is left."""
        self.terminate()
        done, _ = await asyncio.wait({self.exited}, timeout=grace_s)
        if not done:
            self.kill()
        await self.gone()
        return self.exited.result()

    async def gone(self) -> None:
        """Wait until nothing of it is left, its guard included."""
        if self._life is not None:
            await asyncio.shield(self._life)

    def _send(self, order: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(order)

    async def _follow(self, reader: asyncio.StreamReader, output: int) -> None:
        reading = asyncio.create_task(_read_output(output, self._tail))
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._take(line.split())
        code = await asyncio.to_thread(self._popen.wait)
        if not self.exited.done():
            # The guard itself was killed. The engine went with it; what it had started may be our child now.
            self.exited.set_result(code or 1)
            await asyncio.to_thread(self._clean_up)
        self._has_begun.set()
        if self._writer is not None:
            self._writer.close()
        # Nobody holds the other end any more, except a process that lost its tag: do not wait for that one.
        await asyncio.wait({reading}, timeout=1.0)
        reading.cancel()
        await asyncio.wait({reading})

    def _clean_up(self) -> None:
        """What the guard would have done: end what is left, and remove its files."""
        kill_tagged(f"{self.tag}\0", self.pid)
        guard.remove_unused(self.shared)
        guard.remove_folder(self._folder)

    def _take(self, words: list[bytes]) -> None:
        """A line from the guard."""
        match words:
            case [b"holds", *path]:
                self.shared.add(os.fsdecode(b" ".join(path)))
            case [b"started", pid]:
                self.pid = int(pid)
                self._has_begun.set()
            case [b"exited", code] if not self.exited.done():
                self.exited.set_result(int(code))


async def spawn(launch: Launch, tag: str, secrets: Sequence[str] = ()) -> Process:
    """Start an engine under its guard; it inherits no descriptor.

    Its environment is the launch's, the tag, and a TMPDIR of its own that is removed with it. `secrets` never appear in
    `tail()`. An engine that cannot be started counts as one that has exited: nothing is raised for it.
    """
    temp = await asyncio.to_thread(temp_folder.make, tag, launch.env.get("TMPDIR"))
    folder = temp.folder
    ours, theirs = socket.socketpair()
    output, engine_output = os.pipe()
    argv = [sys.executable, "-I", "-S", guard.__file__, f"{theirs.fileno()},{temp.lock}", folder, *launch.argv]
    # The guard ignores these; until its first line has run, they wait. The mask is inherited, a handler is not.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        popen = subprocess.Popen(  # noqa: ASYNC220 - a vfork, milliseconds; the loop's own way cannot keep the mask
            argv,
            env={**launch.env, "TMPDIR": folder, TAG_VARIABLE: tag},
            stdin=subprocess.DEVNULL,
            stdout=engine_output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), temp.lock),
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
        temp.close()
        os.close(engine_output)
    process = Process(popen, tag, LogTail(secrets), folder, launch)
    await process.attach(ours, output)
    return process


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now; an engine that finds it taken meanwhile says so and ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What an engine gets of our own environment: where things are, and none of our secrets."""
    return {name: value for name, value in environ.items() if name in _INHERITED}


def gpu_environment(devices: Sequence[str]) -> dict[str, str]:
    """The variables that give an engine these GPUs, by UUID so that no two programs count them differently.

    Empty without devices.
    """
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if devices else {}


def adopt_orphans() -> None:
    """Make what a killed guard leaves behind become children of this process, so that it can be reaped (Linux only)."""
    guard.become_subreaper()


async def sweep(state_id: str) -> int:
    """End every process that an earlier supervisor with this state folder left behind; returns how many there were."""
    return await asyncio.to_thread(_sweep, f"{state_id}:")


def _sweep(tag: str) -> int:
    shared = guard.shared_files(tagged(tag))
    count = kill_tagged(tag)
    guard.remove_unused(shared)
    return count


async def _read_output(output: int, tail: LogTail) -> None:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(output, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(65_536):
            tail.feed(data)
    finally:
        transport.close()
