"""The lives that an engine had before: what each wrote at last, and why it ended. A bounded number, in memory only."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

KEPT: Final = 5  # lives, the one that runs among them


@dataclass(slots=True)
class PastLife:
    """One start of an engine. `number`: its generation; `reason`: why it ended, None where it was told to, or lives.

    `ended_at`: on the clock of the lives; None while it lives.
    """

    number: int
    lines: Callable[[], list[str]]
    reason: str | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The last end that nobody asked for, however long ago. `life`: which start it was."""

    life: int
    reason: str
    ago_s: float


@dataclass(frozen=True, slots=True)
class Log:
    """What one life wrote at last. `life`: which, None when there was none; `lives`: those known, oldest first."""

    life: PastLife | None
    lines: Sequence[str]
    lives: Sequence[PastLife]


class PastLives:
    """Of one name, whatever its configuration was meanwhile."""

    def __init__(self) -> None:
        self._lives: collections.deque[PastLife] = collections.deque(maxlen=KEPT)
        self._last: PastLife | None = None

    def failure(self, now: float) -> LastFailure | None:
        """The last one; None when there was none."""
        last = self._last
        if last is None or last.reason is None or last.ended_at is None:
            return None
        return LastFailure(last.number, last.reason, now - last.ended_at)

    def log(self, number: int | None, latest: Sequence[str]) -> Log | None:
        """Of the life of that number; a negative one counts back from the latest (-1: the one before it). None: the
        latest, which wrote these lines. None when it is not known, or no longer.
        """
        if number is None:
            return Log(self._lives[-1] if self._lives else None, latest, tuple(self._lives))
        life = self._life(number)
        return Log(life, life.lines(), tuple(self._lives)) if life is not None else None

    def began(self, number: int, lines: Callable[[], list[str]]) -> None:
        """Its process is there, and writes."""
        self._lives.append(PastLife(number, lines))

    def ended(self, number: int, now: float, reason: str | None) -> None:
        """It is over, also when no process of it ever was. `reason`: None when that was asked for."""
        life = self._life(number)
        if life is None:
            life = PastLife(number, list)
            self._lives.append(life)
        life.ended_at, life.reason = now, reason
        if reason is not None:
            self._last = life

    def _life(self, number: int) -> PastLife | None:
        if number < 0:
            return self._lives[number - 1] if number > -len(self._lives) else None
        return next((life for life in self._lives if life.number == number), None)
