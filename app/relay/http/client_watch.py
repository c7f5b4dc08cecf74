"""Whether a client still takes what it is sent, or still sends: the timers that end a connection whose client does
neither."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

_ESTABLISHED: Final = 1  # TCP_ESTABLISHED, the first byte of Linux's struct tcp_info
_RESET: Final = struct.pack("ii", 1, 0)  # linger, for no time


class ClientWatch:
    """Of one connection; at most one timer runs. `dropped_bytes`: what the client has sent and nobody reads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.Transport | None = None
        self.dropped_bytes = 0
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ClientWatch {'on' if self._timer is not None else 'off'}>"

    def stop(self) -> None:
        """Let the client take its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reader(self, stalled_s: float) -> None:
        """Drop a client that reads nothing of what is written for so long."""
        self.stop()
        self._timer = self._loop.call_later(stalled_s, self._check_reader, stalled_s, self._unread())

    def _check_reader(self, stalled_s: float, before: int) -> None:
        if self._unread() >= before:
            self.drop()
        else:
            self.reader(stalled_s)

    def movement(self, wait_s: float, until: float | None = None) -> None:
        """Drop a client that neither sends nor reads for so long; at `until`, of the loop's clock, in every case."""
        self.stop()
        self._timer = self._loop.call_later(wait_s, self._check_movement, wait_s, until, self._moved())

    def _check_movement(self, wait_s: float, until: float | None, before: int) -> None:
        is_late = until is not None and self._loop.time() > until
        if is_late or self._moved() <= before:
            self.drop()
        else:
            self.movement(wait_s, until)

    def _unread(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def _moved(self) -> int:
        """Grows while the client sends or reads."""
        return self.dropped_bytes - self._unread()

    def drop(self) -> None:
        """End the connection. Without the reset the system would keep what the client has not read, megabytes of it,
        and go on offering it for minutes after we closed."""
        assert self.transport is not None
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


def has_left(sock: socket.socket) -> bool:
    """Whether the client has closed its side (on Linux; elsewhere that shows only once all it sent was read)."""
    if sys.platform != "linux":
        return False
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
