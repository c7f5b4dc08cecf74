"""What the whole suite shares: signals, and the event loop that each test runs on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping

import hypothesis
import pytest
import uvloop


def pytest_configure() -> None:
    """Gateways that tests start notice that their terminal is closed, also where the suite was started with nohup.
    However busy the machine is, no example is too slow; `make test-fast` takes fewer of them.
    """
    hypothesis.settings.register_profile("suite", deadline=None)
    hypothesis.settings.register_profile("fast", deadline=None, max_examples=20)
    hypothesis.settings.load_profile("suite")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop for what a relay does, `unit/relay` and the connection pool; asyncio's own, as in the supervisor, for the
    rest.
    """
    if item.path.parent.name == "relay" or item.path.name.startswith("test_pool"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
