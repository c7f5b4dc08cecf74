"""What is known of an engine's starts: of each of the last ones what it wrote at last, and why it ended; how often it
was started again, how long that took, and what it takes of the machine. A bounded number, in memory only.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.supervisor.metrics.bucket_counts import BucketCounts
from backends.endpoint import State
from backends.lifecycle.events import Event, Exited, Tick
from backends.lifecycle.phases import Lifecycle, Phase
from backends.process.footprint import Footprint
from backends.process.log_tail import Printed

KEPT: Final = 5  # lives, the one that runs among them
START_BOUNDS: Final = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)  # seconds


@dataclass(slots=True)
class PastLife:
    """One start of an engine. `number`: its generation. `reason`: why it ended; None while it runs, and where that was
    asked for. `lines`: the last that its process wrote; `printed`: how much it wrote altogether. `ended_at`: on the
    event loop's clock; None while it runs.
    """

    number: int
    lines: Callable[[], list[str]]
    reason: str | None = None
    ended_at: float | None = None
    printed: Callable[[], Printed] = Printed


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The last end that nobody asked for, however long ago. `life`: the generation that ended."""

    life: int
    reason: str
    ago_s: float


@dataclass(frozen=True, slots=True)
class Log:
    """What one start wrote at last. `life`: which one, None when there was none; `lives`: those known, oldest first.
    `printed`: how much it has written altogether."""

    life: PastLife | None
    lines: Sequence[str]
    lives: Sequence[PastLife]
    printed: Printed = Printed()  # noqa: RUF009  # it cannot be changed


class PastLives:
    """The last starts of one name, whatever its configuration was."""

    def __init__(self) -> None:
        self._lives: collections.deque[PastLife] = collections.deque(maxlen=KEPT)
        self._last: PastLife | None = None
        self.starts: dict[str, BucketCounts] = {}  # their seconds, by how it came to serve: start, wake

    def failure(self, now: float) -> LastFailure | None:
        """The last failure; None when there was none."""
        last = self._last
        if last is None or last.reason is None or last.ended_at is None:
            return None
        return LastFailure(last.number, last.reason, now - last.ended_at)

    def log(self, number: int | None, latest: Sequence[str]) -> Log | None:
        """Of the life of that number; a negative one counts back from the latest (-1: the one before it). None: the
        latest, which wrote these lines. None when it is not known, or no longer.
        """
        if number is None:
            last = self._lives[-1] if self._lives else None
            return Log(last, latest, tuple(self._lives), last.printed() if last is not None else Printed())
        life = self._life(number)
        return Log(life, life.lines(), tuple(self._lives), life.printed()) if life is not None else None

    def began(self, number: int, lines: Callable[[], list[str]], printed: Callable[[], Printed] = Printed) -> None:
        """This start has a process now, which wrote these lines, and so much altogether."""
        self._lives.append(PastLife(number, lines, printed=printed))

    def ended(self, number: int, now: float, reason: str | None) -> None:
        """This start is over, also when it never had a process. `reason`: None when that was asked for."""
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


@dataclass(slots=True)
class StartRecord:
    """Of one unit; written here only. `restarts`: after failures. `load_s`: seconds that its last start took.

    `tries_at` (Unix seconds): when the next try, or the end of its rest, is due. `footprint`: as its last start was
    measured.
    """

    past: PastLives = field(default_factory=PastLives)
    restarts: int = 0
    load_s: float | None = None
    tries_at: float | None = None
    footprint: Footprint | None = None

    def carried_on(self) -> StartRecord:
        """For the unit that replaces this one: it goes on counting."""
        return StartRecord(self.past, self.restarts, self.load_s)

    def measured(self, footprint: Footprint) -> None:
        """Its latest start takes so much of the machine."""
        self.footprint = footprint

    def changed(self, before: Lifecycle, life: Lifecycle, event: Event, now: float) -> None:
        """This event has changed its life like this. `now`: on the event loop's clock."""
        if life.due != before.due:
            self.tries_at = None if life.due is None else time.time() + life.due - now
        if before.phase is Phase.BACKING_OFF and isinstance(event, Tick):
            self.restarts += life.phase is not before.phase
        if life.phase is Phase.SERVING and before.phase is not Phase.SERVING:
            self.load_s = life.since - before.since
            how = "wake" if before.phase is Phase.WAKING else "start"
            self.past.starts.setdefault(how, BucketCounts(START_BOUNDS)).observe(self.load_s)
        if before.phase is Phase.ATTACHED and life.state is State.FAILED:
            self.past.ended(before.generation, now, life.reason)
        has_ended = before.has_process and not life.has_process
        if isinstance(event, Exited) and has_ended and before.phase is not Phase.FETCHING:
            was_asked = before.state is State.STOPPING
            self.past.ended(before.generation, now, None if was_asked else life.reason or event.reason)
