"""The fleet with real processes (tests/fake_engine.py) and real attached engines; the relays' leases are the test's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.supervisor.fleet import BackendStatus, Fleet, Outcome
from app.table import Backend
from backends import kinds, process
from backends.base import Endpoint, Engine, Launch, Probe, State
from backends.config import BackendConfig, LlamaCppConfig, RemoteConfig
from backends.control import Control
from backends.errors import BackendError, EngineFailed, NotReady
from tests.fake_engine import FakeEngine


class FakeManaged:
    """An engine of ours that loads in no time: `config.model` holds the options of tests.fake_engine."""

    is_strict = False

    def __init__(self, name: str, config: LlamaCppConfig) -> None:
        self.name = name
        self._config = config
        self._control = Control(name)

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        if self._config.model == "missing":
            raise NotReady(self.name, "the model is missing")
        options = () if self._config.model == "plain" else self._config.model.split()
        argv = (sys.executable, "-m", "tests.fake_engine", "--port", str(port), *options)
        return Launch(argv, {**os.environ, "FAKE_ENGINE_KEY": key})

    def endpoint(self, generation: int, port: int, key: str) -> Endpoint:
        return Endpoint(self.name, generation, f"http://127.0.0.1:{port}/v1", {"authorization": f"Bearer {key}"})

    async def probe(self, endpoint: Endpoint) -> Probe:
        try:
            reply = await self._control.ask(f"{endpoint.address}/models", endpoint.headers, timeout_s=10)
        except BackendError as exc:
            return Probe(False, exc.message)
        return Probe(reply.status == 200, f"status {reply.status}", ("fake",))

    async def warm_up(self, endpoint: Endpoint) -> None:
        body = {"model": "fake", "prompt": "a"}
        reply = await self._control.ask(f"{endpoint.address}/completions", endpoint.headers, timeout_s=10, body=body)
        if reply.status != 200:
            raise EngineFailed(self.name, f"status {reply.status}")


def engine(name: str, config: BackendConfig) -> Engine:
    return FakeManaged(name, config) if isinstance(config, LlamaCppConfig) else kinds.engine(name, config)


def managed(options: str = "plain", **values: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": options, **values})


class Relays:
    """The rest of the gateway as the fleet sees it: takes tables, holds leases."""

    def __init__(self) -> None:
        self.published: list[Mapping[str, Backend]] = []
        self.leases: dict[tuple[str, int], int] = {}
        self.is_behind = False
        self._changed = asyncio.Condition()
        self._notices: set[asyncio.Task[None]] = set()

    def publish(self, rows: Mapping[str, Backend]) -> int:
        self.published.append(dict(rows))
        notice = asyncio.create_task(self._notify())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)
        return len(self.published)

    def held(self, backend: str, generation: int) -> int:
        return self.leases.get((backend, generation), 0)

    def is_applied(self, version: int) -> bool:
        return not self.is_behind

    def row(self, name: str) -> Backend:
        return self.published[-1][name]

    def states(self, name: str) -> list[State]:
        """The states it was published in, repetitions left out."""
        states = [rows[name].state for rows in self.published if name in rows]
        return [state for at, state in enumerate(states) if at == 0 or states[at - 1] is not state]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(is_so)

    async def until_state(self, name: str, state: State, generation: int = 0) -> Backend:
        def is_so() -> bool:
            row = self.published[-1].get(name) if self.published else None
            if row is None or row.state is not state:
                return False
            return row.endpoint is None or row.endpoint.generation >= generation

        await self.until(is_so)
        return self.row(name)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def running(relays: Relays, **backends: BackendConfig) -> AsyncIterator[Fleet]:
    fleet = Fleet(
        backends,
        state_id=f"fleet-{os.getpid()}",
        publish=relays.publish,
        leases=relays,
        random=lambda: 0.0,
        engine=engine,
    )
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        async with asyncio.timeout(60):
            await fleet.close(0)
            await task
        assert process.marked(f"fleet-{os.getpid()}:") == []


def only(fleet: Fleet) -> BackendStatus:
    [status] = fleet.status()
    return status


def pid_of(fleet: Fleet) -> int:
    pid = only(fleet).pid
    assert pid is not None
    return pid


async def test_the_relays_have_a_table_before_any_engine_has_started() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()):
        await relays.until(lambda: bool(relays.published))

        assert relays.published[0]["gpu"] == Backend("gpu", "llama_cpp", State.STOPPED, can_start=True)


async def test_an_engine_that_starts_at_boot_is_published_when_it_is_warm() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        row = await relays.until_state("gpu", State.READY)

        assert relays.states("gpu") == [State.STOPPED, State.STARTING, State.READY]
        assert row.endpoint is not None
        assert row.endpoint.generation == only(fleet).generation == 1
        assert row.models == only(fleet).models == ("fake",)
        assert only(fleet).load_s is not None


async def test_an_engine_on_demand_starts_when_a_request_wants_it() -> None:
    relays = Relays()
    async with running(relays, gpu=managed(start="demand")) as fleet:
        await relays.until(lambda: bool(relays.published))
        assert only(fleet).state is State.STOPPED
        assert relays.row("gpu").can_start

        outcome = await fleet.wanted("gpu")

        assert outcome == Outcome(True)
        assert relays.row("gpu").state is State.READY
        assert await fleet.wanted("gpu") == Outcome(True)


async def test_a_request_that_left_before_the_engine_was_ready_changes_nothing() -> None:
    relays = Relays()
    async with running(relays, gpu=managed(start="demand")) as fleet:
        impatient = asyncio.create_task(fleet.wanted("gpu"))
        await relays.until_state("gpu", State.STARTING)

        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)

        assert await fleet.wanted("gpu") == Outcome(True)


async def test_a_crash_withdraws_the_endpoint_and_starts_anew_with_another_key() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--children 1")) as fleet:
        first = (await relays.until_state("gpu", State.READY)).endpoint

        os.kill(pid_of(fleet), signal.SIGKILL)
        second = (await relays.until_state("gpu", State.READY, generation=2)).endpoint

        assert relays.states("gpu")[-3:] == [State.READY, State.STARTING, State.READY]
        assert first is not None
        assert second is not None
        assert second.generation == 2
        assert second.headers != first.headers
        assert only(fleet).restarts == 1


async def test_a_killed_guard_leaves_nothing_and_the_engine_is_started_anew() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--children 1")) as fleet:
        await relays.until_state("gpu", State.READY)

        os.kill(parent(pid_of(fleet)), signal.SIGKILL)
        await relays.until_state("gpu", State.READY, generation=2)

        assert process.marked(f"fleet-{os.getpid()}:gpu:1\0") == []


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


async def test_an_engine_that_never_gets_ready_is_given_up_with_its_reason() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--exit-after-s 0 --exit-code 3 --load-s 0")) as fleet:
        outcome = await fleet.wanted("gpu")

        assert outcome == Outcome(False, "it exited with code 3", 60.0)
        assert only(fleet).generation == 5
        assert relays.row("gpu").state is State.FAILED
        assert not relays.row("gpu").can_start
        assert await fleet.wanted("gpu") == outcome
        assert fleet.log_tail("gpu")


async def test_an_engine_that_cannot_be_launched_says_why() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("missing")) as fleet:
        assert await fleet.wanted("gpu") == Outcome(False, "the model is missing", 60.0)

        await fleet.reload({"gpu": managed("missing")})

        assert only(fleet).state is State.STARTING


async def test_an_engine_that_answers_and_cannot_work_is_not_served() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--default status_500_vllm")) as fleet:
        outcome = await fleet.wanted("gpu")

        assert outcome.reason == "status 500"
        assert State.READY not in relays.states("gpu")


async def test_a_stop_waits_for_the_leases_and_for_every_relay_to_know() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        relays.leases["gpu", 1] = 1
        relays.is_behind = True

        await fleet.stop("gpu")
        await relays.until_state("gpu", State.STOPPING)
        assert relays.row("gpu").endpoint is None
        relays.is_behind = False
        fleet.leases_changed()
        assert only(fleet).leases == 1
        assert only(fleet).pid is not None
        relays.leases.clear()
        fleet.leases_changed()

        await relays.until_state("gpu", State.STOPPED)
        assert only(fleet).pid is None


async def test_what_the_administrator_stopped_only_the_administrator_starts() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        await fleet.stop("gpu")
        await relays.until_state("gpu", State.STOPPED)

        assert not relays.row("gpu").can_start
        assert (await fleet.wanted("gpu")).is_ready is False
        await fleet.start("gpu")

        assert await fleet.wanted("gpu") == Outcome(True)


async def test_a_restart_is_another_generation() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)

        await fleet.restart("gpu")
        waiting = await fleet.wanted("gpu")

        assert waiting == Outcome(True)
        assert only(fleet).generation == 2


async def test_a_request_that_waits_is_answered_when_the_engine_is_stopped() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--load-s 600", start="demand")) as fleet:
        waiting = asyncio.create_task(fleet.wanted("gpu"))
        await relays.until_state("gpu", State.STARTING)

        await fleet.stop("gpu")

        assert (await waiting).is_ready is False


async def test_a_reload_touches_only_what_changed() -> None:
    relays = Relays()
    async with running(relays, kept=managed(), changed=managed(), removed=managed()) as fleet:
        for name in ("kept", "changed", "removed"):
            await relays.until_state(name, State.READY)
        pids = {status.name: status.pid for status in fleet.status()}

        await fleet.reload({"kept": managed(), "changed": managed("--model fake --model more"), "added": managed()})
        await relays.until(lambda: "removed" not in relays.published[-1])
        await relays.until_state("changed", State.READY, generation=2)
        await relays.until_state("added", State.READY)

        after = {status.name: status.pid for status in fleet.status()}
        assert after.keys() == {"kept", "changed", "added"}
        assert after["kept"] == pids["kept"]
        assert after["changed"] != pids["changed"]


async def test_a_name_that_left_and_came_back_goes_on_counting() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)

        await fleet.reload({})
        await relays.until(lambda: relays.published[-1] == {})
        assert (await fleet.wanted("gpu")).is_ready is False
        await fleet.reload({"gpu": managed()})

        await relays.until_state("gpu", State.READY)
        assert only(fleet).generation == 2


async def test_a_removal_taken_back_while_it_drains_is_a_restart() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        relays.leases["gpu", 1] = 1

        await fleet.reload({})
        await fleet.reload({"gpu": managed()})
        relays.leases.clear()
        fleet.leases_changed()

        await relays.until_state("gpu", State.READY, generation=2)


async def test_a_term_to_everything_at_once_does_not_break_the_drain() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--ignore-term", stop_grace_s=0.1)) as fleet:
        await relays.until_state("gpu", State.READY)
        pid = pid_of(fleet)

        os.kill(parent(pid), signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        relays.leases["gpu", 1] = 1
        closing = asyncio.create_task(fleet.close(600))
        await relays.until_state("gpu", State.STOPPING)
        assert only(fleet).pid == pid
        relays.leases.clear()
        fleet.leases_changed()

        await closing
        assert only(fleet).state is State.STOPPED


async def test_while_it_closes_no_order_starts_anything() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()) as fleet:
        await relays.until_state("gpu", State.READY)
        relays.leases["gpu", 1] = 1

        closing = asyncio.create_task(fleet.close(600))
        await relays.until_state("gpu", State.STOPPING)
        await fleet.start("gpu")
        await fleet.restart("gpu")
        await fleet.reload({"other": managed()})
        relays.leases.clear()
        fleet.leases_changed()

        await closing
        assert [status.state for status in fleet.status()] == [State.STOPPED]


async def test_a_cancelled_fleet_leaves_nothing() -> None:
    relays = Relays()
    fleet = Fleet(
        {"gpu": managed("--children 2 --ignore-term")},
        state_id="cancelled",
        publish=relays.publish,
        leases=relays,
        engine=engine,
    )
    task = asyncio.create_task(fleet.run())
    await relays.until_state("gpu", State.READY)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert process.marked("cancelled:") == []


async def test_somebody_elses_engine_is_found_lost_and_found_again() -> None:
    relays = Relays()
    async with FakeEngine(models=("a", "b"), key="k") as remote:
        config = RemoteConfig(kind="remote", url=remote.url, api_key=SecretStr("k"))
        async with running(relays, cloud=config) as fleet:
            row = await relays.until_state("cloud", State.READY)
            assert row.models == ("a", "b")
            assert row.endpoint is not None
            assert row.endpoint.headers == {"authorization": "Bearer k"}

            remote.refuse()
            fleet.failing("cloud", 1)
            row = await relays.until_state("cloud", State.FAILED)
            assert row.reason == "no connection to it (connection refused)"
            assert not row.can_start
            assert (await fleet.wanted("cloud")).is_ready is False

            remote.listen()
            await fleet.reload({"cloud": config})
            await relays.until_state("cloud", State.READY, generation=2)


async def test_the_credential_that_somebody_elses_engine_refuses_is_its_reason() -> None:
    relays = Relays()
    async with FakeEngine(key="k") as remote, running(relays, cloud=RemoteConfig(kind="remote", url=remote.url)):
        row = await relays.until_state("cloud", State.FAILED)

        assert row.reason == "it refuses the configured credential (status 401)"


async def test_an_unknown_name_is_an_error_for_the_administrator_and_a_no_for_a_request() -> None:
    relays = Relays()
    async with running(relays) as fleet:
        assert (await fleet.wanted("nope")).is_ready is False
        fleet.failing("nope", 1)
        with pytest.raises(KeyError):
            await fleet.start("nope")
        with pytest.raises(KeyError):
            fleet.log_tail("nope")
