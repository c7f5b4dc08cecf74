"""Engines come, serve, crash and are given up: real processes (tests/fakes/engine.py), real attached engines."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from app.supervisor.fleet.fleet import Fleet
from app.supervisor.fleet.waiters import WaitOutcome
from app.table import Backend
from backends.endpoint import State
from backends.lifecycle.machine import REST_S
from backends.process import ownership
from backends.remote.config import RemoteConfig
from tests.fakes.engine import FakeEngine
from tests.rigs.fleet import Relays, engine, managed, only, parent, pid_of, running


async def test_the_relays_have_a_table_before_any_engine_has_started() -> None:
    relays = Relays()
    async with running(relays, gpu=managed()):
        await relays.until(lambda: bool(relays.published))

        assert relays.published[0]["gpu"] == Backend("gpu", "llama_cpp", State.STOPPED, can_start=True, is_limited=True)


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

        assert outcome == WaitOutcome(True)
        assert relays.row("gpu").state is State.READY
        assert await fleet.wanted("gpu") == WaitOutcome(True)


async def test_a_request_that_left_before_the_engine_was_ready_changes_nothing() -> None:
    relays = Relays()
    async with running(relays, gpu=managed(start="demand")) as fleet:
        impatient = asyncio.create_task(fleet.wanted("gpu"))
        await relays.until_state("gpu", State.STARTING)

        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)

        assert await fleet.wanted("gpu") == WaitOutcome(True)


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

        assert ownership.tagged(f"fleet-{os.getpid()}:gpu:1\0") == []


async def test_an_engine_that_never_gets_ready_is_given_up_with_its_reason() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--exit-after-s 0 --exit-code 3 --load-s 0")) as fleet:
        outcome = await fleet.wanted("gpu")

        assert outcome.is_ready is False
        assert str(outcome.reason).startswith("it exited with code 3; it has given up until ")
        assert str(outcome.reason).endswith(": `modelport start gpu` tries at once")
        assert only(fleet).generation == 5
        assert relays.row("gpu").state is State.FAILED
        assert not relays.row("gpu").can_start
        assert relays.row("gpu").is_given_up
        assert relays.row("gpu").tries_at == pytest.approx(time.time() + REST_S, abs=30)
        assert await fleet.wanted("gpu") == outcome
        assert fleet.log_tail("gpu")


async def test_an_engine_that_cannot_be_launched_says_why() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("missing")) as fleet:
        assert str((await fleet.wanted("gpu")).reason).startswith("the model is missing; it has given up until ")
        assert only(fleet).restarts == 0, "another try would not find it either"

        await fleet.reload({"gpu": managed("missing")})

        assert only(fleet).state in (State.STARTING, State.FAILED)
        assert relays.states("gpu").count(State.STARTING) == 2


@pytest.mark.parametrize(
    ("model", "told", "in_full"),
    [
        ("missing", "the model is missing", "the model is missing (/models/secret.gguf)"),
        ("/no/model", "No such file or directory", "[Errno 2] No such file or directory: '/no/model'"),
    ],
)
async def test_where_files_are_is_told_to_the_administrator_only(model: str, told: str, in_full: str) -> None:
    relays = Relays()
    with structlog.testing.capture_logs() as lines:
        async with running(relays, gpu=managed(model)) as fleet:
            outcome = await fleet.wanted("gpu")
            row, status = relays.row("gpu"), only(fleet)

    for shown in (outcome.reason, row.reason):
        assert str(shown).startswith(f"{told}; it has given up until ")
        assert "/" not in str(shown)
    assert str(status.reason).startswith(f"{in_full}; it has given up until ")
    assert status.reason in [line.get("reason") for line in lines]


async def test_an_engine_that_answers_and_cannot_work_is_not_served() -> None:
    relays = Relays()
    async with running(relays, gpu=managed("--default status_500_vllm")) as fleet:
        outcome = await fleet.wanted("gpu")

        assert str(outcome.reason).startswith("status 500; it has given up until ")
        assert State.READY not in relays.states("gpu")


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


async def test_an_engine_that_is_stopped_while_it_is_looked_for_is_never_started(tmp_path: Path) -> None:
    relays = Relays()
    pipe = tmp_path / "model"
    os.mkfifo(pipe)
    async with running(relays, gpu=managed(str(pipe))) as fleet:
        await relays.until_state("gpu", State.STARTING)

        await fleet.stop("gpu")
        await asyncio.to_thread(pipe.write_bytes, b"there")
        await relays.until_state("gpu", State.STOPPED)

        assert fleet.log_tail("gpu") == []


@pytest.mark.parametrize("options", ["bug", "--model bug --exit-after-s 0.5"], ids=["launch", "probe"])
async def test_a_mistake_of_ours_is_a_failed_start_and_not_the_end(options: str) -> None:
    relays = Relays()
    async with running(relays, gpu=managed(options)) as fleet:
        assert (await fleet.wanted("gpu")).is_ready is False
        assert only(fleet).state is State.FAILED


async def test_a_probe_that_fails_the_same_way_again_and_again_is_logged_once() -> None:
    relays = Relays()
    with structlog.testing.capture_logs() as lines:
        async with running(relays, gpu=managed("--model bug", start_timeout_s=1)) as fleet:
            await relays.until(lambda: only(fleet).restarts >= 1)

    told = [line for line in lines if line["event"] == "probe failed"]
    assert 1 <= len(told) <= only(fleet).generation


async def test_an_engine_that_nobody_configured_is_looked_for_in_silence() -> None:
    relays = Relays()
    async with FakeEngine() as remote:
        remote.refuse()
        config = RemoteConfig(kind="remote", url=remote.url)
        with structlog.testing.capture_logs() as lines:
            async with running(relays, implicit=["daemon"], daemon=config, cloud=config):
                await relays.until_state("daemon", State.FAILED)
                await relays.until_state("cloud", State.FAILED)

    stopped = {line["backend"]: line["log_level"] for line in lines if line["event"] == "engine stopped"}
    assert stopped == {"daemon": "debug", "cloud": "info"}
    missed = {line["backend"]: line["log_level"] for line in lines if line["event"] == "engine not there"}
    assert missed == {"daemon": "debug", "cloud": "info"}


async def test_an_ordered_restart_of_somebody_elses_engine_is_no_loss() -> None:
    relays = Relays()
    async with FakeEngine() as remote:
        with structlog.testing.capture_logs() as lines:
            async with running(relays, cloud=RemoteConfig(kind="remote", url=remote.url)) as fleet:
                await relays.until_state("cloud", State.READY)
                await fleet.restart("cloud")
                await relays.until_state("cloud", State.READY, generation=2)

    assert [(line["event"], line["log_level"]) for line in lines if line["event"].startswith("engine ")][:3] == [
        ("engine found", "info"),
        ("engine asked anew", "info"),
        ("engine found", "info"),
    ]


async def test_a_table_that_cannot_be_published_ends_the_fleet_and_every_engine() -> None:
    class Deaf(Relays):
        def publish(self, rows: Mapping[str, Backend]) -> int:
            if any(row.state is State.READY for row in rows.values()):
                raise ConnectionError("nobody listens")
            return super().publish(rows)

    relays = Deaf()
    fleet = Fleet({"gpu": managed()}, state_id="deaf", publish=relays.publish, leases=relays, engine=engine)

    with pytest.raises(ConnectionError):
        await fleet.run()
    async with asyncio.timeout(60):
        await fleet.close(600)

    assert ownership.tagged("deaf:") == []
