"""When an engine is started, waited for, restarted and given up: one pure function.

    STOPPED ──Start/Wanted──▶ STARTING ──warm-up──▶ READY ──StopAsked──▶ STOPPING ──Exited──▶ STOPPED
                               ▲  │  ▲                │
                        backoff└──┘  └──exit, silence─┘        STARTING ──5 failed starts in a row──▶ FAILED

A managed engine is a process of ours: every start has a generation, and there is never a second process before the
first has exited. An attached engine is somebody else's process: it is only asked how it is, and FAILED means "does
not answer now"; asking goes on. Time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from backends.base import State
from backends.events import (
    Action,
    Drain,
    Drained,
    Event,
    Exited,
    Kill,
    Probed,
    Spawn,
    Start,
    StopAsked,
    Terminate,
    Tick,
    Unwatch,
    Wanted,
    WarmedUp,
    WarmUp,
    WarmUpFailed,
    Watch,
)

SERVED_WELL_S: Final = 60.0  # serving for so long forgives all failures before
BACKOFF_LIMIT_S: Final = 60.0
STARTS_IN_A_ROW: Final = 5  # that never became ready, then FAILED
REST_S: Final = 600.0  # after that a FAILED engine may be started on demand
SILENCES_IN_A_ROW: Final = 3  # unanswered probes of a serving process of ours, then it counts as dead
DOUBTS_IN_A_ROW: Final = 2  # the same for somebody else's engine: the second look comes after a second


@dataclass(frozen=True, slots=True)
class Policy:
    """How one engine is treated; times in seconds."""

    is_attached: bool = False
    start_timeout_s: float = 600.0
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One engine's life so far.

    `due`: when the next Tick has something to do (start deadline, next try, end of a grace). `is_ending`: KILL was
    sent and the exit has not been seen. `is_held`: stopped by the administrator, so requests do not start it.
    """

    state: State = State.STOPPED
    generation: int = 0
    reason: str | None = None
    since: float = 0.0
    due: float | None = None
    has_process: bool = False
    is_warming: bool = False
    is_ending: bool = False
    is_draining: bool = False
    is_held: bool = False
    then_start: bool = False
    ready_at: float | None = None  # when this generation became READY
    fruitless: int = 0  # starts in a row that never became ready
    failures: int = 0  # failures of every kind since it last served well
    silences: int = 0  # probes in a row without an answer


Step = tuple[Lifecycle, list[Action]]


def backoff_s(failures: int, jitter: float) -> float:
    """The wait before the next try: full jitter under 1, 2, 4 … 60 s."""
    return min(BACKOFF_LIMIT_S, 2.0 ** min(failures - 1, 10)) * jitter


def can_start(life: Lifecycle, policy: Policy) -> bool:
    """Whether asking for it (`Wanted`, then waiting) may make it serve."""
    match life.state:
        case State.READY | State.STARTING:
            return True
        case State.STOPPED:
            return not policy.is_attached and not life.is_held
        case State.FAILED:
            return not policy.is_attached and life.due is None
        case State.STOPPING:
            return life.then_start
        case _:
            return False


def step(life: Lifecycle, event: Event, now: float, policy: Policy) -> Step:
    """What becomes of this life when this happens, and what is to be done. An event of an old generation is nothing."""
    match event:
        case Start():
            return _start(life, now, policy)
        case Wanted() if can_start(life, policy) and life.state in (State.STOPPED, State.FAILED):
            return _start(life, now, policy)
        case StopAsked():
            return _stop(life, event, now, policy)
        case Tick() if life.due is not None and now >= life.due:
            return _tick(replace(life, due=None), now, policy)
        case Drained(generation) if generation == life.generation and life.is_draining:
            return _terminate(life, now, policy)
        case Probed(generation) if generation == life.generation:
            return _probed(life, event, now, policy)
        case WarmedUp(generation) if generation == life.generation and life.is_warming:
            return replace(_moved(life, State.READY, now, None), ready_at=now, fruitless=0), []
        case WarmUpFailed(generation, reason) if generation == life.generation and life.is_warming:
            if policy.is_attached:
                return _moved(life, State.FAILED, now, reason), []
            return _end(life, now, reason)
        case Exited(generation, reason, jitter) if generation == life.generation and life.has_process:
            return _exited(replace(life, has_process=False), reason, jitter, now, policy)
        case _:
            return life, []


def _moved(life: Lifecycle, state: State, now: float, reason: str | None, due: float | None = None) -> Lifecycle:
    """The same life in another state; what belonged to the state before is off."""
    return replace(life, state=state, since=now, reason=reason, due=due, is_warming=False, silences=0)


def _start(life: Lifecycle, now: float, policy: Policy) -> Step:
    match life.state:
        case State.STOPPED | State.FAILED:
            fresh = replace(life, fruitless=0, failures=0, is_held=False, then_start=False)
            if policy.is_attached:
                watched = [] if life.state is State.FAILED else [Watch()]
                return _moved(fresh, State.STARTING, now, None), list(watched)
            return _spawn(fresh, now, None, policy)
        case State.STOPPING:
            return replace(life, then_start=True, is_held=False), []
        case State.STARTING if not life.has_process and not policy.is_attached:
            return _spawn(replace(life, fruitless=0, failures=0), now, life.reason, policy)
        case _:
            return life, []


def _spawn(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    generation = life.generation + 1
    started = _moved(life, State.STARTING, now, reason, due=now + policy.start_timeout_s)
    return replace(started, generation=generation, has_process=True, ready_at=None), [Spawn(generation)]


def _stop(life: Lifecycle, event: StopAsked, now: float, policy: Policy) -> Step:
    asked = replace(life, then_start=event.then_start, is_held=event.is_held)
    if life.state is State.STOPPING:
        if life.is_draining and life.due is not None:
            return replace(asked, due=min(life.due, now + event.drain_s)), []
        return asked, []
    if policy.is_attached:
        actions: list[Action] = [] if life.state is State.STOPPED else [Unwatch()]
        return _after_stop(asked, actions, now, policy)
    if not life.has_process:
        return _after_stop(asked, [], now, policy)
    if life.is_ending:
        return _moved(asked, State.STOPPING, now, None), []
    if life.state is State.READY:
        draining = _moved(asked, State.STOPPING, now, None, due=now + event.drain_s)
        return replace(draining, is_draining=True), [Drain(life.generation)]
    return _terminate(_moved(asked, State.STOPPING, now, None), now, policy)


def _after_stop(life: Lifecycle, actions: list[Action], now: float, policy: Policy) -> Step:
    stopped = replace(_moved(life, State.STOPPED, now, None), is_ending=False, is_draining=False)
    if not life.then_start:
        return stopped, actions
    started, more = _start(stopped, now, policy)
    return started, [*actions, *more]


def _terminate(life: Lifecycle, now: float, policy: Policy) -> Step:
    return replace(life, is_draining=False, due=now + policy.stop_grace_s), [Terminate()]


def _end(life: Lifecycle, now: float, reason: str) -> Step:
    """Out of routing at once; the exit that follows counts as the failure."""
    return replace(_moved(life, State.STARTING, now, reason), is_ending=True), [Kill()]


def _tick(life: Lifecycle, now: float, policy: Policy) -> Step:
    match life.state:
        case State.STARTING if life.has_process:
            return _end(life, now, f"it was not ready within {policy.start_timeout_s:g} s")
        case State.STARTING:
            return _spawn(life, now, life.reason, policy)
        case State.STOPPING if life.is_draining:
            return _terminate(life, now, policy)
        case State.STOPPING:
            return replace(life, is_ending=True), [Kill()]
        case _:
            return life, []


def _probed(life: Lifecycle, event: Probed, now: float, policy: Policy) -> Step:
    if policy.is_attached:
        return _probed_attached(life, event, now)
    if life.is_ending:
        return life, []
    match life.state:
        case State.STARTING if event.is_up and life.has_process and not life.is_warming:
            return replace(life, is_warming=True), [WarmUp(life.generation)]
        case State.READY if event.is_up:
            return replace(life, silences=0), []
        case State.READY if life.silences + 1 < SILENCES_IN_A_ROW:
            return replace(life, silences=life.silences + 1), []
        case State.READY:
            reason = event.reason or "no reason given"
            return _end(life, now, f"it left {SILENCES_IN_A_ROW} probes in a row unanswered ({reason})")
        case _:
            return life, []


def _probed_attached(life: Lifecycle, event: Probed, now: float) -> Step:
    match life.state:
        case State.STARTING | State.FAILED if event.is_up and not life.is_warming:
            generation = life.generation + 1
            return replace(life, generation=generation, is_warming=True, silences=0), [WarmUp(generation)]
        case State.READY if event.is_up:
            return replace(life, silences=0), []
        case State.READY if life.silences + 1 < DOUBTS_IN_A_ROW:
            return replace(life, silences=life.silences + 1), []
        case State.READY | State.STARTING if not event.is_up:
            return _moved(life, State.FAILED, now, event.reason), []
        case State.FAILED if not event.is_up:
            return replace(life, reason=event.reason, is_warming=False), []
        case _:
            return life, []


def _exited(life: Lifecycle, reason: str, jitter: float, now: float, policy: Policy) -> Step:
    if life.state is State.STOPPING:
        return _after_stop(life, [], now, policy)
    # What we ended ourselves has its reason already; the exit is only its consequence.
    told = life.reason if life.is_ending and life.reason else reason
    has_served = life.ready_at is not None
    served_s = now - life.ready_at if life.ready_at is not None else 0.0
    failures = 1 if served_s >= SERVED_WELL_S else life.failures + 1
    fruitless = 0 if has_served else life.fruitless + 1
    counted = replace(life, failures=failures, fruitless=fruitless, is_ending=False)
    if fruitless >= STARTS_IN_A_ROW:
        return _moved(counted, State.FAILED, now, told, due=now + REST_S), []
    return _moved(counted, State.STARTING, now, told, due=now + backoff_s(failures, jitter)), []
