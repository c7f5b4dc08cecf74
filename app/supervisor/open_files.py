"""The limit of open files: raised as far as we are allowed, and what it lets a relay do. Relays inherit it."""

from __future__ import annotations

import contextlib
import resource

import structlog

log = structlog.get_logger()

# Enough for a million connections, the most that can be configured; some systems refuse "unlimited".
MOST = 2_097_152
# Files that a relay has open besides: sockets to the supervisor, counters, libraries, logs.
OWN = 64


def limit() -> int | None:
    """How many files this process, and each that it starts, may have open; None: no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Raise the limit to what the administrator of this machine allows. A refusal leaves it as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections(open_files: int | None) -> int | None:
    """How many clients a relay can serve at once with that limit, None for no limit. Pure.

    Each needs two files: its own connection and one to an engine.
    """
    return None if open_files is None else max(1, (open_files - OWN) // 2)


def warn_of_few(configured: int, possible: int | None) -> None:
    """Log it where relays cannot have as many connections as are configured. `possible`: None for no limit."""
    if possible is not None and possible < configured:
        event = "max_connections lowered: the limit of open files (ulimit -n) allows no more"
        log.warning(event, configured=configured, now=possible)
