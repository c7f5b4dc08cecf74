"""A fleet whose engines have their models from a hub: real processes, a real server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.supervisor.placement import Machine
from app.supervisor.room import Bounds
from backends.base import Engine, Fetcher, State
from backends.config import BackendConfig, LlamaCppConfig
from backends.hub import Hub
from tests.fake_hub import FakeHub
from tests.fleet_rig import FakeManaged, Relays, engine, managed, only, pid_of, running

MODEL = "org/tiny"


@pytest.fixture
def relays() -> Relays:
    return Relays()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as serving:
        yield serving


@pytest.fixture
def repository(tmp_path: Path, hub: FakeHub) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(12_000_000))
    hub.add(MODEL, folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, hub: FakeHub) -> Callable[[str, BackendConfig], Engine]:
    """Engines whose `env` says which model they want: MODEL."""

    class FromHub(FakeManaged):
        def __init__(self, name: str, config: LlamaCppConfig) -> None:
            super().__init__(name, config)
            env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "600"}
            self.fetcher: Fetcher | None = Hub(tmp_path / "pins", env, lambda: {config.env["MODEL"]: None})

    def choose(name: str, config: BackendConfig) -> Engine:
        return (
            FromHub(name, config)
            if isinstance(config, LlamaCppConfig) and "MODEL" in config.env
            else engine(name, config)
        )

    return choose


def wanting(model: str = MODEL, **values: object) -> LlamaCppConfig:
    return managed("plain", env={"MODEL": model}, **values)


def served(folder: Path) -> bytes:
    """The weights in the cache."""
    [weights] = folder.glob("home/hub/models--org--tiny/snapshots/*/model.safetensors")
    return weights.read_bytes()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def until_reason(relays: Relays, name: str, wanted: str) -> None:
    await relays.until(lambda: bool(relays.published) and wanted in (relays.published[-1][name].reason or ""))


async def test_an_engine_starts_when_its_model_is_here(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine], tmp_path: Path
) -> None:
    async with running(relays, None, make, demo=wanting()) as fleet:
        row = await relays.until_state("demo", State.READY)

        assert row.reason is None
        assert only(fleet).generation == 1
    assert served(tmp_path) == (repository / "model.safetensors").read_bytes()


async def test_meanwhile_everybody_is_told_how_far_it_is(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    hub.stops_at = 8_000_000
    async with running(relays, None, make, demo=wanting()) as fleet:
        await until_reason(relays, "demo", " % of 12.0 MB")

        assert relays.row("demo").state is State.STARTING
        assert (only(fleet).reason or "").startswith("downloading ")
        assert relays.row("demo").retry_after_s >= 5
        fleet.wait_s = 0.1
        outcome = await fleet.wanted("demo")
        assert "downloading " in (outcome.reason or "")
        assert "downloaded" in "".join(fleet.log_tail("demo"))
        hub.goes_on.set()
        await relays.until_state("demo", State.READY)


async def test_a_download_takes_no_room_from_others(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    hub.stops_at = 0
    bounds = Bounds(Machine(memory_gb=1.0), start_parallel=1)
    async with running(
        relays, bounds, make, large=wanting(memory_gb=1.0), small=managed(memory_gb=1.0, start="demand")
    ) as fleet:
        await relays.until_state("large", State.STARTING)

        assert (await fleet.wanted("small")).is_ready


async def test_a_stop_ends_the_download_and_a_start_goes_on_with_it(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    hub.stops_at = 8_000_000
    async with running(relays, None, make, demo=wanting()) as fleet:
        await until_reason(relays, "demo", " % of 12.0 MB")
        pid = pid_of(fleet)

        await fleet.stop("demo")
        await relays.until_state("demo", State.STOPPED)
        assert not is_alive(pid)

        hub.stops_at = None
        hub.goes_on.set()
        await fleet.start("demo")
        await relays.until_state("demo", State.READY)
    assert len(hub.ranges) == 1


async def test_a_download_without_a_byte_is_given_up(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    hub.stops_at = 8_000_000
    async with running(relays, None, make, demo=wanting(start_stall_s=2)):
        await until_reason(relays, "demo", "no byte of its model came for 2 s (downloading ")

        hub.stops_at = None
        hub.goes_on.set()
        await relays.until_state("demo", State.READY)


async def test_a_model_that_does_not_exist_is_a_failure_with_the_remedy(
    relays: Relays, hub: FakeHub, make: Callable[[str, BackendConfig], Engine]
) -> None:
    async with running(relays, None, make, demo=wanting("org/typo")) as fleet:
        row = await relays.until_state("demo", State.FAILED)

        assert row.reason is not None
        assert row.reason.startswith("the hub has no model 'org/typo'")
        assert only(fleet).generation == 0


async def test_replicas_bring_their_model_once(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    async with running(relays, None, make, demo=wanting(replicas=2)):
        await relays.until_state("demo", State.READY)
        await relays.until_state("demo#2", State.READY)

    assert sum(asked.startswith("GET") and asked.endswith(".safetensors") for asked in hub.asked) == 1


async def test_a_restart_asks_the_hub_for_nothing(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    async with running(relays, None, make, demo=wanting()) as fleet:
        await relays.until_state("demo", State.READY)
        hub.asked.clear()

        await fleet.restart("demo")
        await relays.until_state("demo", State.READY, generation=2)

    assert hub.asked == []
