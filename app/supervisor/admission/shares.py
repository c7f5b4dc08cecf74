"""Whose turn it is at an engine that cannot serve all who ask: equal shares of its time for every key. Pure.

The measure is an engine that serves all keys at the same time, each with its share (a fluid, generalized processor
sharing). Each request that is accepted adds its service time to its key's debt; the passing time pays all debts off, in
equal parts. So a debt, by the share it is paid with, is how far its key is ahead of what it is due, and a key that asks
for less than its share has none.
"""

from __future__ import annotations

import collections
from typing import Final, NamedTuple

# Of the engine's time, where both kinds of requests wait: batches come last and are not starved.
INTERACTIVE_SHARE: Final = 9.0
BATCH_SHARE: Final = 1.0
_PAID: Final = 1e-9


class Claimant(NamedTuple):
    """Those who have one share together: the requests of one key and one priority. `key`: its name, None without."""

    key: str | None
    is_batch: bool


def _weight(is_batch: bool) -> float:
    return BATCH_SHARE if is_batch else INTERACTIVE_SHARE


class FairShares:
    """The debts, in seconds of one place."""

    def __init__(self) -> None:
        self._debts: dict[Claimant, float] = {}
        self._sizes: collections.Counter[bool] = collections.Counter()  # claimants in debt, by their kind

    def __repr__(self) -> str:
        return f"<FairShares {self._debts}>"

    def charge(self, claimant: Claimant, service_s: float) -> None:
        """It has got so much; less than nothing: it gives some back."""
        debt = self._debts.get(claimant, 0.0) + service_s
        if debt > _PAID:
            if claimant not in self._debts:
                self._sizes[claimant.is_batch] += 1
            self._debts[claimant] = debt
        elif self._debts.pop(claimant, None) is not None:
            self._sizes[claimant.is_batch] -= 1

    def pay(self, service_s: float) -> None:
        """So much was there for all: what one does not need any more is the others'."""
        while service_s > _PAID and self._debts:
            parts = {is_batch: self._part(is_batch) for is_batch, size in self._sizes.items() if size}
            enough_s = min(debt / parts[claimant.is_batch] for claimant, debt in self._debts.items())
            paid_s = min(service_s, enough_s)
            for claimant in list(self._debts):
                self.charge(claimant, -paid_s * parts[claimant.is_batch])
            service_s -= max(paid_s, _PAID)

    def debt(self, claimant: Claimant) -> float:
        """What it has got before it was due."""
        return self._debts.get(claimant, 0.0)

    def is_alone(self, claimant: Claimant) -> bool:
        """Whether nobody else is in debt: then there is nobody to share with."""
        return len(self._debts) == (claimant in self._debts)

    def share(self, claimant: Claimant) -> float:
        """Which part of the engine is its own now: above 0, at most 1."""
        return self._part(claimant.is_batch, joins=claimant not in self._debts)

    def _part(self, is_batch: bool, *, joins: bool = False) -> float:
        size = self._sizes[is_batch] + joins
        others = _weight(not is_batch) if self._sizes[not is_batch] else 0.0
        return _weight(is_batch) / (_weight(is_batch) + others) / size
