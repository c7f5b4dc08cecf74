"""What the supervisor last said of which limit of one key (pure): so that it need not be asked again before that time.

Of the same limit, a request that needs as much or more is refused for the same reason.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from app.ipc import Amounts

LimitName: TypeAlias = Literal["requests", "tokens", "parallel", "budget"]


class Refusal(NamedTuple):
    """Of which limit a key had not as much as a request needed (`amount`), and until when (of the clock)."""

    limit: LimitName
    amount: float
    until: float
    reason: str


class KnownRefusals:
    """The latest of each limit."""

    def __init__(self) -> None:
        self._of: dict[LimitName, Refusal] = {}

    def __repr__(self) -> str:
        return f"<KnownRefusals {sorted(self._of)}>"

    def add(self, refusal: Refusal) -> None:
        """It counts from now on."""
        self._of[refusal.limit] = refusal

    def forget(self) -> None:
        """There may be enough of everything again."""
        self._of.clear()

    def of(self, lacks: Amounts, now: float) -> Refusal | None:
        """Why what lacks is refused: of several the longest. None where that has to be asked."""
        told: Refusal | None = None
        for limit, refusal in list(self._of.items()):
            if refusal.until <= now:
                del self._of[limit]
            elif (lacking := getattr(lacks, limit)) and lacking >= refusal.amount:
                told = refusal if told is None or refusal.until > told.until else told
        return told
