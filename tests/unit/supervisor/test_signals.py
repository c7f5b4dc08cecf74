"""app/supervisor/main.py: what a signal means that comes before anybody listens to it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest

from app.supervisor.main import Signals

PATIENCE_S = 20.0
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Reloads:
    """A gateway of which only reloads are asked."""

    def __init__(self) -> None:
        self.count = 0
        self.has_come = asyncio.Event()

    async def reload(self) -> None:
        self.count += 1
        self.has_come.set()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("early", [0, 1, 3])
def test_a_hang_up_during_the_start_ends_nothing_and_is_a_reload_afterwards(early: int) -> None:
    async def started(signals: Signals) -> int:
        gateway = Reloads()
        signals.listen(cast("Any", gateway))
        if not early:
            os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            await gateway.has_come.wait()
        return gateway.count

    signals = Signals(is_attended=False)
    signals.remember()
    for _ in range(early):
        os.kill(os.getpid(), signal.SIGHUP)

    assert asyncio.run(started(signals)) == 1


def test_at_a_terminal_a_hang_up_during_the_start_ends_it_as_it_ends_every_program() -> None:
    before = signal.getsignal(signal.SIGHUP)
    Signals(is_attended=True).remember()

    assert signal.getsignal(signal.SIGHUP) is before
