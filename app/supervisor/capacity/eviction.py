"""Who makes room for whom, and when: pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

LINGER_S: Final = 1.0  # idle for less is the pause between two requests of one client


@dataclass(frozen=True, slots=True)
class Evictable:
    """An engine that has a place and could make room. `idle_since`: None while it has leases or somebody waits for it.

    `serving_since`: when it became ready; None while it sleeps.
    """

    name: str
    idle_since: float | None
    serving_since: float | None
    is_pinned: bool = False


def turn(loaded: Evictable, waiting_since: float, now: float, swap_after_s: float) -> float:
    """When `loaded` is to make way for another engine that waits since then; may be past, infinite for never.

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


def evict(fits_without: Callable[[Collection[str]], bool], loaded: Sequence[Evictable]) -> list[str] | None:
    """The idle engines to end, longest idle first; None when even all of them would not be enough.

    Those that leases are held on or somebody waits for, and pinned ones, are not among them. Nobody is ended whose
    room the others make unnecessary.
    """
    idle = [one for one in loaded if one.idle_since is not None and not one.is_pinned]
    return _least(fits_without, sorted(idle, key=_idle_since))


def give_way(
    fits_without: Callable[[Collection[str]], bool],
    loaded: Sequence[Evictable],
    waiting_since: float,
    now: float,
    swap_after_s: float,
) -> tuple[list[str], float]:
    """Who makes way now for an engine that waits, or nobody and when to look again (infinite: when something changes).

    An idle one goes before a busy one whose time is up; that one is not ended before its last lease is returned.
    """
    times = {one.name: turn(one, waiting_since, now, swap_after_s) for one in loaded}
    ready = [one for one in loaded if times[one.name] <= now]
    chosen = evict(fits_without, ready)
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
