"""How many files may be open, and what a relay can do with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.supervisor.open_files import connections

RAISED = """
import resource
from app.supervisor import open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
hard = min(4096, hard) if hard != resource.RLIM_INFINITY else 4096
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
open_files.raise_limit()
print(open_files.limit() == hard)
"""


@pytest.mark.parametrize(
    ("open_files", "clients"), [(None, None), (4, 1), (64, 1), (256, 96), (1024, 480), (1_048_576, 524_256)]
)
def test_each_client_needs_a_connection_to_an_engine_too(open_files: int | None, clients: int | None) -> None:
    assert connections(open_files) == clients


def test_the_limit_is_raised_as_far_as_we_may() -> None:
    said = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True, check=True)

    assert said.stdout == "True\n"
