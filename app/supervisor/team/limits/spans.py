"""For how long what was spent of a limit counts against it: 60 seconds, until a day, week or month is over, or only
while it runs (pure). Times are Unix seconds by the store's clock."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol

from app.table import WINDOW_S

SLOT_S: Final = 0.5
# What can be spent in one go, and is drawn at least: the limit by this.
_SLICES: Final = 60


class CountedFor(Protocol):
    """When what was spent is counted no longer. Spending is added up in slots, by number."""

    @property
    def has_slots(self) -> bool:
        """Whether spending is noted here at all; otherwise only what is held counts."""
        ...

    def slot(self, at: float) -> int:
        """The number of the slot at that time."""
        ...

    def ends(self, slot: int) -> float:
        """When what was spent in that slot counts no longer."""
        ...

    def slice_of(self, limit: float) -> float:
        """As much as is drawn at least."""
        ...


class Rolling:
    """Any 60 seconds. What was spent at any time of a slot counts for 60 s from the slot's end."""

    has_slots: Final = True

    def slot(self, at: float) -> int:
        """As the port says."""
        return int(at // SLOT_S)

    def ends(self, slot: int) -> float:
        """As the port says."""
        return (slot + 1) * SLOT_S + WINDOW_S

    def slice_of(self, limit: float) -> float:
        """A second's use."""
        return math.ceil(limit / _SLICES)


class Calendar:
    """Days, weeks from Monday, or months, in UTC. The one slot of a period is the second at which it begins. Nothing is
    noted: what was spent is known from the records of usage."""

    has_slots: Final = False

    def __init__(self, per: Literal["day", "week", "month"]) -> None:
        self._per = per

    def slot(self, at: float) -> int:
        """As the port says."""
        day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self._per == "week":
            day -= timedelta(days=day.weekday())
        elif self._per == "month":
            day = day.replace(day=1)
        return int(day.timestamp())

    def ends(self, slot: int) -> float:
        """As the port says."""
        begin = datetime.fromtimestamp(slot, UTC)
        if self._per == "month":
            return (begin + timedelta(days=32)).replace(day=1).timestamp()
        return (begin + timedelta(days=7 if self._per == "week" else 1)).timestamp()

    def slice_of(self, limit: float) -> float:
        """A thousandth: as small as spending it takes a while, as large as asking for it is no burden."""
        return limit / 1000


class WhileItRuns:
    """What runs at the same time: nothing counts any more once it was given back."""

    has_slots: Final = False

    def slot(self, at: float) -> int:
        """There is one."""
        return 0

    def ends(self, slot: int) -> float:
        """Nobody knows."""
        return math.inf

    def slice_of(self, limit: float) -> float:
        """One: each place that lies idle at one gateway is missing at another."""
        return 1
