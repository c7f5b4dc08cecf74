"""When an engine is started, waited for, restarted and given up: one pure function, `step`.

A managed engine is a process of ours: every start has a generation, and there is never a second process before the
first has exited. The files that it needs on this machine are fetched first (`Policy.is_fetched`), with neither room nor
deadline, by a process that still counts as of the generation before. Where it needs room (`Policy.is_placed`) it waits
for `Placed` before it starts or wakes up. Time and chance are arguments.

The transition table: phase, what the world is shown of it, and what each event leads to (tests hold it against the
code). Every other event leaves the phase as it is.

    STOPPED         stopped   Start Wanted StopAsked → begin
    FETCHING        starting  Fetched → load; Exited → failed; Stalled → FAILING; StopAsked → TERMINATING
    QUEUED          starting  Placed → LOADING; NotPlaced → STOPPED TOO_LARGE; StopAsked → end
    LOADING         starting  Probed → WARMING; Exited → failed; Stalled Tick → FAILING; StopAsked → TERMINATING
    WARMING         starting  WarmedUp → SERVING; WarmUpFailed → FAILING GIVING_UP; Exited → failed;
                              Stalled Tick → FAILING; StopAsked → TERMINATING
    SERVING         ready     Probed → DYING FAILING; Exited → BACKING_OFF; Stalled → FAILING;
                              StopAsked SleepAsked → DRAINING
    DYING           starting  Exited → BACKING_OFF; Tick → FAILING; StopAsked → TERMINATING
    FAILING         starting  Exited → failed; Fetched → load; StopAsked → KILLED
    GIVING_UP       starting  Exited → GIVEN_UP; StopAsked → KILLED
    BACKING_OFF     starting  Tick Start → begin; StopAsked → end
    GIVEN_UP        failed    Tick FilesChanged → RETRYABLE; Start → begin; StopAsked → end
    TOO_LARGE       failed    Tick FilesChanged → RETRYABLE; Start → begin; StopAsked → end
    RETRYABLE       failed    Start Wanted → begin; StopAsked → end
    DRAINING        stopping  Drained → FALLING_ASLEEP TERMINATING; Tick → TERMINATING; Exited → end
    FALLING_ASLEEP  stopping  Slept → ASLEEP wake; SleepFailed Tick StopAsked → TERMINATING; Exited → end
    TERMINATING     stopping  Exited Fetched → end; Tick → KILLED
    KILLED          stopping  Exited Fetched → end
    ASLEEP          sleeping  Start Wanted → wake; Probed → KILLED_ASLEEP; Exited → STOPPED; StopAsked → TERMINATING
    QUEUED_TO_WAKE  starting  Placed → WAKING; NotPlaced → ASLEEP; Exited → QUEUED; StopAsked → TERMINATING
    WAKING          starting  WarmedUp → SERVING; WarmUpFailed Tick → FAILING; Exited → BACKING_OFF;
                              StopAsked → TERMINATING
    KILLED_ASLEEP   sleeping  Exited → end; StopAsked → KILLED

begin: FETCHING where the policy has files fetched, else load. load: QUEUED where the policy has it wait for room, else
LOADING. wake: QUEUED_TO_WAKE or WAKING likewise.
end: STOPPED; with the intent RESTART, which `Start` sets and `Wanted` where it was to rest, begin.
failed: BACKING_OFF, or GIVEN_UP after the fifth start in a row that never served, or one that another would repeat.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from backends.endpoint import State
from backends.lifecycle import attached
from backends.lifecycle.events import (
    Drain,
    Drained,
    Event,
    Exited,
    Fetch,
    Fetched,
    FetchProgress,
    FilesChanged,
    Kill,
    NotPlaced,
    Placed,
    Probed,
    Report,
    Sleep,
    SleepAsked,
    SleepFailed,
    Slept,
    Spawn,
    Stalled,
    Start,
    Step,
    StopAsked,
    Terminate,
    Tick,
    WakeUp,
    Wanted,
    WarmedUp,
    WarmUp,
    WarmUpFailed,
)
from backends.lifecycle.phases import Intent, Lifecycle, Phase, Policy

SERVED_WELL_S: Final = 60.0  # serving for so long forgives all failures before
BACKOFF_LIMIT_S: Final = 60.0
FAILED_STARTS: Final = 5  # in a row that never came to serve: then it is given up
REST_S: Final = 600.0  # after that an engine that was given up may be started on demand
MISSED_PROBES: Final = 3  # in a row of a serving process of ours: then it counts as dead
FALLING_ASLEEP_S: Final = 120.0  # large weights on their way into host memory
DYING_S: Final = 5.0  # for one that is dead and has not exited: to tell its clients, and why


def backoff_s(failures: int, jitter: float) -> float:
    """The wait before the next try: full jitter under 1, 2, 4 … 60 s."""
    return min(BACKOFF_LIMIT_S, 2.0 ** min(failures - 1, 10)) * jitter


def can_start(life: Lifecycle, policy: Policy) -> bool:
    """Whether it serves, or asking for it (`Wanted`, then waiting) may make it serve."""
    match life.state:
        case State.READY | State.STARTING:
            return True
        case State.STOPPED:
            return not policy.is_attached and life.intent is not Intent.HELD
        case State.SLEEPING:
            return True
        case State.FAILED:
            return life.phase is Phase.RETRYABLE
        case State.STOPPING:
            return life.intent in (Intent.REST, Intent.RESTART)


def step(life: Lifecycle, event: Event, now: float, policy: Policy) -> Step:
    """What becomes of this life when this happens, and what is to be done. News of another generation changes nothing.

    `now`: seconds on any clock that only moves forward.
    """
    if isinstance(event, Report) and event.generation != life.generation:
        return life, []
    if policy.is_attached:
        return attached.step(life, event, now)
    match event:
        case Start():
            return _start(life, now, policy)
        case Wanted() if can_start(life, policy) and life.state not in (State.STARTING, State.READY):
            return _start(life, now, policy)
        case Placed() if life.is_queued:
            return _wake(life, now, policy) if life.is_asleep else _spawn(life, now, life.reason, policy)
        case NotPlaced() if life.is_queued:
            return _not_placed(life, event, now)
        case StopAsked():
            return _stop(life, event, now, policy)
        case SleepAsked(level) if life.phase is Phase.SERVING:
            draining = replace(life.moved(Phase.DRAINING, now), intent=Intent.REST, sleep_level=level)
            return draining, [Drain(life.generation)]
        case FilesChanged() if life.state is State.FAILED:
            return replace(life, phase=Phase.RETRYABLE, due=None), []
        case Tick() if life.due is not None and now >= life.due:
            return _tick(replace(life, due=None), now, policy)
        case FetchProgress(_, progress) if life.phase is Phase.FETCHING:
            return replace(life, reason=progress), []
        case Fetched():
            return _fetched(life, event.is_news, now, policy)
        case Probed():
            return _probed(life, event, now)
        case WarmedUp() if life.phase in (Phase.WARMING, Phase.WAKING):
            return replace(life.moved(Phase.SERVING, now), ready_at=now, failed_starts=0), []
        case WarmUpFailed(_, reason) if life.phase in (Phase.WARMING, Phase.WAKING):
            is_hopeless = event.is_final and life.ready_at is None
            return life.moved(Phase.GIVING_UP if is_hopeless else Phase.FAILING, now, reason), [Kill()]
        case Stalled(_, reason) if life.phase in (Phase.FETCHING, Phase.LOADING, Phase.WARMING, Phase.SERVING):
            return _fail(life, now, reason)
        case Drained() if life.phase is Phase.DRAINING:
            return _drained(life, now, policy)
        case Slept() if life.phase is Phase.FALLING_ASLEEP:
            asleep = life.moved(Phase.ASLEEP, now)
            return _begin_waking(asleep, now, policy) if life.intent is Intent.RESTART else (asleep, [])
        case SleepFailed() if life.phase is Phase.FALLING_ASLEEP:
            return _terminate(life, now, policy)
        case Exited():
            return _exited(life, event, now, policy)
        case _:
            return life, []


def _start(life: Lifecycle, now: float, policy: Policy) -> Step:
    match life.phase:
        case Phase.STOPPED | Phase.GIVEN_UP | Phase.TOO_LARGE | Phase.RETRYABLE:
            return _begin(replace(life, failed_starts=0, failures=0), now, None, policy)
        case Phase.BACKING_OFF:
            return _begin(replace(life, failed_starts=0, failures=0), now, life.reason, policy)
        case Phase.ASLEEP:
            return _begin_waking(life, now, policy)
        case Phase.DRAINING | Phase.FALLING_ASLEEP | Phase.TERMINATING | Phase.KILLED | Phase.KILLED_ASLEEP:
            return replace(life, intent=Intent.RESTART), []
        case _:
            return life, []


def _begin(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    """Start it, as soon as its files are here and there is room."""
    running = replace(life, intent=Intent.RUN)
    if not policy.is_fetched:
        return _begin_loading(running, now, reason, policy)
    return replace(running.moved(Phase.FETCHING, now, reason), ready_at=None), [Fetch(life.generation)]


def _fetched(life: Lifecycle, is_news: bool, now: float, policy: Policy) -> Step:
    match life.phase:
        case Phase.FETCHING | Phase.FAILING:
            return _begin_loading(life, now, None if is_news else life.reason, policy)
        case Phase.TERMINATING | Phase.KILLED:
            return _stopped(life, now, policy)
        case _:
            return life, []


def _begin_loading(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    if policy.is_placed:
        return life.moved(Phase.QUEUED, now, reason), []
    return _spawn(life, now, reason, policy)


def _begin_waking(life: Lifecycle, now: float, policy: Policy) -> Step:
    running = replace(life, intent=Intent.RUN)
    if policy.is_placed:
        return running.moved(Phase.QUEUED_TO_WAKE, now), []
    return _wake(running, now, policy)


def _not_placed(life: Lifecycle, event: NotPlaced, now: float) -> Step:
    if life.is_asleep:
        return replace(life.moved(Phase.ASLEEP, now, event.reason), intent=Intent.REST), []
    if event.is_final:
        return life.moved(Phase.TOO_LARGE, now, event.reason, due=now + REST_S), []
    return replace(life.moved(Phase.STOPPED, now, event.reason), intent=Intent.REST), []


def _wake(life: Lifecycle, now: float, policy: Policy) -> Step:
    return life.moved(Phase.WAKING, now, due=now + policy.start_timeout_s), [WakeUp(life.generation)]


def _spawn(life: Lifecycle, now: float, reason: str | None, policy: Policy) -> Step:
    generation = life.generation + 1
    loading = life.moved(Phase.LOADING, now, reason, due=now + policy.start_timeout_s)
    return replace(loading, generation=generation, ready_at=None), [Spawn(generation)]


def _stop(life: Lifecycle, event: StopAsked, now: float, policy: Policy) -> Step:
    asked = replace(life, intent=event.then, sleep_level=0)
    match life.phase:
        case Phase.SERVING:
            return asked.moved(Phase.DRAINING, now, due=now + event.drain_s), [Drain(life.generation)]
        case Phase.DRAINING:
            due = now + event.drain_s
            return replace(asked, due=due if life.due is None else min(life.due, due)), []
        case Phase.FALLING_ASLEEP:
            return _terminate(asked, now, policy)
        case Phase.TERMINATING | Phase.KILLED:
            return asked, []
        case Phase.FAILING | Phase.GIVING_UP | Phase.KILLED_ASLEEP:
            return asked.moved(Phase.KILLED, now), []
        case _ if life.has_process:
            return _terminate(asked.moved(Phase.TERMINATING, now), now, policy)
        case _:
            return _stopped(asked, now, policy)


def _stopped(life: Lifecycle, now: float, policy: Policy) -> Step:
    """Nothing of it is left: what was intended happens."""
    stopped = replace(life.moved(Phase.STOPPED, now), sleep_level=0)
    if life.intent is Intent.RESTART:
        return _start(stopped, now, policy)
    return replace(stopped, intent=Intent.HELD if life.intent is Intent.HELD else Intent.REST), []


def _terminate(life: Lifecycle, now: float, policy: Policy) -> Step:
    return replace(life, phase=Phase.TERMINATING, sleep_level=0, due=now + policy.stop_grace_s), [Terminate()]


def _drained(life: Lifecycle, now: float, policy: Policy) -> Step:
    if not life.sleep_level:
        return _terminate(life, now, policy)
    falling = replace(life, phase=Phase.FALLING_ASLEEP, sleep_level=0, due=now + FALLING_ASLEEP_S)
    return falling, [Sleep(life.generation, life.sleep_level)]


def _fail(life: Lifecycle, now: float, reason: str) -> Step:
    """Out of routing at once; the exit that follows counts as the failure."""
    return life.moved(Phase.FAILING, now, reason), [Kill()]


def _tick(life: Lifecycle, now: float, policy: Policy) -> Step:
    match life.phase:
        case Phase.DYING:
            return _fail(life, now, life.reason or "it is dead")
        case Phase.LOADING | Phase.WARMING | Phase.WAKING:
            return _fail(life, now, f"it was not ready within {policy.start_timeout_s:g} s")
        case Phase.BACKING_OFF:
            return _begin(life, now, life.reason, policy)
        case Phase.GIVEN_UP | Phase.TOO_LARGE:
            return replace(life, phase=Phase.RETRYABLE), []
        case Phase.DRAINING | Phase.FALLING_ASLEEP:
            return _terminate(life, now, policy)
        case Phase.TERMINATING:
            return replace(life, phase=Phase.KILLED), [Kill()]
        case _:
            return life, []


def _probed(life: Lifecycle, event: Probed, now: float) -> Step:
    match life.phase:
        case Phase.LOADING if event.is_up:
            return replace(life, phase=Phase.WARMING), [WarmUp(life.generation)]
        case Phase.SERVING if event.is_dead:
            return life.moved(Phase.DYING, now, event.reason, due=now + DYING_S), []
        case Phase.SERVING | Phase.ASLEEP if event.is_up:
            return replace(life, missed_probes=0), []
        case Phase.SERVING | Phase.ASLEEP if life.missed_probes + 1 < MISSED_PROBES:
            return replace(life, missed_probes=life.missed_probes + 1), []
        case Phase.SERVING:
            reason = event.reason or "no reason given"
            return _fail(life, now, f"it left {MISSED_PROBES} probes in a row unanswered ({reason})")
        case Phase.ASLEEP:
            return replace(life, phase=Phase.KILLED_ASLEEP, missed_probes=0), [Kill()]
        case _:
            return life, []


def _exited(life: Lifecycle, event: Exited, now: float, policy: Policy) -> Step:
    match life.state:
        case State.STOPPING:
            return _stopped(life, now, policy)
        case State.SLEEPING:
            stopped, actions = _stopped(life, now, policy)
            return replace(stopped, reason=f"it ended in its sleep: {event.reason}"), actions
        case State.STARTING if life.phase is Phase.QUEUED_TO_WAKE:
            return replace(life, phase=Phase.QUEUED), []  # its sleep is over; it waits for room as before
        case State.STARTING | State.READY if life.has_process:
            return _failed(life, event, now), []
        case _:
            return life, []


def _failed(life: Lifecycle, event: Exited, now: float) -> Lifecycle:
    was_killed = life.phase in (Phase.FAILING, Phase.GIVING_UP)
    # What we ended ourselves has its reason already; the exit is only its consequence.
    reason = life.reason if was_killed and life.reason else event.reason
    has_served = life.ready_at is not None
    served_s = now - life.ready_at if life.ready_at is not None else 0.0
    failures = 1 if served_s >= SERVED_WELL_S else life.failures + 1
    failed_starts = 0 if has_served else life.failed_starts + 1
    counted = replace(life, failures=failures, failed_starts=failed_starts)
    is_final = life.phase is Phase.GIVING_UP or (event.is_final and not was_killed)
    if failed_starts >= FAILED_STARTS or (is_final and not has_served):
        return counted.moved(Phase.GIVEN_UP, now, reason, due=now + REST_S)
    return counted.moved(Phase.BACKING_OFF, now, reason, due=now + backoff_s(failures, event.jitter))
