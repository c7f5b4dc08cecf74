"""One row of the table: a backend's situation as the relays see it.

Nothing in it changes with time alone, because every change is published to all relays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from app.supervisor import status_text
from app.table import Backend
from backends.endpoint import State
from backends.lifecycle.machine import can_start

if TYPE_CHECKING:
    from app.supervisor.fleet.unit import Unit


def row(unit: Unit) -> Backend:
    """The backend's row, as of now."""
    life = unit.life
    return Backend(
        name=unit.name,
        kind=unit.kind,
        state=life.state,
        reason=explained(unit, life.reason),
        endpoint=unit.endpoint if life.state is State.READY else None,
        can_start=(can_start(life, unit.policy) or unit.is_to_follow) and not unit.occupancy.waits_for_first,
        models=unit.probe.models,
        is_strict=unit.engine.is_strict,
        retry_after_s=_retry_after_s(unit),
        adapters={name: unit.adapters.explained(name) for name in unit.adapters.paths},
        adapters_due=dict(unit.adapters.due),
        is_limited=unit.config.limit() is not None,
        wait_s=unit.config.max_wait_s,
        facts=dict(unit.probe.facts),
        media_domains=unit.config.media_domains(),
        version=unit.probe.version,
        is_wedged=life.state is State.FAILED and unit.probe.is_dead,
        is_given_up=not unit.is_to_follow and status_text.is_given_up(life),
        tries_at=unit.record.tries_at if life.state is State.FAILED else None,
        waits_for=unit.occupancy.waits_for if life.is_queued else None,
    )


def explained(unit: Unit, reason: str | None) -> str | None:
    """The reason why it does not serve, with what can be done about it; None where there is none."""
    return status_text.explained(
        unit.name,
        unit.life,
        reason,
        unit.record.tries_at,
        is_closing=unit.change.is_closing,
        is_followed=unit.is_to_follow,
    )


def _retry_after_s(unit: Unit) -> float:
    if (left_s := unit.runner.fetch_left_s) is not None:
        return float(max(5, min(120, math.ceil(left_s / 15) * 15)))  # in coarse steps: each change is published
    load_s = unit.record.load_s
    return 5.0 if load_s is None else float(max(1, min(120, round(load_s))))
