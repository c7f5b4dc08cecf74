"""Why a process of ours ended, in one sentence: what it was sent comes first, then what it printed last. Pure.

A log tells of everything that ever went wrong in a life, an adapter that was refused an hour ago among it. So a signal
is believed before any line; and of an engine that has served, only what was printed shortly before counts, and only
what can end one that serves.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Final

Meanings = Sequence[tuple[str, str]]  # a pattern and its sentence, which may have the groups as {0}, {1} …

RECENT_S: Final = 30.0  # a worker that dies is silent for up to 10 s, and its server goes on for 5 more
KILLED: Final = "it was killed from outside; the system does that when the memory runs out"
# What a process does to itself: its last lines say more.
_CRASHES: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
_SHELL: Final = 128  # what a shell adds to the signal that ended its command


class Settled(str):
    """Why a start ended, where another one would end in the same way until something is changed: the configuration, a
    file, what is installed.
    """

    __slots__ = ()


def why(
    code: int,
    tail: Sequence[str],
    starting: Meanings,
    serving: Meanings,
    *,
    has_served: bool,
    passing: Meanings | None = None,
) -> str:
    """The sentence for this exit; without any, the exit code. `tail`: for one that has served, its last words.

    `passing`: of those for a start, what may be otherwise the next time, as memory that others hold; the rest is
    Settled. None: everything may.
    """
    number = signal_of(code)
    if number == signal.SIGKILL:
        return KILLED
    if number is None or number in _CRASHES:
        text = "\n".join(tail)
        for pattern, meaning in serving if has_served else starting:
            if found := re.search(pattern, text):
                told = meaning.format(*(group.strip("'\",;: ") for group in found.groups() if group is not None))
                is_passing = has_served or passing is None or (pattern, meaning) in passing
                return told if is_passing else Settled(told)
    return exit_in_words(code, tail)


def signal_of(code: int) -> int | None:
    """The signal that ended it, also where a shell stands between."""
    number = -code if code < 0 else code - _SHELL
    return number if number in set(signal.Signals) else None


def exit_in_words(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """What is known of any process that ended."""
    number = signal_of(code)
    return f"it was ended by signal {number}" if number is not None else f"it exited with code {code}"
