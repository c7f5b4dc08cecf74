"""The tool environments, made once: `make test-tools` says in which folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from backends.toolenv.environment import Toolbox

LONGEST_S = 900  # of one test, making its environments included


@pytest.fixture(scope="session")
def toolbox() -> Toolbox:
    """The tool environments; a large download (PyTorch with GPU libraries) is refused."""
    named = os.environ.get("MODELPORT_TOOLS")
    assert named, "make test-tools names the folder of the tool environments, or set MODELPORT_TOOLS"
    return Toolbox(Path(named), lambda line: print(line, flush=True), lambda _: False)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A test that hangs fails, and what it started is ended as after any other failure."""

    def stop(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"it went on for longer than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
