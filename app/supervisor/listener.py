"""The public listening socket: bound once by the supervisor, inherited by every relay."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from app.config.model import ServerConfig

BACKLOG = 2048
_SO_ATTACH_FILTER: Final = 26  # Linux's asm-generic/socket.h; Python has no name for it
# A filter in the system's classic BPF, which sees segments from the TCP header on; each step is (code, jump when true,
# jump when false, operand): drop those with SYN and without ACK, and let all others pass.
_NO_NEW: Final = ((0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class ListenError(Exception):
    """The address cannot be listened on. The message says why and what to do."""


def listen(host: str, port: int, ways: tuple[str, str] = ("--host", "--port")) -> socket.socket:
    """A socket that listens on `host`:`port` (0: a free port); IPv4 where a name has both kinds of address.

    ListenError when that is not possible; `ways`: how the host and the port are chosen.
    """
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise ListenError(
            f"{host!r} is not an address of this machine ({exc.strerror}); choose another: {ways[0]}"
        ) from exc
    family, _, _, _, address = min(addresses, key=lambda entry: entry[0] != socket.AF_INET)
    is_dual = family == socket.AF_INET6 and host.strip("[]") == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            (str(address[0]), port), family=family, backlog=BACKLOG, reuse_port=False, dualstack_ipv6=is_dual
        )
    except OSError as exc:
        raise ListenError(_reason(exc, host, port, ways)) from exc
    listener.setblocking(False)
    return listener


class Sockets(NamedTuple):
    """What the supervisor listens on: `metrics` where `server.metrics_port` is set."""

    public: socket.socket
    metrics: socket.socket | None


@contextlib.contextmanager
def opened(server: ServerConfig) -> Iterator[Sockets]:
    """All listening sockets of this configuration; closed at the end. ListenError when one is not possible."""
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(contextlib.closing(listen(server.host, server.port)))
        metrics = None
        if server.metrics_port is not None:
            ways = ("server.metrics_host", "server.metrics_port")
            metrics = listen(server.metrics_host, server.metrics_port, ways)
            stack.enter_context(contextlib.closing(metrics))
        yield Sockets(public, metrics)


def take_no_more(listener: socket.socket) -> None:
    """From now on no new connection joins those that wait to be accepted, in any process that has the socket (Linux).

    Closing it resets those that wait. So first nothing is added, then the relays accept what is there, then they close.
    Who tries meanwhile is not answered, tries again after a second, as TCP does, and is then refused by the system.
    """
    if sys.platform != "linux":
        return
    steps = b"".join(struct.pack("HBBI", *step) for step in _NO_NEW)
    program = ctypes.create_string_buffer(steps, len(steps))
    with contextlib.suppress(OSError):  # a system without it: what comes at the last moment is reset
        what = struct.pack("@HP", len(_NO_NEW), ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, what)


def url(listener: socket.socket) -> str:
    """The URL at which a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reason(exc: OSError, host: str, port: int, ways: tuple[str, str]) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            return f"{host}:{port} is in use by another program; choose another port: {ways[1]}"
        case errno.EACCES:
            return f"{host}:{port} needs more rights than this user has; choose a port from 1024 on: {ways[1]}"
        case errno.EADDRNOTAVAIL:
            return f"{host!r} is not an address of this machine; choose another: {ways[0]}"
        case code:
            return f"{host}:{port} cannot be listened on: {os.strerror(code or 0)}"
