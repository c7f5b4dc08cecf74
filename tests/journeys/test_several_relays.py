"""A gateway with two relays: both have connections, and a relay that died gets some again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import machine
from tests.journeys.gateway import Fake, Gateway
from tests.rigs.program import PATIENCE_S

CONFIG = """
server: {{relays: 2}}
backends:
  fake: {{kind: remote, url: "{url}"}}
models:
  "fake/*": {{backend: fake}}
"""


@pytest.fixture
def gateway(fake: Fake, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, CONFIG.format(url=fake.url)) as running:
        yield running


def joined(gateway: Gateway, stack: contextlib.ExitStack, count: int) -> dict[int, int]:
    """So many clients more, until `stack` ends, each answered; how many connections each relay has then, by its pid."""
    address, clients = urlsplit(gateway.url), []
    for _ in range(count):
        client = socket.create_connection((address.hostname, address.port), PATIENCE_S)
        clients.append(stack.enter_context(client))
        client.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
    for client in clients:
        assert client.recv(12) == b"HTTP/1.1 200"
    assert address.port is not None
    return {pid: machine.connections(pid, address.port) for pid in gateway.status()["relays"]["pids"]}


def until_two_serve(gateway: Gateway, without: int) -> None:
    """Wait until two relays take connections, and this process is none of them."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            shared = joined(gateway, stack, 4)
        if len(shared) == 2 and without not in shared and min(shared.values()) > 0:
            return
        time.sleep(0.05)
    raise AssertionError("there are no two relays that take connections")


def test_two_relays_share_connections_and_a_new_one_joins_in(gateway: Gateway) -> None:
    assert gateway.url
    until_two_serve(gateway, 0)
    with contextlib.ExitStack() as stack:
        shared = joined(gateway, stack, 32)
        dead = min(shared)
        os.kill(dead, signal.SIGKILL)
        until_two_serve(gateway, dead)
        again = joined(gateway, stack, 12)

    assert sum(shared.values()) == 32
    assert min(shared.values()) >= 8  # half of them on a quiet machine
    (new,) = set(again) - set(shared)
    assert again[new] >= 6  # all twelve, unless the machine is busy
