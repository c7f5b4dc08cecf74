"""The terminal that the gateway was started in."""

from __future__ import annotations

import os
import sys


def say(*lines: str) -> None:
    """Print these lines, if anybody is there to read them."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        # Whoever read it has left; the gateway goes on. What is still buffered would fail again at the exit.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
