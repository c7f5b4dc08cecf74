"""Which engines are evicted, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.supervisor.capacity.eviction import LINGER_S, Evictable, choose_evicted, choose_idle, evictable_at


def idle(name: str, since: float = 0.0, **more: bool) -> Evictable:
    return Evictable(name, since, 0.0, **more)


def busy(name: str, serving_since: float = 0.0) -> Evictable:
    return Evictable(name, None, serving_since)


def freeing(needed: int) -> Callable[[Collection[str]], bool]:
    """Each name counts as one."""
    return lambda names: len(names) >= needed


TURNS = {
    "a sleeping one": (Evictable("a", 0.0, None), 100.0),
    "one that has been idle": (idle("a", 50.0), 51.0),
    "one that has just become idle": (idle("a", 99.9), 100.9),
    "a busy one whose rival came now": (busy("a"), 130.0),
    "a busy one whose rival came before it was ready": (busy("a", 110.0), 140.0),
    "one that was idle before it was ready anew": (Evictable("a", 1.0, 120.0), 121.0),
    "a pinned one": (idle("a", 0.0, is_pinned=True), math.inf),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_loaded_engine_makes_way_at_its_time(name: str) -> None:
    loaded, at = TURNS[name]

    assert evictable_at(loaded, waiting_since=100.0, now=100.0, swap_after_s=30.0) == at


def test_the_longest_idle_go_first_and_no_more_than_needed() -> None:
    loaded = [idle("young", 30), idle("old", 10), idle("middle", 20)]

    assert choose_idle(freeing(2), loaded) == ["old", "middle"]


def test_none_goes_when_all_idle_ones_are_not_enough() -> None:
    assert choose_idle(freeing(2), [idle("a"), busy("b"), idle("c", is_pinned=True)]) is None


def test_nobody_goes_whose_room_the_others_make_unnecessary() -> None:
    sizes = {"small": 1, "large": 4}

    assert choose_idle(lambda names: sum(sizes[n] for n in names) >= 4, [idle("small", 1), idle("large", 2)]) == [
        "large"
    ]


def test_a_busy_one_goes_only_when_its_time_is_up_and_no_idle_one_is_there() -> None:
    loaded = [busy("busy"), idle("idle", 125.0)]

    assert choose_evicted(freeing(1), loaded, waiting_since=100, now=131, swap_after_s=30) == (["idle"], math.inf)
    assert choose_evicted(freeing(1), loaded[:1], waiting_since=100, now=131, swap_after_s=30) == (["busy"], math.inf)
    assert choose_evicted(freeing(1), loaded[:1], waiting_since=100, now=129, swap_after_s=30) == ([], 130)


ENGINES = st.lists(
    st.builds(
        Evictable,
        name=st.uuids().map(str),
        idle_since=st.none() | st.floats(0, 100),
        serving_since=st.none() | st.floats(0, 100),
        is_pinned=st.booleans(),
    ),
    max_size=6,
)


@given(ENGINES, st.integers(1, 4))
def test_never_one_that_works_or_is_pinned(loaded: list[Evictable], needed: int) -> None:
    names = choose_idle(freeing(needed), loaded)

    gone = [one for one in loaded if names is not None and one.name in names]
    assert all(one.idle_since is not None and not one.is_pinned for one in gone)
    assert (names is None) == (sum(one.idle_since is not None and not one.is_pinned for one in loaded) < needed)
    assert names is None or len(names) == needed


@given(ENGINES, st.floats(0, 200), st.floats(0, 100), st.floats(0.1, 50))
def test_the_wait_for_an_engine_that_may_go_has_an_end(
    loaded: list[Evictable], now: float, waiting_since: float, swap_after_s: float
) -> None:
    names, look_at = choose_evicted(freeing(1), loaded, min(waiting_since, now), now, swap_after_s)

    if not names and any(not one.is_pinned for one in loaded):
        assert now < look_at <= max(now, 100) + swap_after_s + LINGER_S
