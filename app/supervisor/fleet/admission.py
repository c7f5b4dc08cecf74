"""How many requests an engine gets at a time: as many as it works on; the rest waits here, in order.

An engine that queues requests itself notices late that a client has gone: llama.cpp only once a slot takes the request
up (docs/decisions.md, "Admission"). A request that waits here is dropped as soon as its client leaves.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Final

# Of the latest request in the mean time that a request holds its permit.
WEIGHT: Final = 0.2


class QueueFull(Exception):
    """There is no permit, and none to wait for. `retry_after_s`: when there may be one; None: not known."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Permit:
    """One request may be at the engine, until `release`."""

    def __init__(self, gate: AdmissionGate) -> None:
        self._gate: AdmissionGate | None = gate
        self._since = gate.now()

    def release(self) -> None:
        """The request is over; may be called again."""
        if self._gate is not None:
            self._gate.returned(self._gate.now() - self._since)
            self._gate = None


class AdmissionGate:
    """The permits of one backend, over all relays. `now`: a clock in seconds."""

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._limit = limit
        self._held = 0
        self._queue: collections.deque[asyncio.Future[Permit]] = collections.deque()
        self._mean_s: float | None = None

    def __repr__(self) -> str:
        return f"<AdmissionGate {self._held}/{self._limit} waiting={self.waiting}>"

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit."""
        return len(self._queue)

    def resize(self, limit: int) -> None:
        """Give out so many permits from now on; requests that have one keep it."""
        self._limit = limit
        self._admit()

    def dismiss(self) -> None:
        """Let all who wait enter at once: there is nothing behind this gate any more."""
        self.resize(self._held + len(self._queue))

    async def enter(self, max_waiting: int, wait_s: float) -> Permit:
        """The next permit; QueueFull when too many wait already, or when none was free within `wait_s`."""
        if self._held < self._limit and not self._queue:
            return self._permit()
        if len(self._queue) >= max_waiting:
            raise QueueFull(f"{len(self._queue)} requests wait for it already", self._expected_s())
        turn: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(wait_s):
                return await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                turn.result().release()  # it came in the moment of leaving
            elif turn in self._queue:
                self._queue.remove(turn)
            if isinstance(exc, TimeoutError):
                raise QueueFull(f"it had no place for the request within {wait_s:g} s", self._expected_s()) from exc
            raise

    def returned(self, held_s: float) -> None:
        """A permit came back that was held for so long."""
        self._held -= 1
        self._mean_s = held_s if self._mean_s is None else self._mean_s + WEIGHT * (held_s - self._mean_s)
        self._admit()

    def _expected_s(self) -> float | None:
        """How long one who came now would wait."""
        return None if self._mean_s is None else (len(self._queue) + 1) * self._mean_s / self._limit

    def _permit(self) -> Permit:
        self._held += 1
        return Permit(self)

    def _admit(self) -> None:
        while self._queue and self._held < self._limit:
            turn = self._queue.popleft()
            if not turn.done():  # a cancelled one is still there until its task has run
                turn.set_result(self._permit())
