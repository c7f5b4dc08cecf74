"""Who starts and who makes way, as tables and as a long life of many engines on one machine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.supervisor.capacity.eviction import Evictable
from app.supervisor.capacity.placement import Allocation, Gpu, Machine
from app.supervisor.capacity.schedule import Capacity, Evict, Occupant, Order, Reject, StartNow, StartRequest, schedule
from backends.engine import Need

ONE_GB = Capacity(Machine(1.0), start_parallel=2, swap_after_s=30)
ONE_GPU = Capacity(Machine(9.0, (Gpu("GPU-a", 0),)))


def request(
    name: str, since: float = 0.0, need: Need | None = None, asked: bool = True, early: bool = False
) -> StartRequest:
    return StartRequest(name, need or Need(1.0), since, asked, early)


def serving(
    name: str, idle_since: float | None, place: Allocation | None = None, asleep: Allocation | None = None
) -> Occupant:
    return Occupant(name, place or Allocation(1.0), loaded=Evictable(name, idle_since, 0.0), asleep=asleep)


def spare(name: str, need: Need | None = None) -> StartRequest:
    return StartRequest(name, need or Need(1.0), 0.0, is_spare=True)


TWO_GPUS = Machine(9.0, (Gpu("GPU-a", 0), Gpu("GPU-b", 1)))
BARRED = Capacity(Machine(9.0, (Gpu("GPU-a", 0),)), barred={"GPU-a": "GPU-a is ill"})
ON_GPU = Allocation(2.0, ("GPU-a",), 0.9)
GPU_NEED = Need(2.0, gpus=1, share=0.9)
FULL = "it needs 1 GB of memory, and 0 of 1 are free"

SCENES: dict[str, tuple[Capacity, Sequence[StartRequest], Sequence[Occupant], list[Order], float]] = {
    "room for it": (ONE_GB, [request("a")], [], [StartNow("a", Allocation(1.0))], math.inf),
    "the first that came": (
        ONE_GB,
        [request("b", 2), request("a", 1)],
        [],
        [StartNow("a", Allocation(1.0))],
        math.inf,
    ),
    "who is asked for comes before who only starts": (
        ONE_GB,
        [request("boot", 1, asked=False), request("asked", 2)],
        [],
        [StartNow("asked", Allocation(1.0)), Reject("boot", FULL, is_final=False)],
        math.inf,
    ),
    "an idle one makes way": (ONE_GB, [request("b")], [serving("a", 5)], [Evict("a")], math.inf),
    "a busy one goes on for a while": (ONE_GB, [request("b", 90)], [serving("a", None)], [], 120),
    "a busy one whose time is up": (ONE_GB, [request("b", 60)], [serving("a", None)], [Evict("a")], math.inf),
    "nobody goes for what nobody asks for": (
        ONE_GB,
        [request("b", asked=False)],
        [serving("a", 5)],
        [Reject("b", FULL, is_final=False)],
        math.inf,
    ),
    "somebody is leaving already": (
        ONE_GB,
        [request("b", asked=False)],
        [Occupant("a", Allocation(1.0), is_leaving=True)],
        [],
        math.inf,
    ),
    "only one leaves for one": (
        Capacity(Machine(2.0)),
        [request("c")],
        [serving("a", 5), serving("b", 6)],
        [Evict("a")],
        math.inf,
    ),
    "each of two gets room of its own": (
        Capacity(Machine(2.0)),
        [request("c", 1), request("d", 2)],
        [serving("a", 5), serving("b", 6)],
        [Evict("a"), Evict("b")],
        math.inf,
    ),
    "never": (
        ONE_GB,
        [request("a", need=Need(2.0))],
        [],
        [Reject("a", "it needs 2 GB of memory, and 1 of 1 are free", is_final=True)],
        math.inf,
    ),
    "all that could go is pinned": (
        ONE_GB,
        [request("b")],
        [Occupant("a", Allocation(1.0), loaded=Evictable("a", 1.0, 0.0, is_pinned=True), is_pinned=True)],
        [Reject("b", FULL, is_final=False)],
        math.inf,
    ),
    "two start at a time": (
        Capacity(Machine(9.0), start_parallel=2),
        [request("a", 1), request("b", 2), request("c", 3, asked=False)],
        [],
        [StartNow("a", Allocation(1.0)), StartNow("b", Allocation(1.0))],
        math.inf,
    ),
    "one at a time on a GPU": (
        ONE_GPU,
        [request("b", need=Need(1.0, gpus=1, share=0.4))],
        [Occupant("a", Allocation(1.0, ("GPU-a",), 0.5), is_starting=True)],
        [],
        math.inf,
    ),
    "one start at a time where there is no GPU and one is set": (
        Capacity(Machine(9.0), start_parallel=1),
        [request("b")],
        [Occupant("a", Allocation(1.0), is_starting=True)],
        [],
        math.inf,
    ),
    "two at a time on two GPUs, and the third waits": (
        Capacity(Machine(9.0, (Gpu("GPU-a", 0), Gpu("GPU-b", 1), Gpu("GPU-c", 2))), start_parallel=2),
        [request(name, since, Need(gpus=1, share=0.5)) for since, name in enumerate("abc")],
        [],
        [StartNow("a", Allocation(0.0, ("GPU-a",), 0.5)), StartNow("b", Allocation(0.0, ("GPU-b",), 0.5))],
        math.inf,
    ),
    "a spare one takes what is free": (ONE_GB, [spare("m#2")], [], [StartNow("m#2", Allocation(1.0))], math.inf),
    "a spare one takes nothing from anybody": (ONE_GB, [spare("m#2")], [serving("a", 5)], [], math.inf),
    "a spare one comes last": (
        ONE_GB,
        [spare("m#2"), request("b", 50, asked=False)],
        [],
        [StartNow("b", Allocation(1.0))],
        math.inf,
    ),
    "a spare one that would never fit is no news": (ONE_GB, [spare("m#2", Need(2.0))], [], [], math.inf),
    "a GPU in quarantine": (
        BARRED,
        [request("b", need=GPU_NEED)],
        [],
        [Reject("b", "it needs 90% of 1 GPUs, and 0 have so much free; GPU-a is ill", is_final=False, is_barred=True)],
        math.inf,
    ),
    "nobody makes way on a GPU in quarantine": (
        BARRED,
        [request("b", need=GPU_NEED)],
        [serving("a", 5, Allocation(2.0, ("GPU-a",), 0.4))],
        [Reject("b", "it needs 90% of 1 GPUs, and 0 have so much free; GPU-a is ill", is_final=False, is_barred=True)],
        math.inf,
    ),
    "one makes way beside a GPU in quarantine": (
        Capacity(TWO_GPUS, barred={"GPU-a": "GPU-a is ill"}),
        [request("b", need=GPU_NEED)],
        [serving("a", 5, Allocation(2.0, ("GPU-b",), 0.4))],
        [Evict("a")],
        math.inf,
    ),
    "a quarantine says nothing of memory": (
        Capacity(Machine(1.0, (Gpu("GPU-a", 0),)), barred={"GPU-a": "GPU-a is ill"}),
        [request("b", asked=False)],
        [serving("a", 5)],
        [Reject("b", FULL, is_final=False)],
        math.inf,
    ),
    "the first replica alone": (ONE_GB, [request("m#2", early=True)], [], [], math.inf),
    "sleep makes room enough on the GPU": (
        ONE_GPU,
        [request("b", need=GPU_NEED)],
        [serving("a", 5, ON_GPU, asleep=Allocation(2.0))],
        [Evict("a", may_sleep=True)],
        math.inf,
    ),
    "sleep would not free the memory that is needed": (
        Capacity(Machine(3.0, ONE_GPU.machine.gpus)),
        [request("b", need=GPU_NEED)],
        [serving("a", 5, ON_GPU, asleep=Allocation(2.0))],
        [Evict("a", may_sleep=False)],
        math.inf,
    ),
    "a sleeping one is ended for its memory": (
        ONE_GB,
        [request("b")],
        [Occupant("a", Allocation(1.0), loaded=Evictable("a", 99.5, None))],
        [Evict("a")],
        math.inf,
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_room_is_given_as_the_scene_says(name: str) -> None:
    capacity, requests, occupants, orders, look_at = SCENES[name]

    made = schedule(requests, occupants, capacity, now=100.0)

    assert (made.orders, made.look_at) == (orders, look_at)


@dataclass
class Engine:
    """One of a simulated fleet: it loads, works and ends in a turn of the clock each."""

    name: str
    need: Need
    state: str = "out"  # waiting, starting, serving, leaving
    since: float = 0.0
    ready_at: float = 0.0
    waiting: int = 0
    leases: int = 0

    def occupant(self) -> Occupant:
        place = Allocation(self.need.memory_gb)
        idle = self.since if self.leases == 0 else None
        loaded = Evictable(self.name, idle, self.ready_at) if self.state == "serving" else None
        return Occupant(self.name, place, self.state == "starting", self.state == "leaving", loaded)


class Fleet:
    def __init__(self, sizes: Sequence[int]) -> None:
        self.engines = {f"e{at}": Engine(f"e{at}", Need(float(size))) for at, size in enumerate(sizes)}
        self.capacity = Capacity(Machine(4.0), start_parallel=2, swap_after_s=5)
        self.now = 0.0
        self.served = 0

    def ask(self, name: str) -> None:
        engine = self.engines[name]
        engine.waiting += 1
        if engine.state == "out":
            engine.state, engine.since = "waiting", self.now

    def pass_second(self, is_slow: bool) -> None:
        """Who can works; who must decides; the machine never holds more than it has."""
        self.now += 1
        for engine in self.engines.values():
            if engine.state == "starting":
                engine.state, engine.since, engine.ready_at = "serving", self.now, self.now
            if engine.leases and not is_slow:
                self.served += engine.leases
                engine.leases, engine.since = 0, self.now
            if engine.state == "serving" and engine.waiting:
                engine.leases, engine.waiting = engine.leases + engine.waiting, 0
            if engine.state == "leaving" and engine.leases == 0:
                engine.state, engine.since = ("waiting" if engine.waiting else "out"), self.now
        self._decide()
        held = [each for each in self.engines.values() if each.state in ("starting", "serving", "leaving")]
        assert sum(each.need.memory_gb for each in held) <= self.capacity.machine.memory_gb
        assert sum(each.state == "starting" for each in held) <= self.capacity.start_parallel

    def _decide(self) -> None:
        requests = [StartRequest(e.name, e.need, e.since, True) for e in self.engines.values() if e.state == "waiting"]
        occupants = [e.occupant() for e in self.engines.values() if e.state in ("starting", "serving", "leaving")]
        for order in schedule(requests, occupants, self.capacity, self.now).orders:
            engine = self.engines[order.name]
            match order:
                case StartNow():
                    assert engine.state == "waiting"
                    engine.state = "starting"
                case Evict():
                    assert engine.state == "serving"
                    engine.state = "leaving"  # it is gone when its leases are
                case Reject():
                    raise AssertionError("everything fits alone")


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40),
)
def test_whatever_is_asked_for_the_memory_is_never_overdrawn_and_everybody_is_served(
    sizes: list[int], story: list[tuple[int, bool]]
) -> None:
    fleet = Fleet(sizes)

    for number, is_slow in story:
        fleet.ask(f"e{number % len(sizes)}")
        fleet.pass_second(is_slow)
    for _ in range(200):
        fleet.pass_second(is_slow=False)

    assert fleet.served == len(story)
    assert not any(engine.waiting or engine.leases for engine in fleet.engines.values())


def test_two_engines_in_constant_demand_take_turns_of_the_length_that_is_set() -> None:
    fleet = Fleet([4, 4])
    swaps: list[tuple[str, int]] = []

    for second in range(100):
        fleet.ask("e0")
        fleet.ask("e1")
        fleet.pass_second(is_slow=False)
        serving_now = [name for name, engine in fleet.engines.items() if engine.state == "serving"]
        if serving_now and (not swaps or swaps[-1][0] != serving_now[0]):
            swaps.append((serving_now[0], second))

    lengths = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(swaps)]
    assert min(lengths) >= fleet.capacity.swap_after_s
    assert max(lengths) <= fleet.capacity.swap_after_s + 5
