"""A fleet whose engines have their models from a hub: real processes, a real server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from app.supervisor.capacity.placement import Machine
from app.supervisor.capacity.schedule import Capacity
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.engine import Engine, Fetcher, Launch, Progress
from backends.huggingface.fetcher import HubFetcher, explain, progress
from backends.llama_cpp.config import LlamaCppConfig
from tests.fakes.hub import FakeHub
from tests.rigs.fleet import FakeManaged, Relays, engine, managed, one, only, pid_of, running

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
            self.fetcher: Fetcher | None = HubFetcher(tmp_path / "pins", env, lambda: {config.env["MODEL"]: None})

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


def lose(folder: Path) -> None:
    """The weights are in the cache no more."""
    [weights] = folder.glob("home/hub/models--org--tiny/snapshots/*/model.safetensors")
    weights.resolve().unlink()


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
    capacity = Capacity(Machine(memory_gb=1.0), start_parallel=1)
    async with running(
        relays, capacity, make, large=wanting(memory_gb=1.0), small=managed(memory_gb=1.0, start="demand")
    ) as fleet:
        await relays.until_state("large", State.STARTING)

        assert (await fleet.wanted("small")).is_ready


async def test_an_engine_that_crashed_keeps_no_room_while_its_model_is_brought_again(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine], tmp_path: Path
) -> None:
    capacity = Capacity(Machine(memory_gb=1.0), start_parallel=1, swap_after_s=0.01)
    small = managed(memory_gb=1.0, start="demand", max_wait_s=20)
    async with running(relays, capacity, make, large=wanting(memory_gb=1.0), small=small) as fleet:
        await relays.until_state("large", State.READY)
        lose(tmp_path)
        hub.served, hub.stops_at = 0, 8_000_000
        pid = one(fleet, "large").pid
        assert pid is not None

        os.kill(pid, signal.SIGKILL)
        await until_reason(relays, "large", "downloading ")

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


CHECKS = """
import time
for at in range(100):
    print(f"downloaded 9 of 9 bytes, checked {at}", flush=True)
    time.sleep(0.05)
"""


class Checking:
    """Has everything at once, and then checks it for longer than a download may stand still."""

    def __init__(self) -> None:
        self.starts = 0

    def missing(self) -> Launch | None:
        self.starts += 1
        return Launch((sys.executable, "-c", CHECKS), dict(os.environ), explain)

    def progress(self, tail: Sequence[str]) -> Progress | None:
        return progress(tail)


async def test_a_download_that_is_checked_is_not_given_up(relays: Relays) -> None:
    checking = Checking()

    def make(name: str, config: BackendConfig) -> Engine:
        assert isinstance(config, LlamaCppConfig)
        made = FakeManaged(name, config)
        made.fetcher = checking
        return made

    async with running(relays, None, make, demo=managed(start_stall_s=2)):
        await relays.until_state("demo", State.READY)

    assert checking.starts == 1


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


async def test_a_change_of_the_configuration_counts_as_no_restart(
    relays: Relays, hub: FakeHub, repository: Path, make: Callable[[str, BackendConfig], Engine]
) -> None:
    """The end of the process before was news while the model was looked for, and counted as a failed start."""
    async with running(relays, None, make, demo=wanting()) as fleet:
        await relays.until_state("demo", State.READY)

        await fleet.reload({"demo": wanting(slots=7)})
        await relays.until_state("demo", State.READY, generation=2)

        assert only(fleet).restarts == 0
