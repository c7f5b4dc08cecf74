"""What the whole suite shares: signals, and the event loop that each test runs on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping

import hypothesis
import pytest
import uvloop


def pytest_configure() -> None:
    """Programs that tests start notice that their terminal is closed, and Ctrl-C, also where the suite was started with
    nohup or in the background, where both are ignored. However busy the machine is, no example is too slow; `make
    test-fast` takes fewer of them.
    """
    hypothesis.settings.register_profile("suite", deadline=None)
    hypothesis.settings.register_profile("fast", deadline=None, max_examples=20)
    hypothesis.settings.load_profile("suite")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop for what a relay does, `unit/relay` and the connection pool; asyncio's own, as in the supervisor, for the
    rest.
    """
    if item.path.parent.name == "relay" or item.path.name.startswith("test_pool"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
