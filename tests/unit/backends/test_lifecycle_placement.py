"""Lives that wait for room, fall asleep, wake up and stand still: histories, and whatever else may happen."""

from __future__ import annotations

import math
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
    Kill,
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
    WakeUp,
    Wanted,
    WarmedUp,
    WarmUp,
    WarmUpFailed,
)
from backends.lifecycle.machine import can_start, step
from backends.lifecycle.phases import Intent, Lifecycle, Phase, Policy

STOPPED, STARTING, READY, SLEEPING, STOPPING, FAILED = (
    State.STOPPED,
    State.STARTING,
    State.READY,
    State.SLEEPING,
    State.STOPPING,
    State.FAILED,
)
Moment = tuple[float, Event, State, Sequence[Action]]
POLICY = Policy(is_placed=True, start_timeout_s=100, stop_grace_s=10)
EVICTED = StopAsked(math.inf, Intent.REST)


def up(generation: int = 1) -> Probed:
    return Probed(generation, is_up=True)


def down(generation: int = 1) -> Probed:
    return Probed(generation, is_up=False, reason="no answer")


BOOT: list[Moment] = [
    (0, Start(), STARTING, []),
    (1, Placed(), STARTING, [Spawn(1)]),
    (2, up(), STARTING, [WarmUp(1)]),
    (3, WarmedUp(1), READY, []),
]
ASLEEP: list[Moment] = [
    *BOOT,
    (10, SleepAsked(2), STOPPING, [Drain(1)]),
    (11, Drained(1), STOPPING, [Sleep(1, 2)]),
    (12, Slept(1), SLEEPING, []),
]

HISTORIES: dict[str, list[Moment]] = {
    "waits for room however long it takes": [
        (0, Wanted(), STARTING, []),
        (5, Wanted(), STARTING, []),
        (5, Start(), STARTING, []),
        (5000, Tick(), STARTING, []),
        (5000, Placed(), STARTING, [Spawn(1)]),
        (5001, Placed(), STARTING, []),
        (5099, Tick(), STARTING, []),
        (5100, Tick(), STARTING, [Kill()]),
    ],
    "a next try needs room again": [
        *BOOT,
        (5, Exited(1, "exit 1", 0.0), STARTING, []),
        (5, Tick(), STARTING, []),
        (6, Placed(), STARTING, [Spawn(2)]),
    ],
    "no room for it now": [
        (0, Start(), STARTING, []),
        (1, NotPlaced("full", is_final=False), STOPPED, []),
        (2, Wanted(), STARTING, []),
    ],
    "never room for it": [
        (0, Start(), STARTING, []),
        (1, NotPlaced("too large", is_final=True), FAILED, []),
        (2, Wanted(), FAILED, []),
        (601, Tick(), FAILED, []),
        (602, Wanted(), STARTING, []),
    ],
    "stopped while it waits": [(0, Start(), STARTING, []), (1, StopAsked(30, Intent.HELD), STOPPED, [])],
    "makes way when its last lease is returned": [
        *BOOT,
        (10, EVICTED, STOPPING, [Drain(1)]),
        (9999, Tick(), STOPPING, []),
        (9999, Drained(1), STOPPING, [Terminate()]),
        (9999, Exited(1, "exit 0"), STOPPED, []),
        (9999, Wanted(), STARTING, []),
    ],
    "wanted again while it makes way": [
        *BOOT,
        (10, EVICTED, STOPPING, [Drain(1)]),
        (11, Wanted(), STOPPING, []),
        (12, Drained(1), STOPPING, [Terminate()]),
        (13, Exited(1, "exit 0"), STARTING, []),
        (14, Placed(), STARTING, [Spawn(2)]),
    ],
    "stopped by hand while it makes way": [
        *BOOT,
        (10, EVICTED, STOPPING, [Drain(1)]),
        (11, StopAsked(30, Intent.HELD), STOPPING, []),
        (12, Wanted(), STOPPING, []),
        (41, Tick(), STOPPING, [Terminate()]),
        (42, Exited(1, "exit 0"), STOPPED, []),
        (43, Wanted(), STOPPED, []),
    ],
    "sleeps, and is ready again only after a test": [
        *ASLEEP,
        (13, up(), SLEEPING, []),
        (20, Wanted(), STARTING, []),
        (21, up(), STARTING, []),
        (21, Placed(), STARTING, [WakeUp(1)]),
        (22, up(), STARTING, []),
        (23, WarmedUp(1), READY, []),
        (30, SleepAsked(1), STOPPING, [Drain(1)]),
    ],
    "wanted while it falls asleep": [
        *BOOT,
        (10, SleepAsked(1), STOPPING, [Drain(1)]),
        (10, Wanted(), STOPPING, []),
        (11, Drained(1), STOPPING, [Sleep(1, 1)]),
        (12, Slept(1), STARTING, []),
        (13, Placed(), STARTING, [WakeUp(1)]),
    ],
    "does not wake up": [
        *ASLEEP,
        (20, Wanted(), STARTING, []),
        (21, Placed(), STARTING, [WakeUp(1)]),
        (22, WarmUpFailed(1, "status 500"), STARTING, [Kill()]),
        (23, Exited(1, "signal 9", 0.0), STARTING, []),
        (23, Tick(), STARTING, []),
        (24, Placed(), STARTING, [Spawn(2)]),
        (25, up(2), STARTING, [WarmUp(2)]),
    ],
    "takes too long to wake up": [
        *ASLEEP,
        (20, Wanted(), STARTING, []),
        (21, Placed(), STARTING, [WakeUp(1)]),
        (121, Tick(), STARTING, [Kill()]),
    ],
    "does not fall asleep": [
        *BOOT,
        (10, SleepAsked(1), STOPPING, [Drain(1)]),
        (11, Drained(1), STOPPING, [Sleep(1, 1)]),
        (12, SleepFailed(1, "status 500"), STOPPING, [Terminate()]),
        (22, Tick(), STOPPING, [Kill()]),
        (23, Exited(1, "signal 9"), STOPPED, []),
    ],
    "never answers when it is told to sleep": [
        *BOOT,
        (10, SleepAsked(1), STOPPING, [Drain(1)]),
        (11, Drained(1), STOPPING, [Sleep(1, 1)]),
        (131, Tick(), STOPPING, [Terminate()]),
        (132, Slept(1), STOPPING, []),
        (133, Exited(1, "exit 0"), STOPPED, []),
    ],
    "finds no room to wake up": [
        *ASLEEP,
        (20, Start(), STARTING, []),
        (21, NotPlaced("full", is_final=False), SLEEPING, []),
    ],
    "is stopped in its sleep": [
        *ASLEEP,
        (20, EVICTED, STOPPING, [Terminate()]),
        (21, Exited(1, "exit 0"), STOPPED, []),
        (22, Wanted(), STARTING, []),
        (23, Placed(), STARTING, [Spawn(2)]),
    ],
    "dies in its sleep": [
        *ASLEEP,
        (20, Exited(1, "signal 9"), STOPPED, []),
        (21, Wanted(), STARTING, []),
        (22, Placed(), STARTING, [Spawn(2)]),
    ],
    "dies while it waits for room to wake up": [
        *ASLEEP,
        (20, Wanted(), STARTING, []),
        (21, Exited(1, "signal 9"), STARTING, []),
        (22, Placed(), STARTING, [Spawn(2)]),
    ],
    "does not answer in its sleep": [
        *ASLEEP,
        (20, down(), SLEEPING, []),
        (21, down(), SLEEPING, []),
        (22, down(), SLEEPING, [Kill()]),
        (23, Wanted(), SLEEPING, []),
        (24, Exited(1, "signal 9"), STARTING, []),
    ],
    "stands still while it serves": [
        *BOOT,
        (10, Stalled(1, "it stood still"), STARTING, [Kill()]),
        (10, Stalled(1, "it stood still"), STARTING, []),
        (11, Exited(1, "signal 9", 0.0), STARTING, []),
        (11, Tick(), STARTING, []),
        (12, Placed(), STARTING, [Spawn(2)]),
        (13, Stalled(1, "it stood still"), STARTING, []),
        (14, Stalled(2, "its start stood still"), STARTING, [Kill()]),
    ],
    "asleep it may stand still": [*ASLEEP, (20, Stalled(1, "it stood still"), SLEEPING, [])],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_life_goes_as_its_history_says(name: str) -> None:
    life = Lifecycle()

    for now, event, state, actions in HISTORIES[name]:
        life, done = step(life, event, now, POLICY)

        assert (now, life.state, done) == (now, state, list(actions))


def test_the_reason_of_a_standstill_is_kept_over_the_exit() -> None:
    life = Lifecycle()
    for now, event, _, _ in [*BOOT, (10.0, Stalled(1, "it stood still"), STARTING, [])]:
        life, _ = step(life, event, now, POLICY)

    life, _ = step(life, Exited(1, "it was ended by signal 9"), 11, POLICY)

    assert life.reason == "it stood still"


EVENTS = st.one_of(
    st.builds(Start),
    st.builds(Wanted),
    st.builds(Placed),
    st.builds(NotPlaced, reason=st.just("full"), is_final=st.booleans()),
    st.builds(
        StopAsked,
        drain_s=st.floats(0, 60) | st.just(math.inf),
        then=st.sampled_from([Intent.STOP, Intent.REST, Intent.HELD, Intent.RESTART]),
    ),
    st.builds(SleepAsked, level=st.sampled_from([1, 2])),
    st.builds(Slept, generation=st.integers(0, 2)),
    st.builds(SleepFailed, generation=st.integers(0, 2), reason=st.just("no")),
    st.builds(Stalled, generation=st.integers(0, 2), reason=st.just("still")),
    st.builds(Drained, generation=st.integers(0, 2)),
    st.builds(Probed, generation=st.integers(0, 2), is_up=st.booleans()),
    st.builds(WarmedUp, generation=st.integers(0, 2)),
    st.builds(WarmUpFailed, generation=st.integers(0, 2), reason=st.just("no")),
    st.builds(Exited, generation=st.integers(0, 2), reason=st.just("exit"), jitter=st.floats(0, 1)),
    st.builds(Tick),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 700), EVENTS), max_size=80))
def test_whatever_happens_a_life_that_needs_room_stays_sound(moments: list[tuple[float, Event]]) -> None:
    life, now = Lifecycle(), 0.0
    running: set[int] = set()
    is_asleep = False  # as the engine itself would know it

    for passed, event in moments:
        now += passed
        before = life
        generation = getattr(event, "generation", None)
        if generation is not None:
            event = replace(event, generation=max(0, life.generation - generation))
        if isinstance(event, Exited):
            running.discard(event.generation)
        life, actions = step(life, event, now, POLICY)

        for action in actions:
            match action:
                case Spawn(number):
                    assert not running, "a second process before the first has exited"
                    assert isinstance(event, Placed), "a process without room"
                    running.add(number)
                    is_asleep = False
                case WarmUp():
                    assert not is_asleep, "a request to a sleeping engine"
                case Sleep():
                    assert isinstance(event, Drained)
                    assert before.state is STOPPING
                    is_asleep = True
                case WakeUp():
                    assert isinstance(event, Placed), "awake without room"
                    is_asleep = False
                case Terminate() | Kill():
                    assert running, "a signal to nobody"
        assert life.has_process == bool(running)
        if life.state is READY:
            assert not is_asleep
            assert before.state is READY or isinstance(event, WarmedUp)
        if life.state is SLEEPING:
            assert life.has_process
            assert is_asleep
        if life.is_queued:
            assert life.state is STARTING
        if life.state is STARTING and not life.is_queued:
            assert life.has_process or life.due is not None, "nothing would ever happen again"
        if life.intent is Intent.HELD:
            assert life.state in (STOPPED, STOPPING)
        if life.state in (STOPPED, SLEEPING) and life.phase is not Phase.KILLED_ASLEEP and can_start(life, POLICY):
            assert step(life, Wanted(), now, POLICY)[0].is_queued
