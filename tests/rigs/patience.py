"""A test that hangs fails."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import pytest


@contextlib.contextmanager
def ended_after(longest_s: int) -> Iterator[None]:
    """What goes on inside for longer fails, and what it started is ended as after any other failure."""

    def stop(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"it went on for longer than {longest_s} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(longest_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
