"""Lives of engines whose models are brought here first: histories, and whatever else may happen."""

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
    Event,
    Exited,
    Fetch,
    Fetched,
    FetchProgress,
    Kill,
    Placed,
    Probed,
    Spawn,
    Stalled,
    Start,
    StopAsked,
    Terminate,
    Tick,
    Wanted,
    WarmedUp,
    WarmUp,
)
from backends.lifecycle.machine import step
from backends.lifecycle.phases import Intent, Lifecycle, Phase, Policy

STOPPED, STARTING, READY, STOPPING, FAILED = (
    State.STOPPED,
    State.STARTING,
    State.READY,
    State.STOPPING,
    State.FAILED,
)
Moment = tuple[float, Event, State, Sequence[Action]]
POLICY = Policy(is_fetched=True, is_placed=True, start_timeout_s=100, stop_grace_s=10)

BOOT: list[Moment] = [
    (0, Start(), STARTING, [Fetch(0)]),
    (1, Fetched(0), STARTING, []),
    (2, Placed(), STARTING, [Spawn(1)]),
    (3, Probed(1, is_up=True), STARTING, [WarmUp(1)]),
    (4, WarmedUp(1), READY, []),
]

FAILURE: list[Moment] = [
    (1, Exited(0, "the hub has no such model", 0.0), STARTING, []),
    (1, Tick(), STARTING, [Fetch(0)]),
]

HISTORIES: dict[str, list[Moment]] = {
    "takes as long as it likes": [
        (0, Start(), STARTING, [Fetch(0)]),
        (5, FetchProgress(0, "downloading 1 % of 16.1 GB"), STARTING, []),
        (50_000, Tick(), STARTING, []),
        (50_001, Wanted(), STARTING, []),
        (50_002, Fetched(0, is_news=True), STARTING, []),
        (60_000, Placed(), STARTING, [Spawn(1)]),
        (60_099, Tick(), STARTING, []),
        (60_100, Tick(), STARTING, [Kill()]),
    ],
    "is stopped meanwhile": [
        (0, Start(), STARTING, [Fetch(0)]),
        (5, StopAsked(30), STOPPING, [Terminate()]),
        (6, FetchProgress(0, "downloading 2 % of 16.1 GB"), STOPPING, []),
        (7, Exited(0, "it was ended by signal 15"), STOPPED, []),
    ],
    "is stopped when it was just done": [
        (0, Start(), STARTING, [Fetch(0)]),
        (5, StopAsked(30), STOPPING, [Terminate()]),
        (6, Fetched(0, is_news=True), STOPPED, []),
    ],
    "does not end when asked to": [
        (0, Start(), STARTING, [Fetch(0)]),
        (5, StopAsked(30), STOPPING, [Terminate()]),
        (15, Tick(), STOPPING, [Kill()]),
        (16, Exited(0, "it was ended by signal 9"), STOPPED, []),
    ],
    "is restarted meanwhile": [
        (0, Start(), STARTING, [Fetch(0)]),
        (5, StopAsked(30, Intent.RESTART), STOPPING, [Terminate()]),
        (6, Exited(0, "it was ended by signal 15"), STARTING, [Fetch(0)]),
        (7, Fetched(0), STARTING, []),
        (8, Placed(), STARTING, [Spawn(1)]),
    ],
    "stands still": [
        (0, Start(), STARTING, [Fetch(0)]),
        (300, Stalled(0, "no byte came"), STARTING, [Kill()]),
        (301, Stalled(0, "no byte came"), STARTING, []),
        (301, Exited(0, "it was ended by signal 9", 0.0), STARTING, []),
        (301, Tick(), STARTING, [Fetch(0)]),
    ],
    "fails five times in a row": [
        (0, Start(), STARTING, [Fetch(0)]),
        *(4 * FAILURE),
        (5, Exited(0, "the hub has no such model", 0.0), FAILED, []),
    ],
    "is looked for again at every start": [
        *BOOT,
        (10, Exited(1, "exit 1", 0.0), STARTING, []),
        (10, Tick(), STARTING, [Fetch(1)]),
        (11, Fetched(0), STARTING, []),
        (11, Fetched(1), STARTING, []),
        (12, Placed(), STARTING, [Spawn(2)]),
        (13, Fetched(1), STARTING, []),
        (13, Exited(1, "late news"), STARTING, []),
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_life_goes_as_its_history_says(name: str) -> None:
    life = Lifecycle()

    for now, event, state, actions in HISTORIES[name]:
        life, done = step(life, event, now, POLICY)

        assert (now, life.state, done) == (now, state, list(actions))


def test_how_far_it_is_is_the_reason_until_it_is_here() -> None:
    life, _ = step(Lifecycle(reason="an old failure"), Start(), 0, POLICY)

    life, _ = step(life, FetchProgress(0, "downloading 43 % of 16.1 GB"), 1, POLICY)
    assert life.reason == "downloading 43 % of 16.1 GB"
    life, _ = step(life, Fetched(0, is_news=True), 2, POLICY)
    assert life.reason is None


def test_why_the_last_start_failed_is_still_reported_when_nothing_had_to_be_downloaded() -> None:
    life = Lifecycle()
    for now, event, _, _ in [*BOOT, (10.0, Exited(1, "no memory", 0.0), STARTING, []), (10.0, Tick(), STARTING, [])]:
        life, _ = step(life, event, now, POLICY)

    life, _ = step(life, Fetched(1), 11, POLICY)

    assert life.reason == "no memory"


def test_the_time_of_a_start_is_counted_without_the_download() -> None:
    life = Lifecycle()
    for now, event in ((0, Start()), (500, Fetched(0, is_news=True)), (600, Placed())):
        life, _ = step(life, event, now, POLICY)

    assert (life.since, life.due) == (600, 700)


EVENTS = st.one_of(
    st.builds(Start),
    st.builds(Wanted),
    st.builds(Placed),
    st.builds(
        StopAsked, drain_s=st.floats(0, 60) | st.just(math.inf), then=st.sampled_from([Intent.STOP, Intent.RESTART])
    ),
    st.builds(Stalled, generation=st.integers(0, 1), reason=st.just("still")),
    st.builds(FetchProgress, generation=st.integers(0, 1), progress=st.just("downloading")),
    st.builds(Fetched, generation=st.integers(0, 1), is_news=st.booleans()),
    st.builds(Probed, generation=st.integers(0, 1), is_up=st.booleans()),
    st.builds(WarmedUp, generation=st.integers(0, 1)),
    st.builds(Exited, generation=st.integers(0, 1), reason=st.just("exit"), jitter=st.floats(0, 1)),
    st.builds(Tick),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 700), EVENTS), max_size=80))
def test_whatever_happens_there_is_one_process_at_most(moments: list[tuple[float, Event]]) -> None:
    life, now = Lifecycle(), 0.0
    running: str | None = None  # "fetch" or "engine", of the generation that the life has

    for passed, event in moments:
        now += passed
        generation = getattr(event, "generation", None)
        if generation is not None:
            event = replace(event, generation=max(0, life.generation - generation))
        is_its = getattr(event, "generation", None) == life.generation
        if isinstance(event, Fetched) and is_its and running != "fetch":
            continue  # nobody would say so
        if isinstance(event, Exited | Fetched) and is_its:
            running = None
        life, actions = step(life, event, now, POLICY)

        for action in actions:
            match action:
                case Fetch():
                    assert running is None
                    running = "fetch"
                case Spawn():
                    assert running is None
                    assert isinstance(event, Placed)
                    running = "engine"
                case Terminate() | Kill():
                    assert running is not None
                case Drain():
                    assert running == "engine"
        assert life.has_process == (running is not None)
        assert life.phase is not Phase.FETCHING or running == "fetch"
        assert life.phase is not Phase.FETCHING or life.due is None
