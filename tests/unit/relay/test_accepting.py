"""Relays on one listener: who takes the next connection. Two of them in one process, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest

from app.relay.accepting import PAGE_BYTES, STALE_S, Acceptor, ConnectionNumbers, takes_next
from app.shared_counters import create
from app.supervisor.listener import listen

PATIENCE_S = 20.0


@pytest.mark.parametrize(
    ("own", "others", "takes"),
    [
        (0, [], True),
        (900, [], True),
        (3, [3], True),
        (4, [3], False),
        (2, [3, 2], True),
        (3, [9, 2], False),
        (20, [19], True),
        (20, [18], False),
        (100, [95], True),
        (100, [94], False),
    ],
)
def test_a_relay_takes_the_next_one_that_has_no_more_than_the_others(own: int, others: list[int], takes: bool) -> None:
    assert takes_next(own, others) is takes


class Held(asyncio.Protocol):
    """A connection of a relay that keeps every one it gets."""

    def __init__(self, relay: FewRelay) -> None:
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._relay.held.add(transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._relay.held.discard(self._transport)


class FewRelay:
    """What an acceptor needs of a relay."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener  # its own descriptor, as in a process of its own
        listener.setblocking(False)
        self.held: set[asyncio.BaseTransport] = set()
        self.acceptor: Acceptor | None = None

    async def end(self) -> None:
        if self.acceptor is not None:
            await self.acceptor.aclose()
        self.listener.close()
        for transport in tuple(self.held):
            transport.close()


class Street:
    """A listener with some relays on it, and clients."""

    def __init__(self, descriptor: int) -> None:
        self._listener = listen("127.0.0.1", 0)
        self._descriptor = descriptor
        self._clients: list[asyncio.StreamWriter] = []
        self.relays: list[FewRelay] = []

    def numbers(self, index: int) -> ConnectionNumbers:
        return ConnectionNumbers(os.dup(self._descriptor), index)

    def open(self, index: int) -> FewRelay:
        """One more relay, which accepts from now on."""
        relay = FewRelay(self._listener.dup())
        relay.acceptor = Acceptor(relay.listener, self.numbers(index), lambda: len(relay.held), lambda: Held(relay))
        relay.acceptor.start()
        self.relays.append(relay)
        return relay

    async def connect(self, count: int) -> None:
        """So many clients more, of which each has a relay when this returns."""
        wanted = len(self._clients) + count
        for _ in range(count):
            _, writer = await asyncio.open_connection(*self._listener.getsockname())
            self._clients.append(writer)
        await self.until(wanted)

    async def until(self, held: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while sum(len(relay.held) for relay in self.relays) != held:  # noqa: ASYNC110  # transports have no Event
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for relay in self.relays:
            await relay.end()
        for writer in self._clients:
            writer.close()
        self._listener.close()


@contextlib.asynccontextmanager
async def street() -> AsyncIterator[Street]:
    descriptor = create()
    there = Street(descriptor)
    try:
        yield there
    finally:
        await there.close()
        os.close(descriptor)


async def test_two_relays_share_their_connections_evenly() -> None:
    async with street() as there:
        one, other = there.open(0), there.open(1)

        await there.connect(32)

        assert abs(len(one.held) - len(other.held)) <= 2


async def test_who_has_fewer_gets_the_next_ones() -> None:
    async with street() as there:
        one = there.open(0)
        await there.connect(10)
        other = there.open(1)

        await there.connect(8)

        assert (len(one.held), len(other.held)) == (10, 8)


async def test_a_relay_that_does_not_take_its_connections_is_not_waited_for() -> None:
    """It is stuck: it says that it has none, and takes none."""
    async with street() as there:
        one, stuck = there.open(0), there.numbers(1)
        stuck.tell(0, time.monotonic())

        await there.connect(5)

        assert len(one.held) == 5


async def test_what_a_relay_said_long_ago_does_not_count() -> None:
    async with street() as there:
        numbers, other = there.numbers(0), there.numbers(1)

        other.tell(7, 100.0)

        assert list(numbers.others(100.0)) == [7]
        assert list(numbers.others(100.0 + STALE_S)) == []
        other.forget()
        assert list(numbers.others(100.0)) == []


async def test_a_relay_that_ends_takes_all_that_wait_and_has_nobody_wait_for_it() -> None:
    async with street() as there:
        one, other = there.open(0), there.numbers(1)
        await there.connect(3)
        assert one.acceptor is not None
        other.tell(0, time.monotonic() + PATIENCE_S)

        one.acceptor.take_all()
        await there.connect(3)

        assert len(one.held) == 6
        assert list(other.others(time.monotonic())) == []


async def test_connections_that_closed_are_not_counted_any_more() -> None:
    async with street() as there:
        one, other = there.open(0), there.numbers(1)
        await there.connect(4)

        for transport in tuple(one.held):
            transport.close()

        async with asyncio.timeout(PATIENCE_S):
            while list(other.others(time.monotonic())) != [0]:  # noqa: ASYNC110  # shared memory has no Event
                await asyncio.sleep(0.01)


async def test_the_page_of_numbers_is_there_before_it_is_touched() -> None:
    """Memory that is only promised ends with SIGBUS who touches it where none is left."""
    descriptor = create()
    ConnectionNumbers(descriptor, 0)

    written = os.fstat(descriptor)

    os.close(descriptor)
    assert written.st_size == PAGE_BYTES
    assert written.st_blocks * 512 >= PAGE_BYTES
