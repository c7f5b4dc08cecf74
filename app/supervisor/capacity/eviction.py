"""Which engines are evicted for another one, and when: pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

LINGER_S: Final = 1.0  # idle for less is the pause between two requests of one client


@dataclass(frozen=True, slots=True)
class Evictable:
    """An engine that has a place and could make room. All times are of one clock, in seconds.

    `idle_since`: None while leases on it are held or requests wait for it. `serving_since`: when it became ready; None
    while it sleeps.
    """

    name: str
    idle_since: float | None
    serving_since: float | None
    is_pinned: bool = False


def evictable_at(loaded: Evictable, waiting_since: float, now: float, swap_after_s: float) -> float:
    """When `loaded` may be evicted for another engine that waits since `waiting_since`; may be past; infinite: never.

    At once when it sleeps, after a short while without work, and otherwise when it has served for `swap_after_s` while
    the other waited: so two models that are asked for in turn are swapped once in that time and not at every request,
    and none waits for ever.
    """
    if loaded.is_pinned:
        return math.inf
    if loaded.serving_since is None:
        return now
    end = max(waiting_since, loaded.serving_since) + swap_after_s
    if loaded.idle_since is None:
        return end
    return min(end, max(loaded.idle_since, loaded.serving_since) + LINGER_S)


def choose_idle(fits_without: Callable[[Collection[str]], bool], loaded: Sequence[Evictable]) -> list[str] | None:
    """The idle engines to evict, longest idle first and no more than needed; None when all of them are not enough.

    Busy and pinned engines are not among them. `fits_without`: whether there is room once these names are gone.
    """
    idle = [one for one in loaded if one.idle_since is not None and not one.is_pinned]
    return _least(fits_without, sorted(idle, key=_idle_since))


def choose_evicted(
    fits_without: Callable[[Collection[str]], bool],
    loaded: Sequence[Evictable],
    waiting_since: float,
    now: float,
    swap_after_s: float,
) -> tuple[list[str], float]:
    """The engines to evict now for one that waits; or none, and when to look again (infinite: when something changes).

    Idle ones go before busy ones whose time is up; a busy one is not ended before its last lease is returned.
    """
    times = {one.name: evictable_at(one, waiting_since, now, swap_after_s) for one in loaded}
    ready = [one for one in loaded if times[one.name] <= now]
    chosen = choose_idle(fits_without, ready)
    if chosen is None:
        order = sorted(ready, key=lambda one: (one.idle_since is None, _idle_since(one), one.serving_since or 0.0))
        chosen = _least(fits_without, order)
    if chosen is not None:
        return chosen, math.inf
    return [], min((at for at in times.values() if at > now), default=math.inf)


def _least(fits_without: Callable[[Collection[str]], bool], order: Sequence[Evictable]) -> list[str] | None:
    names: list[str] = []
    for one in order:
        if fits_without(names):
            break
        names.append(one.name)
    if not fits_without(names):
        return None
    for name in list(names):
        rest = [other for other in names if other != name]
        if fits_without(rest):
            names = rest
    return names


def _idle_since(one: Evictable) -> float:
    return one.idle_since if one.idle_since is not None else math.inf
