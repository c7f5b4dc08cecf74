"""The supervisor's side of keys' limits, as a relay meets it, where the test decides what is granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import msgspec

from app.ipc import NOTHING, Allowance, AllowanceWanted, Amounts, Spent
from app.table import Key

NAMES = Amounts.__struct_fields__


def plus(*amounts: Amounts) -> Amounts:
    """The sum of each."""
    return Amounts(**{name: fsum(getattr(each, name) for each in amounts) for name in NAMES})


@dataclass
class FakeLimits:
    """Grants what `decide` says, a part of an `Allowance`; by default all that is wanted. None: no reply."""

    decide: Callable[[AllowanceWanted], dict[str, Any] | None] = lambda asked: {"granted": asked.wants or asked.needs}
    asked: list[AllowanceWanted] = field(default_factory=list)
    told: list[Spent] = field(default_factory=list)
    granted: Amounts = NOTHING
    reply: Callable[[Allowance], object] = repr
    changed: Callable[[], None] = lambda: None

    def follow(self, keys: tuple[Key, ...]) -> None:
        """Whatever their limits are: `decide` knows."""

    def wanted(self, relay: int, asked: AllowanceWanted, reply: Callable[[Allowance], None]) -> None:
        """Reply at once, as it was decided."""
        self.asked.append(asked)
        self.reply = reply
        decided = self.decide(asked)
        if decided is not None:
            self.grant(asked.seq, asked.key, **decided)
        self.changed()

    def grant(self, seq: int, key: str, **decided: Any) -> None:
        """Send this allowance."""
        allowance = msgspec.structs.replace(Allowance(seq, key), **decided)
        self.granted = plus(self.granted, allowance.granted)
        self.reply(allowance)

    def spent(self, relay: int, told: Spent) -> None:
        """Keep it."""
        self.told.append(told)
        self.changed()

    def left(self, relay: int) -> None:
        """Nothing is kept for it."""

    # -- what is known in the end

    @property
    def spending(self) -> Amounts:
        """All that was spent, and is settled."""
        settled = [each for told in self.told for _, each in told.settled]
        return plus(*(told.spent for told in self.told), *settled)

    @property
    def returned(self) -> Amounts:
        """All that came back."""
        return plus(*(each for told in self.told for _, each in told.returned))
