"""The transition tables at the heads of machine.py and attached.py say what `step` does, and all of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields
from types import ModuleType

import pytest

from backends.endpoint import State
from backends.lifecycle import attached, machine
from backends.lifecycle.events import (
    Action,
    Drained,
    Event,
    Exited,
    Fetch,
    Fetched,
    FetchProgress,
    FilesChanged,
    NotPlaced,
    Placed,
    Probed,
    SleepAsked,
    SleepFailed,
    Slept,
    Spawn,
    Stalled,
    Start,
    StopAsked,
    Tick,
    Wanted,
    WarmedUp,
    WarmUpFailed,
)
from backends.lifecycle.phases import STATES, Intent, Lifecycle, Phase, Policy

MANAGED = [Policy(is_fetched=fetched, is_placed=placed) for fetched in (False, True) for placed in (False, True)]
ATTACHED = Policy(is_attached=True)
TABLES = [*((machine, policy) for policy in MANAGED), (attached, ATTACHED)]
STOP_INTENTS = (Intent.STOP, Intent.REST, Intent.HELD, Intent.RESTART)

Transition = tuple[str, str, str]  # phase, event, next phase


def rows(module: ModuleType) -> Iterator[tuple[str, State, str]]:
    """(phase, public state, what leads out of it); a line that goes on belongs to the one before."""
    lines = [line for line in str(module.__doc__).splitlines() if line.startswith("    ")]
    text = re.sub(r"\n {20,}", " ", "\n".join(lines))
    for line in text.splitlines():
        phase, state, transitions = line.split(maxsplit=2)
        yield phase, State(state), transitions


def words(policy: Policy) -> dict[str, set[str]]:
    """The words that stand for phases in the tables, as the lines under them say."""
    if policy.is_attached:
        return {"end": {"STOPPED", "CONNECTING"}}
    load = {"QUEUED"} if policy.is_placed else {"LOADING"}
    begin = {"FETCHING"} if policy.is_fetched else load
    wake = {"QUEUED_TO_WAKE"} if policy.is_placed else {"WAKING"}
    failed = {"BACKING_OFF", "GIVEN_UP"}
    return {"load": load, "begin": begin, "wake": wake, "end": {"STOPPED", *begin}, "failed": failed}


def written(module: ModuleType, policy: Policy) -> set[Transition]:
    known = words(policy)
    return {
        (phase, event, target)
        for phase, _, transitions in rows(module)
        for events, targets in (transition.split(" → ") for transition in transitions.split(";"))
        for event in events.split()
        for word in targets.split()
        for target in known.get(word, {word})
        if target != phase and (policy.is_fetched or event != "Fetched")
    }


def possible_events(life: Lifecycle, is_fetching: bool) -> Iterator[Event]:
    yield from (Start(), Wanted(), Placed(), FilesChanged(), Tick(), SleepAsked(1))
    yield from (StopAsked(1.0, intent) for intent in STOP_INTENTS)
    of = life.generation
    yield from (Slept(of), SleepFailed(of, "no"), Drained(of), Stalled(of, "still"), WarmedUp(of))
    yield from (Probed(of, is_up=True), Probed(of, is_up=False), Probed(of, is_up=False, is_dead=True))
    for is_final in (False, True):
        yield from (NotPlaced("full", is_final), WarmUpFailed(of, "no", is_final), Exited(of, "exit", 1.0, is_final))
    if is_fetching:
        yield from (FetchProgress(of, "1 %"), Fetched(of))


def runs_fetcher(before: bool, life: Lifecycle, actions: list[Action]) -> bool:
    """Whether the process of this life is the one that fetches."""
    is_fetching = before
    for action in actions:
        is_fetching = isinstance(action, Fetch) or (is_fetching and not isinstance(action, Spawn))
    return is_fetching and life.has_process


def explored(policy: Policy) -> Iterator[tuple[Lifecycle, Event, Lifecycle]]:
    """Every kind of life that can come about, with whatever may happen to it and what becomes of it then."""
    seen: set[tuple[object, ...]] = set()
    ahead = [(Lifecycle(), 0.0, False)]
    while ahead:
        life, now, is_fetching = ahead.pop()
        served_long = life.ready_at is not None and now - life.ready_at >= machine.SERVED_WELL_S
        counts = (life.sleep_level, life.failed_starts, life.missed_probes)
        situation = (life.phase, life.intent, counts, is_fetching, life.ready_at is None, served_long, life.due is None)
        if situation in seen:
            continue
        seen.add(situation)
        due = life.due if life.due is not None and life.due < math.inf else now
        for at in (now + 1, max(now, due), now + 100):
            for event in possible_events(life, is_fetching):
                after, actions = machine.step(life, event, at, policy)
                yield life, event, after
                ahead.append((after, at, runs_fetcher(is_fetching, after, actions)))


def done(policy: Policy) -> set[Transition]:
    return {
        (before.phase.name, type(event).__name__, after.phase.name)
        for before, event, after in explored(policy)
        if after.phase is not before.phase
    }


@pytest.mark.parametrize(("module", "policy"), TABLES, ids=str)
def test_the_table_at_the_head_says_every_transition_that_the_code_makes_and_no_other(
    module: ModuleType, policy: Policy
) -> None:
    made = done(policy)
    reached = {"STOPPED", *(target for _, _, target in made)}

    assert {row for row in written(module, policy) if row[0] in reached} == made


def test_every_phase_comes_about() -> None:
    reached = {target for _, policy in TABLES for _, _, target in done(policy)}

    assert reached == {phase.name for phase in Phase}


def test_the_tables_have_every_phase_with_what_the_world_is_shown_of_it() -> None:
    shown = [(phase, state) for module in (machine, attached) for phase, state, _ in rows(module)]

    assert {(phase.name, state) for phase, state in STATES.items()} == set(shown)
    assert set(STATES) == set(Phase)
    assert len(shown) == len(Phase) + 1, "both have STOPPED, and no other phase is in both"


@pytest.mark.parametrize("policy", [*MANAGED, ATTACHED], ids=str)
def test_an_intent_other_than_to_run_is_for_an_engine_that_stops_or_rests(policy: Policy) -> None:
    for _, _, life in explored(policy):
        assert (life.intent is Intent.RUN) is (life.state not in (State.STOPPED, State.STOPPING, State.SLEEPING))


def test_a_life_is_eleven_things_and_no_flag() -> None:
    assert len(fields(Lifecycle)) <= 11
    assert [field.name for field in fields(Lifecycle) if field.type == "bool"] == []
