"""What was given up for is tried again when its files are mended; until then everybody is told the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.config.model import Config
from app.supervisor.admin.views import models
from app.supervisor.fleet import retry_failed
from app.supervisor.relays import build_table
from app.supervisor.replicas import adapters
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.engine import Adapters, Engine, Launch, Proof
from backends.errors import EngineFailed
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import BadModel
from backends.process.exit_reasons import Settled
from tests.rigs.fleet import FakeManaged, Relays, managed, one, only, running

CONFIG = Config.model_validate(
    {"backends": {"a": {"kind": "llama_cpp", "model": "x.gguf"}}, "models": {"chat": {"backend": "a"}}}
)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_failed, "LOOK_S", 0.02)


class FromFile(FakeManaged):
    """Starts when its file says that it is good."""

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        path = Path(self._config.model)
        if not path.exists() or path.read_text() != "good":
            raise BadModel(self.name, "the model file is broken", path)
        self._config = managed()
        return super().launch(port, devices, key)

    def inputs(self) -> Sequence[Path]:
        return (self._path,)

    def __init__(self, name: str, config: LlamaCppConfig) -> None:
        super().__init__(name, config)
        self._path = Path(config.model)


def from_file(name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return FromFile(name, config)


Mend = Callable[[Path], object]
MENDINGS: dict[str, tuple[Mend, Mend]] = {
    "the file was cut": (lambda file: file.write_text("cu"), lambda file: file.write_text("good")),
    "the file was not there": (lambda file: None, lambda file: file.write_text("good")),
    "another file takes its name": (
        lambda file: file.write_text("evil"),
        lambda file: Path(f"{file}.new").write_text("good") and Path(f"{file}.new").rename(file),
    ),
}


@pytest.mark.parametrize("how", MENDINGS)
async def test_an_engine_on_demand_is_started_by_the_next_request_once_its_file_is_mended(
    how: str, tmp_path: Path
) -> None:
    """It used to stay failed for ten minutes, and every request was told to come back in 60 s."""
    breaks, mends = MENDINGS[how]
    relays, file = Relays(), tmp_path / "model.gguf"
    breaks(file)
    async with running(relays, None, from_file, a=managed(str(file), start="demand")) as fleet:
        outcome = await fleet.wanted("a")
        row = relays.row("a")
        assert not outcome.is_ready
        assert (row.state, row.is_given_up, row.can_start) == (State.FAILED, True, False)
        assert row.tries_at is not None

        mends(file)
        await relays.until(lambda: relays.row("a").can_start)

        assert not relays.row("a").is_given_up
        assert str(relays.row("a").reason).endswith("the next request tries again")
        assert (await fleet.wanted("a")).is_ready


async def test_an_engine_that_starts_at_boot_starts_by_itself_once_its_file_is_mended(tmp_path: Path) -> None:
    relays, file = Relays(), tmp_path / "model.gguf"
    async with running(relays, None, from_file, a=managed(str(file))):
        await relays.until_state("a", State.FAILED)

        file.write_text("good")

        await relays.until_state("a", State.READY)


async def test_a_failed_engine_whose_files_stay_as_they_are_is_left_alone(tmp_path: Path) -> None:
    relays = Relays()
    async with running(relays, None, from_file, a=managed(str(tmp_path / "no.gguf"))) as fleet:
        await relays.until_state("a", State.FAILED)
        unchanged = len(relays.published)
        looks = retry_failed.RetryFailed(fleet._event_loop.everyone, fleet._event_loop.turn)
        for unit in fleet._event_loop.everyone():
            for _ in range(5):
                await looks._look(unit)

        assert len(relays.published) == unchanged
        assert only(fleet).state is State.FAILED


@pytest.mark.parametrize("name", ["a", "my model"])
async def test_models_and_status_say_until_when_and_which_command_helps(name: str, tmp_path: Path) -> None:
    relays = Relays()
    backends: dict[str, Any] = {name: managed(str(tmp_path / "no.gguf"))}
    async with running(relays, None, from_file, **backends) as fleet:
        row = await relays.until_state(name, State.FAILED)
        status = only(fleet)
    config = Config.model_validate(
        {"backends": {name: {"kind": "llama_cpp", "model": "x.gguf"}}, "models": {"chat": {"backend": name}}}
    )
    [model] = models(build_table.build(config, {name: row}, 1))

    for told in (model.reason, status.reason):
        assert "it has given up until " in str(told)
        assert ("`modelport start 'my model'`" if " " in name else "`modelport start a`") in str(told)


async def test_a_held_engine_names_the_command_that_starts_it() -> None:
    relays = Relays()
    async with running(relays, a=managed()) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a", 1] = 1
        fleet.leases_changed()

        await fleet.stop("a")
        stopping = await relays.until_state("a", State.STOPPING)
        relays.leases.clear()
        fleet.leases_changed()
        stopped = await relays.until_state("a", State.STOPPED)

        assert stopping.reason == "it is being stopped by hand: `modelport start a` starts it again"
        assert stopped.reason == "it was stopped by hand: `modelport start a` starts it"
        assert stopping.is_given_up
        assert stopped.is_given_up
        assert stopped.tries_at is None


class Refusing(FakeManaged):
    """Ends because of its configuration."""

    def launch(self, port: int, devices: Sequence[str], key: str) -> Launch:
        made = super().launch(port, devices, key)
        return replace(made, explain=lambda code, tail, has_served=False: Settled("`max_model_len` is too long"))


def refusing(name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return Refusing(name, config)


async def test_a_mistake_of_the_configuration_is_not_tried_again_like_a_crash() -> None:
    """Each of five starts used to take a minute, and every request waited for all of them."""
    relays = Relays()
    broken = managed("--exit-after-s 0 --exit-code 1 --load-s 0")
    async with running(relays, None, refusing, a=broken) as fleet:
        outcome = await fleet.wanted("a")

        assert str(outcome.reason).startswith("`max_model_len` is too long; it has given up until ")
        assert only(fleet).generation == 1
        assert only(fleet).restarts == 0


class AdaptedConfig(LlamaCppConfig):
    folder: str

    def adapter_paths(self) -> dict[str, str]:
        return {"law": self.folder}


class Shelf:
    """Takes adapters whose folder is there."""

    def __init__(self) -> None:
        self.tries = 0

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        self.tries += 1
        if not Path(path).is_dir():  # noqa: ASYNC240
            raise EngineFailed(endpoint.engine, "it has no adapter_config.json")

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        """Nothing to forget."""

    async def listed(self, endpoint: Endpoint) -> tuple[str, ...]:
        return ()

    async def prove(self, endpoint: Endpoint, name: str) -> Proof:
        return Proof(0.5)


def with_shelf(shelf: Shelf) -> Callable[[str, BackendConfig], Engine]:
    def make(name: str, config: BackendConfig) -> Engine:
        assert isinstance(config, LlamaCppConfig)
        made = FakeManaged(name, config)
        made.adapters = held
        return made

    held: Adapters = shelf
    return make


def adapted(folder: Path) -> AdaptedConfig:
    return AdaptedConfig.model_validate({"kind": "llama_cpp", "model": "plain", "folder": str(folder)})


async def test_an_adapter_is_loaded_once_its_folder_is_mended(tmp_path: Path) -> None:
    """A client used to be told `Retry-After: 5` for ever."""
    relays, shelf, folder = Relays(), Shelf(), tmp_path / "law"
    async with running(relays, None, with_shelf(shelf), a=adapted(folder)) as fleet:
        row = await relays.until_state("a", State.READY)
        given_up = build_table.build(CONFIG, {"a": row}, 1).backends["a/law"]
        assert given_up.is_given_up
        assert given_up.tries_at is not None
        assert "`modelport adapters load a law FOLDER`" in str(given_up.reason)
        assert shelf.tries == 1

        folder.mkdir()
        await relays.until(lambda: relays.row("a").adapters == {"law": None})

        assert one(fleet, "a").generation == 1
        assert "a/law" not in build_table.build(CONFIG, {"a": relays.row("a")}, 1).backends


async def test_an_adapter_is_tried_again_when_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "REST_S", 0.05)
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, with_shelf(shelf), a=adapted(tmp_path / "no")):
        await relays.until_state("a", State.READY)

        await relays.until(lambda: shelf.tries >= 3)

        assert relays.row("a").adapters_due["law"] > 0
