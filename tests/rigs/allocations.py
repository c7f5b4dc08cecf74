"""How much memory a piece of work takes at its most, as Python's own tracing has it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable


def allocated(work: Callable[[], object]) -> int:
    """In bytes, beyond what is held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
