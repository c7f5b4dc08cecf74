"""How often a request may go to yet another engine while engines fail: so that trying again never becomes the load."""

from __future__ import annotations

from typing import Final

# However few requests are answered, so many more tries may fail in one moment, and so many each second after it.
FLOOR: Final = 10.0
FLOOR_PER_S: Final = 1.0


class RetryBudget:
    """Of one public model at one relay. Only a further try that failed costs something: 1. Each request that is
    answered gives `share` back, each second FLOOR_PER_S, up to FLOOR. So a fallback that answers may be used for every
    request, and engines that all fail are asked about once for each request.
    """

    __slots__ = ("_at", "_left", "share")

    def __init__(self, share: float, now: float) -> None:
        self.share = share
        self._left = FLOOR
        self._at = now

    def __repr__(self) -> str:
        return f"<RetryBudget {self._left:.1f} left>"

    def allows(self, now: float) -> bool:
        """Whether one more try may be made. `now`: seconds of a monotonic clock."""
        self._left = min(FLOOR, self._left + (now - self._at) * FLOOR_PER_S)
        self._at = now
        return self._left >= 1.0

    def answered(self) -> None:
        """A request was answered, at whichever try."""
        if self._left < FLOOR:
            self._left = min(FLOOR, self._left + self.share)

    def failed(self) -> None:
        """A further try failed."""
        self._left = max(0.0, self._left - 1.0)
