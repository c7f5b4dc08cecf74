"""One entry, several engines: their names, their shares, and how they start."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.model import Config
from app.supervisor.capacity.placement import Machine
from app.supervisor.capacity.schedule import Capacity
from app.supervisor.fleet.waiters import WaitOutcome
from app.supervisor.relays import build_table
from app.supervisor.replicas import replicas
from app.table import Target
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.engine import Engine, Launch
from backends.llama_cpp.config import LlamaCppConfig
from backends.remote.config import RemoteConfig
from tests.rigs.fleet import FakeManaged, Relays, managed, one, running


def test_an_entry_is_as_many_backends_as_it_says_and_the_first_keeps_its_name() -> None:
    cloud = RemoteConfig(kind="remote", url="http://127.0.0.1:1/v1")

    expanded = replicas.expand({"m": managed(replicas=3), "cloud": cloud})

    assert list(expanded) == ["m", "m#2", "m#3", "cloud"]
    assert expanded["m"] == expanded["m#3"] == managed()
    assert replicas.firsts({"m": managed(replicas=3), "cloud": cloud}) == {"m#2": "m", "m#3": "m"}


@pytest.mark.parametrize(
    ("shares", "weights"),
    [([], []), ([(5, 1)], [5]), ([(1, 4)], [1]), ([(9, 2), (1, 1)], [9, 2]), ([(1, 2), (1, 3)], [3, 2])],
)
def test_replicas_share_the_weight_of_their_entry(shares: Sequence[tuple[int, int]], weights: list[int]) -> None:
    assert replicas.weights(shares) == weights


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 64)), min_size=1, max_size=5))
def test_every_entry_keeps_its_share(shares: list[tuple[int, int]]) -> None:
    totals = [weight * count for weight, (_, count) in zip(replicas.weights(shares), shares, strict=True)]

    assert all(totals[0] * weight == each * shares[0][0] for each, (weight, _) in zip(totals, shares, strict=True))


def test_a_public_name_leads_to_every_replica() -> None:
    config = Config.model_validate(
        {
            "backends": {
                "m": {"kind": "llama_cpp", "model": "x.gguf", "replicas": 2},
                "n": {"kind": "llama_cpp", "model": "x.gguf"},
            },
            "models": {"chat": {"targets": [{"backend": "m", "weight": 9}, {"backend": "n", "weight": 1}]}},
        }
    )

    table = build_table.build(config, {}, 1)

    assert table.models["chat"].targets == (Target("m", "chat", 9), Target("m#2", "chat", 9), Target("n", "chat", 2))


async def test_the_first_starts_alone_and_an_order_goes_to_all() -> None:
    relays, before = Relays(), dict[str, State]()

    class Noting(FakeManaged):
        def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
            before[self.name] = relays.row("a").state
            return super().launch(port, devices, key)

    def noting(name: str, config: BackendConfig) -> Engine:
        assert isinstance(config, LlamaCppConfig)
        return Noting(name, config)

    async with running(relays, None, noting, a=managed(replicas=3, start="demand")) as fleet:
        await relays.until(lambda: bool(relays.published))
        assert relays.row("a").can_start
        assert not relays.row("a#2").can_start, "a request would choose it and wait for two starts"

        assert await fleet.wanted("a") == WaitOutcome(True)
        for name in ("a#2", "a#3"):
            await relays.until_state(name, State.READY)
        assert before == {"a": State.STARTING, "a#2": State.READY, "a#3": State.READY}

        pid = one(fleet, "a").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await relays.until_state("a", State.READY, generation=2)
        assert one(fleet, "a#2").generation == 1

        await fleet.reload({"a": managed(replicas=2, start="demand")})
        await relays.until(lambda: "a#3" not in relays.published[-1])
        assert one(fleet, "a").generation == 2

        await fleet.stop("a")
        for name in ("a", "a#2"):
            await relays.until_state(name, State.STOPPED)


async def test_replicas_are_unloaded_together() -> None:
    relays = Relays()
    relays.leases["a", 0] = 1
    async with running(relays, a=managed(replicas=2, unload_after_s=0.05)) as fleet:
        await relays.until_state("a#2", State.READY)
        relays.leases = {("a", 1): 1}
        fleet.leases_changed()
        assert relays.row("a#2").state is State.READY

        relays.leases.clear()
        fleet.leases_changed()

        for name in ("a", "a#2"):
            await relays.until_state(name, State.STOPPED)


async def test_a_replica_that_made_way_comes_back_when_its_entry_has_work_and_there_is_room() -> None:
    """Requests go to the replica that serves, so none would ever ask for the other one."""
    relays = Relays()
    entry, other = managed(replicas=2, memory_gb=1), managed(start="demand", memory_gb=1)
    async with running(relays, Capacity(Machine(2.0), swap_after_s=0.05), a=entry, b=other) as fleet:
        for name in ("a", "a#2"):
            await relays.until_state(name, State.READY)
        assert await fleet.wanted("b") == WaitOutcome(True)
        away, here = sorted(("a", "a#2"), key=lambda name: relays.row(name).state is State.READY)
        assert relays.row(here).state is State.READY
        await relays.until_state(away, State.STOPPED)

        relays.leases[here, one(fleet, here).generation] = 1
        fleet.leases_changed()
        assert relays.row(away).state is State.STOPPED, "it takes nobody's room"
        await fleet.stop("b")
        await relays.until_state(away, State.READY, generation=2)

        assert one(fleet, here).generation == 1
        assert one(fleet, "b").swaps == 0


async def test_a_replica_that_found_no_room_at_the_start_comes_when_there_is_and_the_entry_has_work() -> None:
    relays = Relays()
    entry, other = managed(replicas=2, memory_gb=1), managed(memory_gb=1)
    async with running(relays, Capacity(Machine(2.0)), b=other, a=entry) as fleet:
        for name in ("a", "b"):
            await relays.until_state(name, State.READY)
        await relays.until_state("a#2", State.STOPPED)
        relays.leases["a", 1] = 1
        fleet.leases_changed()

        await fleet.stop("b")

        await relays.until_state("a#2", State.READY)


async def test_replicas_without_work_and_stopped_ones_stay_as_they_are() -> None:
    relays = Relays()
    entry, other = managed(replicas=2, memory_gb=1), managed(start="demand", memory_gb=1)
    async with running(relays, Capacity(Machine(2.0), swap_after_s=0.05), a=entry, b=other) as fleet:
        for name in ("a", "a#2"):
            await relays.until_state(name, State.READY)
        assert await fleet.wanted("b") == WaitOutcome(True)
        await relays.until(lambda: State.STOPPED in (relays.row("a").state, relays.row("a#2").state))
        await fleet.stop("b")
        await relays.until_state("b", State.STOPPED)
        assert State.STOPPED in (relays.row("a").state, relays.row("a#2").state), "nobody asks for it"

        await fleet.stop("a")
        for name in ("a", "a#2"):
            await relays.until_state(name, State.STOPPED)
        relays.leases["a", 1] = 1
        fleet.leases_changed()
        assert [relays.row(name).state for name in ("a", "a#2")] == [State.STOPPED] * 2
