"""What scheduling knows of one unit. Everybody may read it; only the scheduler writes it (tests hold it to that)."""

from __future__ import annotations

from dataclasses import dataclass

from app.supervisor.capacity.placement import Allocation


@dataclass(slots=True)
class Occupancy:
    """`place`: what the unit has of the machine, until nothing of its process is left.

    `waits_for`: what it waits for while it is queued, in words; `waits_for_first`: another replica must have started
    before. `requested_by_admin`: the administrator waits for it, or a request that was sent away will come back.
    `is_barred`: it did not start because of a GPU in quarantine. `idle_since`: on the scheduler's clock, while it
    serves and nobody needs it. `served_generation`: the latest start that has finished a request.
    `swaps`: how often it was evicted.
    """

    place: Allocation | None = None
    waits_for: str | None = None
    waits_for_first: bool = False
    requested_by_admin: bool = False
    is_barred: bool = False
    idle_since: float | None = None
    served_generation: int | None = None
    swaps: int = 0
