"""What is counted of a backend's queue, over all of its starts."""

from __future__ import annotations

from typing import Final

from app.supervisor.metrics.bucket_counts import BucketCounts

WAIT_BOUNDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# Why a request was refused: too many wait already, or it could not have been served in its time.
FULL: Final = "full"
LATE: Final = "late"
INTERACTIVE: Final = "interactive"
BATCH: Final = "batch"


class QueueCounts:
    """`refused`: requests by the reason; `waits`: the seconds of those that were admitted, by their priority."""

    def __init__(self) -> None:
        self.refused: dict[str, int] = {FULL: 0, LATE: 0}
        self.waits: dict[str, BucketCounts] = {each: BucketCounts(WAIT_BOUNDS) for each in (INTERACTIVE, BATCH)}

    def __repr__(self) -> str:
        return f"<QueueCounts refused={self.refused}>"

    def admitted(self, waited_s: float, *, is_batch: bool) -> None:
        """A request has its place after so long."""
        self.waits[BATCH if is_batch else INTERACTIVE].observe(waited_s)

    def refuse(self, *, is_late: bool) -> None:
        """A request was sent away."""
        self.refused[LATE if is_late else FULL] += 1
