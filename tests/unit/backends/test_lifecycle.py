"""An engine's life as histories: (time, event, state after it, actions)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.endpoint import State
from backends.lifecycle.events import (
    Action,
    Drain,
    Drained,
    Event,
    Exited,
    FilesChanged,
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
from backends.lifecycle.machine import backoff_s, can_start, step
from backends.lifecycle.phases import Intent, Lifecycle, Policy

STOPPED, STARTING, READY, STOPPING, FAILED = (
    State.STOPPED,
    State.STARTING,
    State.READY,
    State.STOPPING,
    State.FAILED,
)
Moment = tuple[float, Event, State, Sequence[Action]]
MANAGED = Policy(start_timeout_s=100, stop_grace_s=10)
ATTACHED = Policy(is_attached=True)
STOP_INTENTS = (Intent.STOP, Intent.HELD, Intent.RESTART)


def up(generation: int = 1) -> Probed:
    return Probed(generation, is_up=True)


def down(generation: int = 1, reason: str = "no answer") -> Probed:
    return Probed(generation, is_up=False, reason=reason)


BOOT: list[Moment] = [
    (0, Start(), STARTING, [Spawn(1)]),
    (1, down(), STARTING, []),
    (2, up(), STARTING, [WarmUp(1)]),
    (3, up(), STARTING, []),
    (4, WarmedUp(1), READY, []),
]


def failed_start(at: float, generation: int, state: State = STARTING) -> Moment:
    return at, Exited(generation, "exit 1"), state, []


def served_shortly(n: int) -> list[Moment]:
    return [
        (100.0 * n, up(n), STARTING, [WarmUp(n)]),
        (100.0 * n + 1, WarmedUp(n), READY, []),
        (100.0 * n + 2, Exited(n, "exit 1"), STARTING, []),
        (100.0 * n + 70, Tick(), STARTING, [Spawn(n + 1)]),
    ]


GIVEN_UP: list[Moment] = [
    (0, Start(), STARTING, [Spawn(1)]),
    failed_start(1, 1),
    (1.9, Tick(), STARTING, []),
    (2, Tick(), STARTING, [Spawn(2)]),
    failed_start(3, 2),
    (5, Tick(), STARTING, [Spawn(3)]),
    failed_start(6, 3),
    (10, Tick(), STARTING, [Spawn(4)]),
    failed_start(11, 4),
    (19, Tick(), STARTING, [Spawn(5)]),
    failed_start(20, 5, FAILED),
]

HISTORIES: dict[str, tuple[Policy, list[Moment]]] = {
    "is ready only after its warm-up": (MANAGED, BOOT),
    "is not started before somebody wants it": (
        MANAGED,
        [(0, Tick(), STOPPED, []), (9, Wanted(), STARTING, [Spawn(1)]), (9, Wanted(), STARTING, [])],
    ),
    "ignores TERM": (
        MANAGED,
        [
            *BOOT,
            (5, StopAsked(30), STOPPING, [Drain(1)]),
            (6, Drained(1), STOPPING, [Terminate()]),
            (15, Tick(), STOPPING, []),
            (16, Tick(), STOPPING, [Kill()]),
            (17, Exited(1, "signal 9"), STOPPED, []),
        ],
    ),
    "waits for leases no longer than it is told": (
        MANAGED,
        [
            *BOOT,
            (5, StopAsked(30), STOPPING, [Drain(1)]),
            (34, Tick(), STOPPING, []),
            (35, Tick(), STOPPING, [Terminate()]),
            (36, Drained(1), STOPPING, []),
            (37, Exited(1, "exit 0"), STOPPED, []),
        ],
    ),
    "a second stop with less time shortens the drain": (
        MANAGED,
        [
            *BOOT,
            (5, StopAsked(300), STOPPING, [Drain(1)]),
            (6, StopAsked(1), STOPPING, []),
            (7, Tick(), STOPPING, [Terminate()]),
        ],
    ),
    "dies while it drains": (
        MANAGED,
        [*BOOT, (5, StopAsked(30), STOPPING, [Drain(1)]), (6, Exited(1, "exit 1"), STOPPED, [])],
    ),
    "is stopped while it loads": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            (1, StopAsked(30), STOPPING, [Terminate()]),
            (2, up(), STOPPING, []),
            (3, Exited(1, "exit 0"), STOPPED, []),
            (4, Wanted(), STARTING, [Spawn(2)]),
        ],
    ),
    "is stopped between two tries": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            failed_start(1, 1),
            (1, StopAsked(30), STOPPED, []),
            (9, Tick(), STOPPED, []),
        ],
    ),
    "stopped by hand it is not started by requests": (
        MANAGED,
        [
            *BOOT,
            (5, StopAsked(0, Intent.HELD), STOPPING, [Drain(1)]),
            (5, Drained(1), STOPPING, [Terminate()]),
            (6, Exited(1, "exit 0"), STOPPED, []),
            (7, Wanted(), STOPPED, []),
            (8, Start(), STARTING, [Spawn(2)]),
        ],
    ),
    "is restarted by hand": (
        MANAGED,
        [
            *BOOT,
            (5, StopAsked(30, Intent.RESTART), STOPPING, [Drain(1)]),
            (6, Drained(1), STOPPING, [Terminate()]),
            (7, Exited(1, "exit 0"), STARTING, [Spawn(2)]),
            (8, WarmedUp(1), STARTING, []),
            (8, up(1), STARTING, []),
        ],
    ),
    "a start during the stop follows it": (
        MANAGED,
        [
            *BOOT,
            (5, StopAsked(0), STOPPING, [Drain(1)]),
            (6, Start(), STOPPING, []),
            (7, Exited(1, "exit 0"), STARTING, [Spawn(2)]),
        ],
    ),
    "exits unasked with code 0": (
        MANAGED,
        [
            *BOOT,
            (5, Exited(1, "exit 0", 0.5), STARTING, []),
            (5.4, Tick(), STARTING, []),
            (5.5, Tick(), STARTING, [Spawn(2)]),
        ],
    ),
    "an hour of serving forgives what was before": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            failed_start(1, 1),
            (2, Tick(), STARTING, [Spawn(2)]),
            failed_start(3, 2),
            (5, Tick(), STARTING, [Spawn(3)]),
            (6, up(3), STARTING, [WarmUp(3)]),
            (7, WarmedUp(3), READY, []),
            (3607, Exited(3, "exit 1"), STARTING, []),
            (3607.9, Tick(), STARTING, []),
            (3608, Tick(), STARTING, [Spawn(4)]),
        ],
    ),
    "crashing again and again after serving shortly it is never given up": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            *itertools.chain.from_iterable(served_shortly(n) for n in range(1, 9)),
        ],
    ),
    "five starts that came to nothing": (MANAGED, GIVEN_UP),
    "given up it can be wanted after ten minutes": (
        MANAGED,
        [
            *GIVEN_UP,
            (21, Wanted(), FAILED, []),
            (619, Tick(), FAILED, []),
            (620, Tick(), FAILED, []),
            (621, Wanted(), STARTING, [Spawn(6)]),
            failed_start(622, 6),
            (623, Tick(), STARTING, [Spawn(7)]),
        ],
    ),
    "given up it can be wanted once its files have changed": (
        MANAGED,
        [*GIVEN_UP, (21, Wanted(), FAILED, []), (22, FilesChanged(), FAILED, []), (23, Wanted(), STARTING, [Spawn(6)])],
    ),
    "what another start would only meet again is given up at once": (
        MANAGED,
        [(0, Start(), STARTING, [Spawn(1)]), (1, Exited(1, "no such file", 1.0, is_final=True), FAILED, [])],
    ),
    "what its model cannot do is given up at once": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            (1, up(1), STARTING, [WarmUp(1)]),
            (2, WarmUpFailed(1, "it generates no text", is_final=True), STARTING, [Kill()]),
            (3, Exited(1, "killed"), FAILED, []),
            (4, Start(), STARTING, [Spawn(2)]),
            (5, Exited(2, "crashed"), STARTING, []),
        ],
    ),
    "what we ended ourselves is tried again whatever its last words say": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            (100, Tick(), STARTING, [Kill()]),
            (101, Exited(1, "no such file", 1.0, is_final=True), STARTING, []),
        ],
    ),
    "what has served is started again whatever its last words say": (
        MANAGED,
        [*BOOT, (5, Exited(1, "no such file", 1.0, is_final=True), STARTING, [])],
    ),
    "given up it is started by hand": (MANAGED, [*GIVEN_UP, (21, Start(), STARTING, [Spawn(6)])]),
    "started by hand it does not wait for its next try": (
        MANAGED,
        [(0, Start(), STARTING, [Spawn(1)]), failed_start(1, 1), (1.1, Start(), STARTING, [Spawn(2)])],
    ),
    "is not ready in time": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            (99, Tick(), STARTING, []),
            (100, Tick(), STARTING, [Kill()]),
            (100, up(), STARTING, []),
            (101, Exited(1, "signal 9"), STARTING, []),
            (102, Tick(), STARTING, [Spawn(2)]),
        ],
    ),
    "answers and cannot work": (
        MANAGED,
        [
            (0, Start(), STARTING, [Spawn(1)]),
            (1, up(), STARTING, [WarmUp(1)]),
            (2, WarmUpFailed(1, "status 500"), STARTING, [Kill()]),
            (3, Exited(1, "signal 9"), STARTING, []),
        ],
    ),
    "hangs while it serves": (
        MANAGED,
        [
            *BOOT,
            (10, down(), READY, []),
            (20, down(), READY, []),
            (25, up(), READY, []),
            (30, down(), READY, []),
            (40, down(), READY, []),
            (50, down(), STARTING, [Kill()]),
            (50, StopAsked(30), STOPPING, []),
            (51, Exited(1, "signal 9"), STOPPED, []),
        ],
    ),
    "dead, and its server answers on": (
        MANAGED,
        [
            *BOOT,
            (10, Probed(1, is_up=False, reason="its core died", is_dead=True), STARTING, []),
            (11, up(), STARTING, []),
            (12, Exited(1, "exit 0", 0.0), STARTING, []),
            (12, Tick(), STARTING, [Spawn(2)]),
            (13, Probed(2, is_up=False, reason="refused", is_dead=True), STARTING, []),
        ],
    ),
    "dead, and does not end": (
        MANAGED,
        [
            *BOOT,
            (10, Probed(1, is_up=False, reason="its core died", is_dead=True), STARTING, []),
            (14, Tick(), STARTING, []),
            (15, Tick(), STARTING, [Kill()]),
            (16, Exited(1, "signal 9"), STARTING, []),
        ],
    ),
    "dead, and told to stop": (
        MANAGED,
        [
            *BOOT,
            (10, Probed(1, is_up=False, reason="its core died", is_dead=True), STARTING, []),
            (11, StopAsked(30), STOPPING, [Terminate()]),
            (12, Exited(1, "exit 0"), STOPPED, []),
        ],
    ),
    "news of an earlier start is no news": (
        MANAGED,
        [
            *BOOT,
            (5, Exited(1, "exit 1", 0.0), STARTING, []),
            (5, Tick(), STARTING, [Spawn(2)]),
            (6, Exited(1, "exit 1"), STARTING, []),
            (6, up(1), STARTING, []),
            (6, WarmedUp(1), STARTING, []),
            (6, Drained(1), STARTING, []),
        ],
    ),
    "somebody else's engine comes and goes": (
        ATTACHED,
        [
            (0, Start(), STARTING, [Watch()]),
            (0, Wanted(), STARTING, []),
            (1, down(0), FAILED, []),
            (6, down(0, "still nothing"), FAILED, []),
            (7, Wanted(), FAILED, []),
            (11, up(0), FAILED, [WarmUp(1)]),
            (11, WarmedUp(1), READY, []),
            (21, down(1), READY, []),
            (22, up(1), READY, []),
            (32, down(1), READY, []),
            (33, down(1), FAILED, []),
            (38, up(1), FAILED, [WarmUp(2)]),
            (38, WarmedUp(2), READY, []),
            (40, StopAsked(30, Intent.HELD), STOPPED, [Unwatch()]),
            (41, Wanted(), STOPPED, []),
            (42, StopAsked(30, Intent.RESTART), STARTING, [Watch()]),
            (43, up(2), STARTING, [WarmUp(3)]),
            (43, WarmUpFailed(3, "refused"), FAILED, []),
            (44, Start(), STARTING, []),
        ],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_life_goes_as_its_history_says(name: str) -> None:
    policy, history = HISTORIES[name]
    life = Lifecycle()

    for now, event, state, actions in history:
        life, done = step(life, event, now, policy)

        assert (now, life.state, done) == (now, state, list(actions))


def test_the_reason_of_an_end_of_our_making_is_kept_over_its_exit() -> None:
    life, _ = step(Lifecycle(), Start(), 0, MANAGED)
    life, _ = step(life, Tick(), 100, MANAGED)

    life, _ = step(life, Exited(1, "it was ended by signal 9"), 101, MANAGED)

    assert life.reason == "it was not ready within 100 s"


@pytest.mark.parametrize(("failures", "longest_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)])
def test_the_wait_doubles_up_to_a_minute_under_full_jitter(failures: int, longest_s: float) -> None:
    assert backoff_s(failures, 1.0) == longest_s
    assert backoff_s(failures, 0.25) == longest_s / 4
    assert backoff_s(failures, 0.0) == 0


EVENTS = st.one_of(
    st.builds(Start),
    st.builds(Wanted),
    st.builds(StopAsked, drain_s=st.floats(0, 60), then=st.sampled_from(STOP_INTENTS)),
    st.builds(Drained, generation=st.integers(0, 3)),
    st.builds(Probed, generation=st.integers(0, 3), is_up=st.booleans()),
    st.builds(WarmedUp, generation=st.integers(0, 3)),
    st.builds(WarmUpFailed, generation=st.integers(0, 3), reason=st.just("no")),
    st.builds(Exited, generation=st.integers(0, 3), reason=st.just("exit"), jitter=st.floats(0, 1)),
    st.builds(Tick),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 700), EVENTS), max_size=60), st.booleans())
def test_whatever_happens_a_life_stays_sound(moments: list[tuple[float, Event]], is_attached: bool) -> None:
    policy = replace(MANAGED, is_attached=is_attached)
    life, now = Lifecycle(), 0.0
    running: set[int] = set()
    warmed: set[int] = set()

    for passed, event in moments:
        now += passed
        before = life
        # An event names the start it is about; drawn numbers are taken as "how many starts ago".
        generation = getattr(event, "generation", None)
        if generation is not None:
            event = replace(event, generation=max(0, life.generation - generation))
        if isinstance(event, Exited):
            running.discard(event.generation)
        life, actions = step(life, event, now, policy)

        assert life.generation - before.generation in (0, 1)
        for action in actions:
            match action:
                case Spawn(number):
                    assert not running, "a second process before the first has exited"
                    assert number == life.generation == before.generation + 1
                    running.add(number)
                case WarmUp(number):
                    assert number == life.generation
                    warmed.add(number)
                case Terminate() | Kill():
                    assert running, "a signal to nobody"
        assert life.has_process == bool(running)
        if life.state is READY:
            assert life.generation in warmed
            assert before.state is READY or isinstance(event, WarmedUp)
            assert life.has_process is not is_attached
        if life.state in (STOPPED, FAILED):
            assert not life.has_process
        if life.state is FAILED and not is_attached and before.state is not FAILED:
            assert life.failed_starts == 5
        if life.state is STOPPING or (life.state is STARTING and not is_attached):
            assert life.has_process or life.due is not None, "nothing would ever happen again"
        if life.intent is Intent.HELD:
            assert life.state in (STOPPED, STOPPING)
        if life.state is STOPPED and can_start(life, policy):
            assert step(life, Wanted(), now, policy)[0].state is STARTING
