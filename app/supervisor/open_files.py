"""How many files may be open at once: raised as far as we may, and what that allows a relay. Relays inherit it."""

from __future__ import annotations

import contextlib
import resource

# More than a million connections nobody sets; some systems refuse what they call unlimited.
MOST = 2_097_152
# What a relay has open besides: its sockets to the supervisor, its counters, libraries, logs.
OWN = 64


def limit() -> int | None:
    """How many files this process and those it starts may have open; None: as many as they like."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """As many as the administrator of this machine allows us; a refusal leaves it as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wished = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wished:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wished, hard))


def connections(open_files: int | None) -> int | None:
    """How many clients a relay can serve then: each needs a connection of its own and one to an engine. Pure."""
    return None if open_files is None else max(1, (open_files - OWN) // 2)
