"""Asks `/readyz` again and again in a process of its own, which a busy test does not delay.

`python -m tests.rigs.readiness URL` prints a line when it begins, and at the end when the answer was first 503 and last
200, by time.monotonic(), which all processes share.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from urllib.parse import urlsplit

PAUSE_S = 0.005


def watched(host: str, port: int) -> dict[str, float | None]:
    """What was seen until no connection came about."""
    seen: dict[str, float | None] = {"not_ready_at": None, "ready_at": None}
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=10)
        except OSError:
            return seen
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
            answer = connection.recv(65536)
            if answer.startswith(b"HTTP/1.1 200"):
                seen["ready_at"] = time.monotonic()
            elif answer.startswith(b"HTTP/1.1 503") and seen["not_ready_at"] is None:
                seen["not_ready_at"] = time.monotonic()
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    address = urlsplit(sys.argv[1])
    print("watching", flush=True)
    print(json.dumps(watched(address.hostname or "", address.port or 0)))
