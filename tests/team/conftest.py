"""Figures of the team's tests are printed at the end, and a test that hangs fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rigs.figures import write_figures
from tests.rigs.patience import ended_after

LONGEST_S = 120
LONGEST_FULL_S = 1200


@pytest.fixture(autouse=True)
def _ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test takes longer."""
    with ended_after(LONGEST_FULL_S if request.node.get_closest_marker("full") else LONGEST_S):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was seen."""
    write_figures(terminalreporter, "the team")
