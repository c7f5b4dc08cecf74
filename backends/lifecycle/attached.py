"""The life of an engine that somebody else runs: it is only asked how it is, and asking goes on whatever it says.

The transition table: phase, what the world is shown of it, and what each event leads to (tests hold it against the
code). Every other event leaves the phase as it is.

    STOPPED      stopped   Start → CONNECTING; StopAsked → CONNECTING
    CONNECTING   starting  Probed → CHECKING UNREACHABLE; StopAsked → STOPPED
    CHECKING     starting  Probed → UNREACHABLE; WarmedUp → ATTACHED; WarmUpFailed → UNREACHABLE; StopAsked → end
    ATTACHED     ready     Probed → UNREACHABLE; StopAsked → end
    UNREACHABLE  failed    Probed → RECHECKING; Start → CONNECTING; StopAsked → end
    RECHECKING   failed    Probed → UNREACHABLE; WarmedUp → ATTACHED; WarmUpFailed → UNREACHABLE;
                           Start → CONNECTING; StopAsked → end

end: STOPPED; with the intent RESTART it is asked anew: CONNECTING.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from backends.lifecycle.events import (
    Action,
    Event,
    Probed,
    Start,
    Step,
    StopAsked,
    Unwatch,
    WarmedUp,
    WarmUp,
    WarmUpFailed,
    Watch,
)
from backends.lifecycle.phases import Intent, Lifecycle, Phase

MISSED_PROBES: Final = 2  # in a row, then it counts as unreachable; the second look comes after a second


def step(life: Lifecycle, event: Event, now: float) -> Step:
    """As `machine.step`, which is called first and leaves out news of earlier generations."""
    match event:
        case Start():
            return _start(life, now)
        case StopAsked(_, then):
            return _stop(life, then, now)
        case Probed():
            return _probed(life, event, now)
        case WarmedUp() if life.phase in (Phase.CHECKING, Phase.RECHECKING):
            return replace(life.moved(Phase.ATTACHED, now), ready_at=now, failed_starts=0), []
        case WarmUpFailed(_, reason) if life.phase in (Phase.CHECKING, Phase.RECHECKING):
            return life.moved(Phase.UNREACHABLE, now, reason), []
        case _:
            return life, []


def _start(life: Lifecycle, now: float) -> Step:
    fresh = replace(life, intent=Intent.RUN, failed_starts=0, failures=0)
    match life.phase:
        case Phase.STOPPED:
            return fresh.moved(Phase.CONNECTING, now), [Watch()]
        case Phase.UNREACHABLE | Phase.RECHECKING:
            return fresh.moved(Phase.CONNECTING, now), []  # it is being asked
        case _:
            return life, []


def _stop(life: Lifecycle, then: Intent, now: float) -> Step:
    actions: list[Action] = [] if life.phase is Phase.STOPPED else [Unwatch()]
    stopped = life.moved(Phase.STOPPED, now)
    if then is not Intent.RESTART:
        return replace(stopped, intent=Intent.HELD if then is Intent.HELD else Intent.REST), actions
    started, more = _start(stopped, now)
    return started, [*actions, *more]


def _probed(life: Lifecycle, event: Probed, now: float) -> Step:
    match life.phase:
        case Phase.CONNECTING | Phase.UNREACHABLE if event.is_up:
            generation = life.generation + 1
            phase = Phase.CHECKING if life.phase is Phase.CONNECTING else Phase.RECHECKING
            return replace(life, phase=phase, generation=generation), [WarmUp(generation)]
        case Phase.ATTACHED if event.is_up:
            return replace(life, missed_probes=0), []
        case Phase.ATTACHED if life.missed_probes + 1 < MISSED_PROBES:
            return replace(life, missed_probes=life.missed_probes + 1), []
        case Phase.CONNECTING | Phase.CHECKING | Phase.ATTACHED if not event.is_up:
            return life.moved(Phase.UNREACHABLE, now, event.reason), []
        case Phase.UNREACHABLE | Phase.RECHECKING if not event.is_up:
            return replace(life, phase=Phase.UNREACHABLE, reason=event.reason), []
        case _:
            return life, []
