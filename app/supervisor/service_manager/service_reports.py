"""What the service manager is told, and when: ready, reloading, stopping, a line about the engines, a sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from app.config.model import Config
from app.supervisor.fleet.status import BackendStatus
from app.supervisor.service_manager.notify_socket import NotifySocket, ServiceVariables
from backends.endpoint import State

# Between two looks at the engines, and at the relays before they serve.
LOOK_S: Final = 1.0
STARTING_LOOK_S: Final = 0.05
# Beyond the times that the configuration has: for ending processes that nothing else ends, and for a slow machine.
MARGIN_S: Final = 10.0
_MOST_NAMES: Final = 3
# The states that are worth a word, the worst first.
_TOLD: Final = (State.FAILED, State.STARTING, State.STOPPING, State.SLEEPING, State.STOPPED)


def status_line(backends: Sequence[BackendStatus]) -> str:
    """How the engines are, in one line: `2 of 3 engines ready, starting: big`. Pure."""
    ready = sum(each.state is State.READY for each in backends)
    words = [f"{ready} of {len(backends)} engine{'' if len(backends) == 1 else 's'} ready"]
    for state in _TOLD:
        if names := [each.name for each in backends if each.state is state]:
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            words.append(f"{state.value}: {' '.join(names[:_MOST_NAMES])}{more}")
    return ", ".join(words)


def longest_stop_s(config: Config, relay_grace_s: float, linger_s: float) -> float:
    """The most seconds from the signal to the end of the last process: what a manager must wait before it kills. Pure.

    `relay_grace_s`: what relays have beyond the time of their requests; `linger_s`: the time before it stops listening.
    """
    graces = [managed.stop_grace_s for each in config.backends.values() if (managed := each.as_managed()) is not None]
    return linger_s + config.server.drain_s + relay_grace_s + max(graces, default=0.0) + MARGIN_S


class ServiceReports:
    """Tells the service manager; where there is none, nothing is done."""

    def __init__(self, variables: ServiceVariables, now: Callable[[], float] = time.monotonic) -> None:
        self._socket = NotifySocket(variables.address)
        self._watchdog_s = variables.watchdog_s
        self._now = now
        self._status = ""
        self._pause_s = LOOK_S if self._watchdog_s is None else min(LOOK_S, self._watchdog_s / 4)
        self._alive_at = -math.inf
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<ServiceReports {self._socket} watchdog_s={self._watchdog_s}>"

    async def run(self, serves: Callable[[], bool], status: Callable[[], str]) -> None:
        """Say when the relays serve, and from then on how the engines are, until cancelled.

        The signs of life come from the event loop that everything else runs in: where it stands still, they end.
        """
        if not self._socket.is_heard:
            await asyncio.get_running_loop().create_future()
        is_ready = False
        while True:
            lines = [] if is_ready or not serves() else ["READY=1"]
            is_ready = is_ready or bool(lines)
            pause_s = self._pause_s if is_ready else STARTING_LOOK_S
            self._report(status() if is_ready else "starting", *lines, *self._sign_of_life(pause_s))
            await asyncio.sleep(pause_s)

    def _sign_of_life(self, pause_s: float) -> tuple[str, ...]:
        """One is due when the next look would come after half of the time that the manager waits for it."""
        now = self._now()
        if self._watchdog_s is None or now + pause_s < self._alive_at + self._watchdog_s / 2:
            return ()
        self._alive_at = now
        return ("WATCHDOG=1",)

    def _report(self, status: str, *lines: str) -> None:
        changed = () if status == self._status else (f"STATUS={status}",)
        self._status = status
        if lines or changed:
            self._socket.send(*lines, *changed)
        self._socket.flush()

    @contextlib.asynccontextmanager
    async def reloading(self) -> AsyncIterator[None]:
        """Around a reload, whatever comes of it."""
        if self._is_stopping:
            yield
            return
        self._socket.send("RELOADING=1", f"MONOTONIC_USEC={int(self._now() * 1e6)}")
        try:
            yield
        finally:
            if not self._is_stopping:
                self._socket.send("READY=1")

    def stopping(self, within_s: float) -> None:
        """It ends, after at most so many seconds: the manager is to wait so long, whatever its own settings say."""
        self._is_stopping = True
        self._socket.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}")

    def close(self) -> None:
        """Say nothing more."""
        self._socket.close()
