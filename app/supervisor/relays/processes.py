"""The relays as processes: as many as configured, on a listening socket that they inherit, each replaced at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

import app
from app import shared_counters
from app.supervisor.metrics.relay_counters import RelayCounters

log = structlog.get_logger()

# The variables of our environment that a relay needs. Not the others: they hold keys and passwords of engines.
PASSED_ON = frozenset(
    {
        *("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ"),
        "MODELPORT_CARRIER",  # how a relay runs requests (app/relay/server.py); for tests and comparison
    }
)
SHORT_LIFE_S = 1.0
LAST_WORDS_S = 5.0


def pause_s(short_lives: int) -> float:
    """Seconds to wait before the next start, after so many lives in a row that were shorter than SHORT_LIFE_S."""
    return 0.0 if short_lives <= 1 else min(5.0, 0.1 * 2 ** min(short_lives - 2, 10))


def argv(descriptor: int, state: Path, index: int, counters: int) -> list[str]:
    """The command line of one relay. `-P`: an `app` in the folder where we were started must not be taken for ours."""
    command = [sys.executable, "-P", "-m", "app.relay", "--fd", str(descriptor), "--state", str(state)]
    return [*command, "--index", str(index), "--counters", str(counters)]


def environment(ours: Mapping[str, str], log_format: str, log_level: str) -> dict[str, str]:
    """A relay's environment: nothing secret."""
    passed_on = {name: value for name, value in ours.items() if name in PASSED_ON or name.startswith("LC_")}
    return {
        **passed_on,
        "PYTHONPATH": str(Path(app.__file__).parent.parent),
        "MODELPORT_LOG_FORMAT": log_format,
        "MODELPORT_LOG_LEVEL": log_level,
    }


class Relays:
    """Keeps relays alive until it is closed. Their processes are its alone.

    `command` makes a command line of a relay's index and the file descriptor of its counters. `check` is called before
    a relay is replaced; what it raises ends that (`failed`).
    """

    def __init__(
        self,
        descriptor: int,
        counters: RelayCounters,
        env: Mapping[str, str],
        command: Callable[[int, int], Sequence[str]],
        check: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._descriptor = descriptor
        self._counters = counters
        self._env = env
        self._command = command
        self._check = check
        self._now = now
        self._alive: dict[int, asyncio.subprocess.Process] = {}
        self._indices: dict[int, int] = {}  # of those that run, by pid
        self._keepers: list[asyncio.Task[None]] = []
        self._closing = asyncio.Event()
        self._connections: int | None = None  # where several relays tell each other how many they have
        self.restarts = 0
        self.wanted = 0

    def __repr__(self) -> str:
        return f"<Relays {sorted(self._alive)}>"

    @property
    def pids(self) -> tuple[int, ...]:
        """The process numbers of the relays that run."""
        return tuple(sorted(self._alive))

    @property
    def named(self) -> dict[str, int]:
        """The process numbers of the relays that run, by their names: relay-0, relay-1 …"""
        return {f"relay-{index}": pid for pid, index in sorted(self._indices.items(), key=lambda each: each[1])}

    def start(self, count: int) -> None:
        """Start so many relays (`wanted`); each is started again whenever it ends. Several take connections in turn."""
        self.wanted = count
        if count > 1:
            self._connections = shared_counters.create()
        for index in range(count):
            self._keepers.append(asyncio.create_task(self._keep(index), name=f"relay {index}"))

    async def failed(self) -> None:
        """Wait until a relay is not kept alive any more: returns after `close`, and raises what stopped it before."""
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_COMPLETED)
        for keeper in done:
            keeper.result()

    def lost(self, pid: int, is_at_fault: bool) -> None:
        """This relay's connection to us is gone. It is killed at once where it is at fault, else after LAST_WORDS_S."""
        process = self._alive.get(pid)
        if process is None:
            return
        if is_at_fault:
            _kill(process)
        else:
            asyncio.get_running_loop().call_later(LAST_WORDS_S, _kill, process)

    async def close(self, grace_s: float) -> None:
        """Start no more; wait for the relays to end as they were asked to, and kill those that take over `grace_s`."""
        self._closing.set()
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=grace_s)
            if late:
                log.warning("relays killed", pids=self.pids, grace_s=grace_s)
        self.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._connections is not None:
            os.close(self._connections)
            self._connections = None

    def kill(self) -> None:
        """End all of them at once, and start no more."""
        self._closing.set()
        for process in self._alive.values():
            _kill(process)

    async def _keep(self, index: int) -> None:
        short_lives = 0
        while not self._closing.is_set():
            began = self._now()
            end = await self._live(index)
            took = self._now() - began
            if self._closing.is_set():
                return
            self.restarts += 1
            short_lives = short_lives + 1 if took < SHORT_LIFE_S else 0
            pause = pause_s(short_lives)
            log.error("relay ended", index=index, end=end, lived_s=round(took, 2), next_in_s=pause)
            self._check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()

    async def _live(self, index: int) -> str:
        try:
            counters = self._counters.open()
        except OSError as exc:
            return f"not started: {exc}"
        try:
            return await self._run(index, counters)
        finally:
            await asyncio.to_thread(self._counters.close, counters)

    async def _run(self, index: int, counters: int) -> str:
        shared = [] if self._connections is None else [self._connections]
        try:
            # Its own session: Ctrl-C and a closing terminal are the supervisor's to hear.
            process = await asyncio.create_subprocess_exec(
                *self._command(index, counters),
                *(f"--connections={each}" for each in shared),
                env=self._env,
                pass_fds=[self._descriptor, counters, *shared],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as exc:
            return f"not started: {exc}"
        self._alive[process.pid], self._indices[process.pid] = process, index
        log.info("relay started", index=index, pid=process.pid)
        try:
            if self._closing.is_set():
                process.kill()
            return end_words(await process.wait())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._alive.pop(process.pid, None)
            self._indices.pop(process.pid, None)


def end_words(code: int) -> str:
    """How a process ended, by its return code."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _kill(process: asyncio.subprocess.Process) -> None:
    # Only while nobody has waited for it: afterwards its pid may be somebody else's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
