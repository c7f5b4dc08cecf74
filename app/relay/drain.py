"""The end of one relay: whoever is connected is answered, also those that wait to be accepted; then it lets go."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Collection
from typing import Any, Final

from app.relay.http.protocol import ServerProtocol

# A handshake that has begun is over in so long, unless the client is on the other side of the world.
HANDSHAKE_S: Final = 0.15
# A connection without a request is closed after so long: until then a client may be about to send one.
QUIET_S: Final = 1.0
# What is told when the time is over (an error event, a 503) has so long to be written and sent.
LAST_WORDS_S: Final = 2.0
_LOOK_S: Final = 0.02


class RelayDrain:
    """What one relay still has to do. `has_lost`: whether the supervisor is gone, which ends every wait."""

    def __init__(
        self,
        connections: Collection[ServerProtocol],
        tasks: Collection[asyncio.Task[Any]],
        has_lost: Callable[[], bool],
    ) -> None:
        self._connections = connections
        self._tasks = tasks
        self._has_lost = has_lost
        self._now = asyncio.get_running_loop().time
        self._quiet_since: dict[ServerProtocol, float] = {}

    def __repr__(self) -> str:
        return f"<RelayDrain connections={len(self._connections)} tasks={len(self._tasks)}>"

    async def accept_rest(self, listener: socket.socket, drain_s: float) -> None:
        """Wait, at most `drain_s`, until nobody waits to be accepted: closing the socket would reset those who do."""
        began = self._now()
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        while not self._has_lost() and (took_s := self._now() - began) < drain_s:
            if took_s >= HANDSHAKE_S and not waiting.poll(0):
                return
            await asyncio.sleep(_LOOK_S)

    async def finish(self, drain_s: float) -> None:
        """Wait until every request is answered and every connection closed. What is not over after `drain_s` is cut
        short, and says so to its client."""
        until = self._now() + drain_s
        while self._is_busy() and self._now() < until:
            self._close_quiet(self._now() - QUIET_S)
            await asyncio.sleep(_LOOK_S)
        until = self._now() + LAST_WORDS_S
        cut: set[asyncio.Task[Any]] = set()
        while self._is_busy() and self._now() < until:
            self._close_quiet(self._now())
            late = set(self._tasks) - cut
            for task in late:
                task.cancel(msg="the time to drain is over")
            cut |= late
            await asyncio.sleep(_LOOK_S)
        # The event loop's end cancels tasks, but not what is carried without one.
        for task in set(self._tasks) - cut:
            task.cancel(msg="the supervisor is gone")
        await asyncio.sleep(0)

    def _is_busy(self) -> bool:
        return not self._has_lost() and bool(self._connections or self._tasks)

    def _close_quiet(self, since: float) -> None:
        """Close the connections that have had no request since then."""
        now = self._now()
        quiet = {each: self._quiet_since.get(each, now) for each in self._connections if each.is_quiet}
        for connection, began in quiet.items():
            if began <= since:
                connection.hang_up()
        self._quiet_since = quiet
