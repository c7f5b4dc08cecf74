"""Why a process of ours ended, in one sentence: by the signal that ended it, else by what it printed last. Pure.

A log holds everything that ever went wrong since the start, such as an adapter that was refused an hour ago. So a
signal counts before any line; and of an engine that has served, only the lines printed shortly before its end count,
and of their meanings only those that can end an engine that serves.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Final

Meanings = Sequence[tuple[str, str]]  # a pattern, and its sentence, in which {0}, {1} … stand for the pattern's groups

RECENT_S: Final = 30.0  # a worker that dies is silent for up to 10 s, and its server goes on for 5 more
KILLED: Final = "it was killed from outside; the system does that when the memory runs out"
# Signals that a process brings upon itself: its last lines say more.
_CRASHES: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
_SHELL: Final = 128  # what a shell adds to the signal that ended its command


class Settled(str):
    """Why a start ended, where another start would end in the same way until something is changed: the configuration,
    a file, or what is installed.
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
    """The sentence for this exit: the first of the meanings whose pattern is found in `tail`, the lines that it printed
    last; where there is none, the exit code or signal.

    `starting` are the meanings for a process that has not served yet, `serving` those for one that has. `passing`:
    those of `starting` that may be different at the next start, such as memory that others hold; every other one
    comes as Settled. None: all of them may.
    """
    number = signal_of(code)
    if number == signal.SIGKILL:
        return KILLED
    if number is None or number in _CRASHES:
        text = "\n".join(tail)
        for pattern, meaning in serving if has_served else starting:
            if match := re.search(pattern, text):
                sentence = meaning.format(*(group.strip("'\",;: ") for group in match.groups() if group is not None))
                is_passing = has_served or passing is None or (pattern, meaning) in passing
                return sentence if is_passing else Settled(sentence)
    return exit_in_words(code, tail)


def signal_of(code: int) -> int | None:
    """The signal that ended it, also where a shell in between made an exit code of it; None for any other exit."""
    number = -code if code < 0 else code - _SHELL
    return number if number in set(signal.Signals) else None


def exit_in_words(code: int, tail: Sequence[str], has_served: bool = False) -> str:
    """The sentence that fits any process: its signal or its exit code."""
    number = signal_of(code)
    return f"it was ended by signal {number}" if number is not None else f"it exited with code {code}"
