"""What the whole suite shares: relays are tested on the loop they run on."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

PR_SET_CHILD_SUBREAPER = 36


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop for `test_relay_*`, `test_upstream` and `test_wire`; asyncio's own, as in the supervisor, for the rest."""
    if item.path.name.startswith(("test_relay_", "test_upstream", "test_wire")):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _orphans_go_to_the_system() -> Iterator[None]:
    """A test that made this process a subreaper, as the supervisor is one, does not leave it so for the next."""
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
