"""The public listening socket: bound once by the supervisor, inherited by every relay."""

from __future__ import annotations

import errno
import os
import socket

BACKLOG = 2048


class ListenError(Exception):
    """The address cannot be listened on. The message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`:`port` (0: a free port); IPv4 where a name has both kinds of address.

    ListenError when that is not possible.
    """
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise ListenError(
            f"{host!r} is not an address of this machine ({exc.strerror}); choose another: --host"
        ) from exc
    family, _, _, _, address = min(addresses, key=lambda entry: entry[0] != socket.AF_INET)
    is_dual = family == socket.AF_INET6 and host.strip("[]") == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            (str(address[0]), port), family=family, backlog=BACKLOG, reuse_port=False, dualstack_ipv6=is_dual
        )
    except OSError as exc:
        raise ListenError(_reason(exc, host, port)) from exc
    listener.setblocking(False)
    return listener


def url(listener: socket.socket) -> str:
    """The URL at which a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reason(exc: OSError, host: str, port: int) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            return f"{host}:{port} is in use by another program; choose another port: --port"
        case errno.EACCES:
            return f"{host}:{port} needs more rights than this user has; choose a port from 1024 on: --port"
        case errno.EADDRNOTAVAIL:
            return f"{host!r} is not an address of this machine; choose another: --host"
        case code:
            return f"{host}:{port} cannot be listened on: {os.strerror(code or 0)}"
