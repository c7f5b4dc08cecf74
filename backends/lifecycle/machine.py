"""When an engine is started, waited for, restarted and given up: one pure function.

    STOPPED ──Start/Wanted──▶ STARTING ──warm-up──▶ READY ──StopAsked──▶ STOPPING ──Exited──▶ STOPPED
                               ▲  │  ▲                │  ▲
                        backoff└──┘  └──exit, silence─┘  │     STARTING ──5 failed starts in a row──▶ FAILED
                                                         │
                    STOPPING ──Slept──▶ SLEEPING ──wake-up, warm-up

A managed engine is a process of ours: every start has a generation, and there is never a second process before the
first has exited. What it needs on this machine is fetched first (`Policy.is_fetched`), with neither room nor deadline,
by a process that still counts as of the generation before. Where it needs room (`Policy.is_placed`) it waits for
`Placed` before it starts or wakes up. An attached engine is somebody else's process: it is only asked how it is, and
FAILED means "does not answer now"; asking goes on. Time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from backends.endpoint import State
from backends.lifecycle.events import (
    Action,
    Drain,
    Drained,
    Event,
    Exited,
    Fetch,
    Fetched,
    Fetching,
    Kill,
    Mended,
    NotPlaced,
    Placed,
    Probed,
    Sleep,
    SleepAsked,
    SleepFailed,
    Slept,
    Spawn,
    Stalled,
    Start,
    StopAsked,
    Terminate,
    Tick,
    Unwatch,
    WakeUp,
    Wanted,
    WarmedUp,
    WarmUp,
    WarmUpFailed,
    Watch,
)

SERVED_WELL_S: Final = 60.0  # serving for so long forgives all failures before
BACKOFF_LIMIT_S: Final = 60.0
FAILED_STARTS: Final = 5  # that never became ready, then FAILED
REST_S: Final = 600.0  # after that a FAILED engine may be started on demand
MISSED_PROBES: Final = 3  # unanswered probes of a serving process of ours, then it counts as dead
DOZE_S: Final = 120.0  # for falling asleep: large weights on their way into host memory
LAST_S: Final = 5.0  # for one that is dead but for its exit: to tell its clients, and why
ATTACHED_MISSED_PROBES: Final = 2  # the same for somebody else's engine: the second look comes after a second


@dataclass(frozen=True, slots=True)
class Policy:
    """How one engine is treated; times in seconds."""

    is_attached: bool = False
    is_fetched: bool = False  # something may have to be brought here before it starts
    is_placed: bool = False  # it starts when there is room for it
    start_timeout_s: float = 600.0
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One engine's life so far.

    `due`: when the next Tick has something to do (start deadline, next try, end of a grace). `is_ending`: KILL was
    sent and the exit has not been seen. `is_dying`: it served, is dead, and has not exited yet. `is_held`: stopped by
    the administrator, so requests do not start it. `is_waiting`: for room. `is_asleep`: its process is sent nothing.
    `evicted`: it stops until it is wanted.
    """

    state: State = State.STOPPED
    generation: int = 0
    reason: str | None = None
    since: float = 0.0
    due: float | None = None
    has_process: bool = False
    is_warming: bool = False
    is_ending: bool = False
    is_dying: bool = False
    is_draining: bool = False
    is_held: bool = False
    is_fetching: bool = False  # `has_process` is then of the process that brings what it needs
    is_waiting: bool = False
    is_dozing: bool = False  # it was told to sleep
    is_asleep: bool = False
    evicted: bool = False
    is_settled: bool = False  # this start came to an end that another one would only meet again
    is_too_large: bool = False  # it failed because this machine has not what it needs
    then_start: bool = False
    then_sleep: int = 0  # the level, once it is drained
    ready_at: float | None = None  # when this generation became READY
    failed_starts: int = 0  # starts in a row that never became ready
    failures: int = 0  # failures of every kind since it last served well
    missed_probes: int = 0  # probes in a row without an answer


Step = tuple[Lifecycle, list[Action]]


def backoff_s(failures: int, jitter: float) -> float:
    """The wait before the next try: full jitter under 1, 2, 4 … 60 s."""
    return min(BACKOFF_LIMIT_S, 2.0 ** min(failures - 1, 10)) * jitter


def can_start(life: Lifecycle, policy: Policy) -> bool:
    """Whether asking for it (`Wanted`, then waiting) may make it serve."""
    match life.state:
        case State.READY | State.STARTING:
            return True
        case State.STOPPED | State.SLEEPING:
            return not policy.is_attached and not life.is_held
        case State.FAILED:
            return not policy.is_attached and life.due is None
        case State.STOPPING:
            return life.then_start or life.evicted


def step(life: Lifecycle, event: Event, now: float, policy: Policy) -> Step:
    """What becomes of this life when this happens, and what is to be done. An event of an old generation is nothing."""
    match event:
        case Start():
            return _start(life, now, policy)
        case Wanted() if can_start(life, policy) and life.state is not State.READY and not _is_on_its_way(life):
            return _start(life, now, policy)
        case Placed() if life.is_waiting:
            return _placed(life, now, policy)
        case NotPlaced() if life.is_waiting:
            return _not_placed(life, event, now)
        case StopAsked():
            return _stop(life, event, now, policy)
        case SleepAsked(level) if life.state is State.READY and not policy.is_attached:
            draining = replace(_moved(life, State.STOPPING, now, None), is_draining=True, evicted=True)
            return replace(draining, then_sleep=level, then_start=False), [Drain(life.generation)]
        case Slept(generation) if generation == life.generation and life.is_dozing:
            return _slept(life, now, policy)
        case SleepFailed(generation, _) if generation == life.generation and life.is_dozing:
            return _terminate(life, now, policy)
        case Tick() if life.due is not None and now >= life.due:
            return _tick(replace(life, due=None), now, policy)
        case Drained(generation) if generation == life.generation and life.is_draining:
            return _drained(life, now, policy)
        case Stalled(generation, reason) if generation == life.generation and _can_stall(life):
            return _end(life, now, reason)
        case Probed(generation) if generation == life.generation:
            return _probed(life, event, now, policy)
        case WarmedUp(generation) if generation == life.generation and life.is_warming:
            ready = replace(_moved(life, State.READY, now, None), ready_at=now, failed_starts=0)
            return replace(ready, is_asleep=False, evicted=False), []
        case WarmUpFailed(generation, reason) if generation == life.generation and life.is_warming:
            if policy.is_attached:
                return _moved(life, State.FAILED, now, reason), []
            ending, actions = _end(life, now, reason)
            return replace(ending, is_settled=event.is_final), actions
        case Fetching(generation, told) if generation == life.generation and life.is_fetching:
            return replace(life, reason=told), []
        case Fetched(generation) if generation == life.generation and life.has_process:
            return _fetched(replace(life, has_process=False), event.is_news, now, policy)
        case Exited(generation) if generation == life.generation and life.has_process:
            return _exited(replace(life, has_process=False), event, now, policy)
        case Mended() if life.state is State.FAILED and not policy.is_attached:
            return replace(life, due=None), []
        case _:
            return life, []


def _moved(life: Lifecycle, state: State, now: float, reason: str | None, due: float | None = None) -> Lifecycle:
    """The same life in another state; what belonged to the state before is off."""
    moved = replace(life, state=state, since=now, reason=reason, due=due, is_warming=False, missed_probes=0)
    moved = replace(moved, is_dying=False, is_too_large=False)
    return replace(moved, is_fetching=False, is_waiting=False, is_dozing=False)


def _is_on_its_way(life: Lifecycle) -> bool:
    return life.state is State.STARTING or (life.state is State.STOPPING and life.then_start)


def _can_stall(life: Lifecycle) -> bool:
    if not life.has_process or life.is_ending or life.is_dying or life.is_waiting:
        return False
    return life.state is State.READY or (life.state is State.STARTING and not life.is_asleep)


def _start(life: Lifecycle, now: float, policy: Policy) -> Step:
    match life.state:
        case State.STOPPED | State.FAILED:
            fresh = replace(life, failed_starts=0, failures=0, is_held=False, then_start=False)
            if policy.is_attached:
                watched = [] if life.state is State.FAILED else [Watch()]
                return _moved(fresh, State.STARTING, now, None), list(watched)
            return _begin(fresh, now, None, policy)
        case State.SLEEPING if not life.is_ending:
            return _begin(replace(life, then_start=False), now, None, policy)
        case State.STOPPING | State.SLEEPING:
            return replace(life, then_start=True, is_held=False), []
        case State.STARTING if not life.has_process and not life.is_waiting and not policy.is_attached:
            return _begin(replace(life, failed_starts=0, failures=0), now, life.reason, policy)
        case _:
            return life, []


def _begin(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    """Start or wake it, as soon as everything is here and there is room."""
    if policy.is_fetched and not life.is_asleep:
        fetching = replace(_moved(life, State.STARTING, now, reason), is_fetching=True, has_process=True)
        return replace(fetching, evicted=False, ready_at=None), [Fetch(life.generation)]
    return _enter(life, now, reason, policy)


def _fetched(life: Lifecycle, is_news: bool, now: float, policy: Policy) -> Step:
    if life.state is State.STOPPING:
        return _after_stop(life, [], now, policy)
    return _enter(replace(life, is_ending=False), now, None if is_news else life.reason, policy)


def _enter(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    if policy.is_placed:
        return replace(_moved(life, State.STARTING, now, reason), is_waiting=True, evicted=False), []
    return _wake(life, now, policy) if life.is_asleep else _spawn(life, now, reason, policy)


def _placed(life: Lifecycle, now: float, policy: Policy) -> Step:
    return _wake(life, now, policy) if life.is_asleep else _spawn(life, now, life.reason, policy)


def _not_placed(life: Lifecycle, event: NotPlaced, now: float) -> Step:
    if life.is_asleep:
        return _moved(life, State.SLEEPING, now, event.reason), []
    if event.is_final:
        return replace(_moved(life, State.FAILED, now, event.reason, due=now + REST_S), is_too_large=True), []
    return _moved(life, State.STOPPED, now, event.reason), []


def _wake(life: Lifecycle, now: float, policy: Policy) -> Step:
    waking = _moved(life, State.STARTING, now, None, due=now + policy.start_timeout_s)
    return replace(waking, is_warming=True), [WakeUp(life.generation)]


def _spawn(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    generation = life.generation + 1
    started = _moved(life, State.STARTING, now, reason, due=now + policy.start_timeout_s)
    fresh = replace(started, generation=generation, has_process=True, ready_at=None, is_asleep=False, evicted=False)
    fresh = replace(fresh, is_settled=False)
    return fresh, [Spawn(generation)]


def _stop(life: Lifecycle, event: StopAsked, now: float, policy: Policy) -> Step:
    asked = replace(life, then_start=event.then_start, is_held=event.is_held, evicted=event.evicted, then_sleep=0)
    if life.state is State.STOPPING:
        if life.is_dozing:
            return _terminate(asked, now, policy)
        if life.is_draining and life.due is None:
            return replace(asked, due=now + event.drain_s), []
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
    stopped = replace(_moved(life, State.STOPPED, now, None), is_ending=False, is_draining=False, is_asleep=False)
    stopped = replace(stopped, evicted=False, then_sleep=0)
    if not life.then_start:
        return stopped, actions
    started, more = _start(stopped, now, policy)
    return started, [*actions, *more]


def _terminate(life: Lifecycle, now: float, policy: Policy) -> Step:
    ending = replace(life, is_draining=False, is_dozing=False, then_sleep=0, due=now + policy.stop_grace_s)
    return ending, [Terminate()]


def _drained(life: Lifecycle, now: float, policy: Policy) -> Step:
    if not life.then_sleep:
        return _terminate(life, now, policy)
    dozing = replace(life, is_draining=False, is_dozing=True, then_sleep=0, due=now + DOZE_S)
    return dozing, [Sleep(life.generation, life.then_sleep)]


def _slept(life: Lifecycle, now: float, policy: Policy) -> Step:
    asleep = replace(_moved(life, State.SLEEPING, now, None), is_asleep=True, evicted=False)
    return _begin(replace(asleep, then_start=False), now, None, policy) if life.then_start else (asleep, [])


def _end(life: Lifecycle, now: float, reason: str) -> Step:
    """Out of routing at once; the exit that follows counts as the failure."""
    return replace(_moved(life, State.STARTING, now, reason), is_ending=True), [Kill()]


def _tick(life: Lifecycle, now: float, policy: Policy) -> Step:
    match life.state:
        case State.STARTING if life.is_dying:
            return _end(life, now, life.reason or "it is dead")
        case State.STARTING if life.has_process:
            return _end(life, now, f"it was not ready within {policy.start_timeout_s:g} s")
        case State.STARTING:
            return _begin(life, now, life.reason, policy)
        case State.STOPPING if life.is_draining or life.is_dozing:
            return _terminate(life, now, policy)
        case State.STOPPING:
            return replace(life, is_ending=True), [Kill()]
        case _:
            return life, []


def _probed(life: Lifecycle, event: Probed, now: float, policy: Policy) -> Step:
    if policy.is_attached:
        return _probed_attached(life, event, now)
    if life.is_ending or life.is_dying:
        return life, []
    match life.state:
        case State.READY if event.is_dead:
            dying = _moved(life, State.STARTING, now, event.reason, due=now + LAST_S)
            return replace(dying, is_dying=True), []
        case State.STARTING if event.is_up and life.has_process and not life.is_warming and not life.is_asleep:
            return replace(life, is_warming=True), [WarmUp(life.generation)]
        case State.READY | State.SLEEPING if event.is_up:
            return replace(life, missed_probes=0), []
        case State.READY | State.SLEEPING if life.missed_probes + 1 < MISSED_PROBES:
            return replace(life, missed_probes=life.missed_probes + 1), []
        case State.SLEEPING:
            return replace(life, is_ending=True, missed_probes=0), [Kill()]
        case State.READY:
            reason = event.reason or "no reason given"
            return _end(life, now, f"it left {MISSED_PROBES} probes in a row unanswered ({reason})")
        case _:
            return life, []


def _probed_attached(life: Lifecycle, event: Probed, now: float) -> Step:
    match life.state:
        case State.STARTING | State.FAILED if event.is_up and not life.is_warming:
            generation = life.generation + 1
            return replace(life, generation=generation, is_warming=True, missed_probes=0), [WarmUp(generation)]
        case State.READY if event.is_up:
            return replace(life, missed_probes=0), []
        case State.READY if life.missed_probes + 1 < ATTACHED_MISSED_PROBES:
            return replace(life, missed_probes=life.missed_probes + 1), []
        case State.READY | State.STARTING if not event.is_up:
            return _moved(life, State.FAILED, now, event.reason), []
        case State.FAILED if not event.is_up:
            return replace(life, reason=event.reason, is_warming=False), []
        case _:
            return life, []


def _exited(life: Lifecycle, event: Exited, now: float, policy: Policy) -> Step:
    reason = event.reason
    if life.state is State.STOPPING:
        return _after_stop(life, [], now, policy)
    if life.state is State.SLEEPING:
        stopped, actions = _after_stop(life, [], now, policy)
        return replace(stopped, reason=f"it ended in its sleep: {reason}"), actions
    if life.is_waiting:
        return replace(life, is_asleep=False), []  # its sleep is over; it waits for room as before
    # What we ended ourselves has its reason already; the exit is only its consequence.
    told = life.reason if life.is_ending and life.reason else reason
    has_served = life.ready_at is not None
    served_s = now - life.ready_at if life.ready_at is not None else 0.0
    failures = 1 if served_s >= SERVED_WELL_S else life.failures + 1
    failed_starts = 0 if has_served else life.failed_starts + 1
    counted = replace(life, failures=failures, failed_starts=failed_starts, is_ending=False, is_asleep=False)
    is_final = (event.is_final and not life.is_ending) or life.is_settled
    if failed_starts >= FAILED_STARTS or (is_final and not has_served):
        return _moved(counted, State.FAILED, now, told, due=now + REST_S), []
    return _moved(counted, State.STARTING, now, told, due=now + backoff_s(failures, event.jitter)), []
