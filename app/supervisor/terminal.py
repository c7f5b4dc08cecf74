"""Prints to the terminal that the gateway was started in."""

from __future__ import annotations

import os
import sys


def print_lines(*lines: str) -> None:
    """Print these lines; a terminal or pipe that was closed is no failure."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        # Without this, what is still buffered would fail again at the exit.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
