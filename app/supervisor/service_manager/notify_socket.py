"""The socket on which a service manager hears from its services: systemd's sd_notify(3), without its library.

Every message is one datagram of lines `NAME=value`. Nothing here waits and nothing raises: the gateway serves whether
or not anybody listens.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger()

# What is held for a manager that does not read now; beyond that the oldest goes.
MOST_WAITING: Final = 64
_MOST_DIGITS: Final = 20  # of 64 bits


@dataclass(frozen=True, slots=True)
class ServiceVariables:
    """What the environment says: `address`, the socket's as the kernel has it, None: nobody listens; `watchdog_s`: the
    manager ends us when it hears nothing for so many seconds, None: it does not.
    """

    address: bytes | None = None
    watchdog_s: float | None = None


def take_variables(environ: MutableMapping[str, str], pid: int) -> ServiceVariables:
    """Read the variables that are meant for this process, and take them out of `environ`: no child is to speak for us.

    A watchdog for another process is none of ours; values that are not understood count as not given.
    """
    given = {name: environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")}
    return ServiceVariables(
        address(given["NOTIFY_SOCKET"]), watchdog_s(given["WATCHDOG_USEC"], given["WATCHDOG_PID"], pid)
    )


def address(text: str) -> bytes | None:
    """The address that NOTIFY_SOCKET names: a path, or an abstract name behind `@`. None for anything else. Pure."""
    if text.startswith("@") and len(text) > 1:
        return b"\0" + text[1:].encode(errors="surrogateescape")
    return text.encode(errors="surrogateescape") if text.startswith("/") else None


def watchdog_s(usec: str, for_pid: str, pid: int) -> float | None:
    """WATCHDOG_USEC in seconds; None where it is none, or is for another process. Pure."""
    is_number = usec.isascii() and usec.isdecimal() and len(usec) <= _MOST_DIGITS
    if not is_number or int(usec) == 0 or for_pid not in ("", str(pid)):
        return None
    return int(usec) / 1e6


class NotifySocket:
    """Sends messages to the service manager at `address`; does nothing where that is None."""

    def __init__(self, address: bytes | None) -> None:
        self._address = address
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._socket: socket.socket | None = None
        self._has_failed = False
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def __repr__(self) -> str:
        return f"<NotifySocket {self._address!r} waiting={len(self._waiting)}>"

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._socket is not None

    def send(self, *lines: str) -> None:
        """Send these lines as one message, behind those that could not be sent yet."""
        if self._socket is not None:
            self._waiting.append("\n".join(lines).encode(errors="surrogateescape"))
            self.flush()

    def flush(self) -> None:
        """Send what the manager had no room for when it was to be sent."""
        while self._socket is not None and self._waiting:
            try:
                self._socket.sendto(self._waiting[0], self._address or b"")
            except BlockingIOError:
                return
            except OSError as exc:
                # The manager, or its socket, is not there: it may come back (systemd that executes itself anew).
                self._waiting.clear()
                if not self._has_failed:
                    log.warning("the service manager cannot be told how the gateway is", reason=str(exc))
                self._has_failed = True
                return
            self._waiting.popleft()
            self._has_failed = False

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
