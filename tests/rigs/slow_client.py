"""A client whose socket is read only when the test says so, and a wait for states that cannot be awaited."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

RECEIVE_BYTES = 8 * 1024


class SlowClient:
    """One connection with a small window: what is not read here soon waits in the gateway."""

    def __init__(self, url: str) -> None:
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._loop = asyncio.get_running_loop()
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.sock.setblocking(False)

    async def __aenter__(self) -> SlowClient:
        await self._loop.sock_connect(self.sock, self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        """Waits while the gateway does not read."""
        await self._loop.sock_sendall(self.sock, data)

    async def read(self, size: int = 65536) -> bytes:
        """Up to `size` bytes; none at the end of the connection, however it ended."""
        with contextlib.suppress(ConnectionError):
            return await self._loop.sock_recv(self.sock, size)
        return b""

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to `mark`, `mark` included, or to the end of the connection."""
        data = b""
        while mark not in data and (piece := await self.read()):
            data += piece
        return data


async def until(is_so: Callable[[], bool], within_s: float = 20) -> None:
    """Wait for a state that nothing reports."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)
