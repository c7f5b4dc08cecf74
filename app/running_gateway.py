"""A short question to the gateway that runs on a state folder, for whoever must not load or wait for much."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

WAIT_S: Final = 0.5
MAX_BYTES: Final = 4 * 1024 * 1024


def status(control_socket: Path) -> Any:
    """What it answers to `GET /admin/status`; None where nobody answers, or not within about WAIT_S."""
    until = time.monotonic() + WAIT_S
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(WAIT_S)
            connection.connect(os.fspath(control_socket))
            connection.sendall(b"GET /admin/status HTTP/1.0\r\nhost: gateway\r\n\r\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
                if len(answer) > MAX_BYTES or time.monotonic() > until:
                    return None
        return json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, ValueError):
        return None


def address(control_socket: Path) -> str | None:
    """The URL at which it listens, where it says so."""
    answer = status(control_socket)
    url = answer.get("address") if isinstance(answer, dict) else None
    return url if isinstance(url, str) else None
