"""One PostgreSQL for the tests that need one and leave it alone; each test ends; figures are printed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rigs.figures import write_figures
from tests.rigs.patience import ended_after
from tests.rigs.postgres import PostgresServer

LONGEST_S = 120
LONGEST_FULL_S = 1200


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """`postgres.database()` is the URL of an empty database. Who kills the server takes one of its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _ends(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test takes longer."""
    with ended_after(LONGEST_FULL_S if request.node.get_closest_marker("full") else LONGEST_S):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was seen."""
    write_figures(terminalreporter, "the team")
