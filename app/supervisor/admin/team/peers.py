"""Who is at the other end of a connection to `control.sock`, as the kernel says it."""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_CREDENTIALS: Final = struct.Struct("3i")  # of Linux: process, user, group
_HAS_CREDENTIALS: Final = hasattr(socket, "SO_PEERCRED")


class AdminProtocol(HttpToolsProtocol):
    """uvicorn's, which tells the application the peer's user and process as its `client`: `("1000", 4711)`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn has it; a Unix socket has no address to lose."""
        super().connection_made(transport)
        if (made := _peer(transport.get_extra_info("socket"))) is not None:
            self.client = made


def _peer(connection: socket.socket | None) -> tuple[str, int] | None:
    """The user's and the process's number; None where the system does not tell."""
    if connection is None or not _HAS_CREDENTIALS:
        return None
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:  # it has left already
        return None
    process, user, _ = _CREDENTIALS.unpack(data)
    return str(user), process


def user_name(number: str) -> str:
    """The name of a user's number; the number where the system knows no name. Blocks where names come from afar."""
    try:
        return pwd.getpwuid(int(number)).pw_name
    except (KeyError, ValueError, OSError):
        return f"user {number}"
