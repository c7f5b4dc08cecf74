"""Which engines may stop now for their new configuration, or because their entry has fewer replicas: one after the
other, and none while another one of the entry is still starting, or does not start with the new configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backends.endpoint import State

if TYPE_CHECKING:
    from app.supervisor.fleet.unit import Unit


@dataclass(frozen=True, slots=True)
class UpdateProgress:
    """How far an engine is with its new configuration while it still has the one before.

    `reason`: what it waits for, or why it keeps what it has.
    """

    state: Literal["pending", "failed"]
    reason: str


def free(units: Iterable[Unit], replacements: Collection[str]) -> Iterator[Unit]:
    """The units among these that may stop now; `replacements`: names whose next engine starts beside them."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(unit.entry, []).append(unit)
    for group in groups.values():
        stopping = [unit for unit in group if unit.change.postponed_stop is not None]
        staying = [unit for unit in group if not unit.change.is_leaving]
        if not stopping:
            continue
        if not staying:
            yield from stopping  # the whole entry goes
        elif _obstacle(staying, replacements) is None:
            # Those that do not serve go first: nobody misses them.
            yield min(stopping, key=lambda unit: (unit.change.is_leaving, unit.life.state is State.READY))


def _obstacle(staying: Iterable[Unit], replacements: Collection[str]) -> Unit | None:
    """A unit that has its new configuration and does not serve yet, or does not start with it."""
    return next(
        (
            unit
            for unit in staying
            if unit.name in replacements
            or (unit.change.postponed_stop is None and (unit.is_pending or _has_failed(unit)))
        ),
        None,
    )


def _has_failed(unit: Unit) -> bool:
    return unit.change.refused is not None or (unit.life.state is State.FAILED and unit.is_managed)


def progress(unit: Unit, units: Iterable[Unit], replacements: dict[str, Unit]) -> UpdateProgress | None:
    """How far this unit is; None when it has the configuration that it is to have."""
    replacement = replacements.get(unit.name)
    if replacement is not None:
        why = f": {replacement.reason}" if replacement.reason else ""
        return UpdateProgress("pending", f"it serves until its new configuration does, which starts beside it{why}")
    if unit.change.refused is not None:
        return UpdateProgress(
            "failed",
            f"its new configuration does not start: {unit.change.refused.reason}; it serves with the one before until "
            "`modelport reload`",
        )
    if unit.change.postponed_stop is not None and not unit.change.is_leaving:
        other = _obstacle(
            (each for each in units if each.entry == unit.entry and not each.change.is_leaving), replacements
        )
        if other is not None and _has_failed(other):
            refused = other.change.refused
            cause = refused.reason if refused is not None else other.reason
            return UpdateProgress(
                "failed",
                f"its new configuration does not start at {other.name}: {cause}; it serves with the one before",
            )
        return UpdateProgress(
            "pending", f"its new configuration comes when {other.name if other else 'another'} serves"
        )
    if unit.is_to_follow:
        return UpdateProgress("pending", "it stops for its new configuration")
    return None
