"""Who of several relays takes the next connection: all listen on one socket, and they keep their numbers even.

Each tells in a page of memory, which all relays of a gateway share, how many connections it has. One that has more than
another stands back for a moment, so that the other takes what waits; one that is not taken in time is taken after all.
A relay that says nothing for a while (it is stuck, or has ended) is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog

log = structlog.get_logger()

PAGE_BYTES: Final = 4096
_SLOT: Final = 2  # numbers of 8 bytes for each relay: when it told last (seconds of the monotonic clock), connections
TELL_S: Final = 0.05
STALE_S: Final = 0.2
LOOK_S: Final = 0.001
PATIENCE_S: Final = 0.2
SHORTAGE_S: Final = 1.0


def takes_next(own: int, others: Iterable[int]) -> bool:
    """Whether a relay with so many connections takes the next one: it has no more than the others, within 5 %."""
    return own <= min(others, default=own) + own // 20


class ConnectionNumbers:
    """How many connections each relay has. `descriptor`: the shared memory; `index`: which of the relays this is."""

    def __init__(self, descriptor: int, index: int) -> None:
        if os.fstat(descriptor).st_size < PAGE_BYTES:
            # Whoever comes first; zeros are nobody. Written: memory that is only promised may end who touches it.
            os.pwrite(descriptor, bytes(PAGE_BYTES), 0)
        self._numbers = memoryview(mmap.mmap(descriptor, PAGE_BYTES)).cast("d")
        self._own = index * _SLOT

    def tell(self, connections: int, now: float) -> None:
        """This relay has so many."""
        self._numbers[self._own + 1] = connections
        self._numbers[self._own] = now

    def forget(self) -> None:
        """This relay takes no more, so that nobody waits for it."""
        self._numbers[self._own] = 0.0

    def others(self, now: float) -> Sequence[int]:
        """The numbers of all other relays that have told theirs lately."""
        numbers, since = self._numbers, now - STALE_S
        return [int(numbers[at + 1]) for at in range(0, len(numbers), _SLOT) if numbers[at] > since and at != self._own]


class Acceptor:
    """Accepts connections for one of several relays. `connections`: how many it has; `protocol`: one for a new one."""

    def __init__(
        self,
        listener: socket.socket,
        numbers: ConnectionNumbers,
        connections: Callable[[], int],
        protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._listener = listener
        self._numbers = numbers
        self._connections = connections
        self._protocol = protocol
        self._now = time.monotonic  # which all processes of a machine share
        self._loop = asyncio.get_running_loop()
        self._joining: set[asyncio.Task[Any]] = set()
        self._takes_all = False
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)
        self._telling: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._patience_ends = 0.0
        self._short_until = 0.0

    def __repr__(self) -> str:
        return f"<Acceptor connections={self._own()} others={self._numbers.others(self._now())}>"

    def start(self) -> None:
        """Accept from now on."""
        self._loop.add_reader(self._listener, self._accept)
        self._tell()

    def take_all(self) -> None:
        """Take whatever waits, whoever has how many, and have no other relay wait for this one."""
        self._takes_all = True
        if self._telling is not None:
            self._telling.cancel()
        self._numbers.forget()

    async def aclose(self) -> None:
        """Accept no more; those that have been accepted join."""
        self.take_all()
        if self._looking is not None:
            self._looking.cancel()
        self._loop.remove_reader(self._listener)
        if self._joining:
            await asyncio.wait(self._joining)

    def _own(self) -> int:
        return self._connections() + len(self._joining)

    def _tell(self) -> None:
        # Also what others see while nobody connects: connections that have closed.
        now = self._now()
        if now >= self._short_until:
            self._numbers.tell(self._own(), now)
        self._telling = self._loop.call_later(TELL_S, self._tell)

    def _accept(self) -> None:
        """Take as many as are this relay's; where more wait, look again in a moment."""
        while self._takes_all or self._is_next():
            if not self._take_one():
                return
        self._loop.remove_reader(self._listener)
        self._patience_ends = self._now() + PATIENCE_S
        self._look_in(LOOK_S)

    def _look(self) -> None:
        """See whether somebody has taken what waits. This relay takes one when it is its turn, or patience is over."""
        if not self._waiting.poll(0):
            self._loop.add_reader(self._listener, self._accept)
        elif self._takes_all or self._is_next():
            self._loop.add_reader(self._listener, self._accept)
            self._accept()
        else:
            self._look_in(LOOK_S)
            if self._now() >= self._patience_ends:
                self._patience_ends = self._now() + PATIENCE_S
                self._take_one()

    def _look_in(self, seconds: float) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self._loop.call_later(seconds, self._look)

    def _is_next(self) -> bool:
        return takes_next(self._own(), self._numbers.others(self._now()))

    def _take_one(self) -> bool:
        """Accept a connection; False where there is none, or nothing left to have it with."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as exc:
            log.error("a connection cannot be accepted", reason=str(exc), next_try_in_s=SHORTAGE_S)
            self._numbers.forget()
            self._short_until = self._now() + SHORTAGE_S
            self._loop.remove_reader(self._listener)
            self._look_in(SHORTAGE_S)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._join(connection))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        if not self._takes_all:
            self._numbers.tell(self._own(), self._now())
        return True

    async def _join(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is gone already
            with contextlib.suppress(OSError):
                connection.close()
