"""Adapters: public names of their own, loaded with every start, loaded and unloaded while the engine runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config.model import Config
from app.supervisor.admin.schemas import AdaptersAnswer
from app.supervisor.admin.views import models
from app.supervisor.fleet import retry_failed
from app.supervisor.relays import build_table
from app.table import Backend, Target
from backends.config.base import BackendConfig
from backends.endpoint import Endpoint, State
from backends.engine import Adapters, Engine, Proof
from backends.errors import EngineFailed, NoEffect, NotFinite
from backends.llama_cpp.config import LlamaCppConfig
from tests.rigs.fleet import FakeManaged, Relays, one, running


class AdaptedConfig(LlamaCppConfig):
    def adapter_paths(self) -> dict[str, str]:
        return {"law": "/law", "broken": "/broken"}


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - nobody tells of what is waited for
            await asyncio.sleep(0.01)


class Shelf:
    """What each start of an engine has loaded."""

    def __init__(self) -> None:
        self.has: dict[tuple[str, int], dict[str, str]] = {}
        self.proved: list[str] = []
        self.spoilt_by: tuple[str | None, ...] = ()

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        if "broken" in path:
            raise EngineFailed(endpoint.engine, "it has no adapter_config.json")
        self.has.setdefault((endpoint.engine, endpoint.generation), {})[name] = path

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        self.has.get((endpoint.engine, endpoint.generation), {}).pop(name, None)

    async def listed(self, endpoint: Endpoint) -> tuple[str, ...]:
        return tuple(self.has[endpoint.engine, endpoint.generation])

    async def prove(self, endpoint: Endpoint, name: str) -> Proof:
        path = self.has[endpoint.engine, endpoint.generation][name]
        self.proved.append(name)
        if self.spoilt_by:
            [by], self.spoilt_by = self.spoilt_by, ()
            raise NotFinite(endpoint.engine, "it answers no numbers", by)
        if "nothing" in path:
            raise NoEffect(endpoint.engine, f"the adapter {name!r} is loaded, but it does nothing")
        if "nan" in path:
            raise NotFinite(endpoint.engine, f"the adapter {name!r} answers no numbers", name)
        return Proof(why_not="it gives no log-probabilities") if "unclear" in path else Proof(0.5, 0.01)


class Adapted(FakeManaged):
    def __init__(self, name: str, config: LlamaCppConfig, shelf: Shelf) -> None:
        super().__init__(name, config)
        self.adapters: Adapters | None = shelf


def adapted(shelf: Shelf, name: str, config: BackendConfig) -> Engine:
    assert isinstance(config, LlamaCppConfig)
    return Adapted(name, config, shelf)


def config(**values: object) -> AdaptedConfig:
    return AdaptedConfig.model_validate({"kind": "llama_cpp", "model": "plain", **values})


async def test_adapters_are_loaded_before_their_engine_serves_and_again_after_every_start() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        row = await relays.until_state("a", State.READY)
        assert shelf.has["a", 1] == {"law": "/law"}
        assert row.adapters["law"] is None
        assert str(row.adapters["broken"]).startswith("it has no adapter_config.json; it is tried again at ")

        await fleet.load_adapter("a", "poems", "/poems")
        assert relays.row("a").adapters["poems"] is None
        pid = one(fleet, "a").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await relays.until_state("a", State.READY, generation=2)

        assert shelf.has["a", 2] == {"law": "/law", "poems": "/poems"}
        law, broken, poems = fleet.adapters("a")
        assert [(each.name, each.path, each.reason) for each in (law, poems)] == [
            ("law", "/law", None),
            ("poems", "/poems", None),
        ]
        assert [[record.verdict for record in each.records] for each in (law, broken, poems)] == [
            ["proved"],
            ["failed"],
            ["proved"],
        ]
        assert str(broken.reason).endswith("`modelport adapters load a broken FOLDER` at once")


async def test_one_that_does_nothing_is_unloaded_and_its_name_is_never_public() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)

        with pytest.raises(EngineFailed, match="is loaded, but it does nothing"):
            await fleet.load_adapter("a", "poems", "/nothing")

        assert shelf.has["a", 1] == {"law": "/law"}
        assert all("poems" not in rows["a"].adapters for rows in relays.published)
        assert fleet.status()[0].adapters.loads == {"proved": 1, "failed": 2}
        assert fleet.status()[0].adapters.missing == 1


async def test_one_that_replaces_another_is_proved_under_another_name() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)

        with pytest.raises(EngineFailed, match="does nothing"):
            await fleet.load_adapter("a", "law", "/nothing")
        assert shelf.has["a", 1] == {"law": "/law"}
        await fleet.load_adapter("a", "law", "/better")

        assert shelf.has["a", 1] == {"law": "/better"}
        assert shelf.proved == ["law", "law (trial)", "law (trial)"]
        assert relays.row("a").adapters["law"] is None


async def test_one_that_answers_no_numbers_has_its_engine_started_anew_without_it() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)

        with pytest.raises(NotFinite, match="answers no numbers"):
            await fleet.load_adapter("a", "poems", "/nan")
        row = await relays.until_state("a", State.READY, generation=2)

        assert shelf.has["a", 2] == {"law": "/law"}
        assert "poems" not in row.adapters
        lost = next(
            rows["a"].reason for rows in relays.published if rows["a"].state is State.STARTING and rows["a"].reason
        )
        assert lost == "the adapter 'poems' answers no numbers, so it is started anew"


class SpoiltConfig(LlamaCppConfig):
    def adapter_paths(self) -> dict[str, str]:
        return {"law": "/law", "bad": "/nan"}


async def test_one_that_spoils_its_engine_at_the_start_is_not_tried_at_the_next() -> None:
    relays, shelf = Relays(), Shelf()
    spoilt = SpoiltConfig.model_validate({"kind": "llama_cpp", "model": "plain"})
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=spoilt) as fleet:
        row = await relays.until_state("a", State.READY)

        assert one(fleet, "a").generation == 2
        assert shelf.proved == ["law", "bad", "law"]
        assert str(row.adapters["bad"]).startswith(
            "the adapter 'bad' answers no numbers; it is tried again when its folder changes: "
        )
        assert row.adapters["law"] is None


@pytest.mark.parametrize(("by", "has"), [("law", {}), (None, {"law": "/law"})])
async def test_an_engine_that_has_answered_no_numbers_is_proved_again(
    by: str | None, has: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an adapter that does it the engine is started anew, without that adapter; without a known one, with all."""
    monkeypatch.setattr(retry_failed, "LOOK_S", 0.02)
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)
        fleet.failing("a", 1, is_not_finite=True)
        await until(lambda: len(shelf.proved) == 2)
        assert relays.row("a").state is State.READY, "it was sound"

        shelf.spoilt_by = (by,)
        fleet.failing("a", 1, is_not_finite=True)
        await until(lambda: not shelf.spoilt_by)
        await relays.until_state("a", State.READY, generation=2)

        assert shelf.has.get(("a", 2), {}) == has


async def test_a_model_that_computes_no_numbers_by_itself_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_failed, "LOOK_S", 0.02)
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=plain()) as fleet:
        await relays.until_state("a", State.READY)

        fleet.failing("a", 1, is_not_finite=True)
        await asyncio.sleep(0.1)

        assert (one(fleet, "a").generation, one(fleet, "a").state) == (1, State.READY)
        assert shelf.proved == []


async def test_one_whose_proof_is_off_is_served_unproved() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)

        await fleet.load_adapter("a", "poems", "/nothing", is_proved=False)
        os.kill(one(fleet, "a").pid or 0, signal.SIGKILL)
        await relays.until_state("a", State.READY, generation=2)

        assert shelf.has["a", 2] == {"law": "/law", "poems": "/nothing"}
        assert shelf.proved == ["law", "poems", "law", "poems"], "it must answer numbers all the same"
        assert [record.verdict for record in fleet.adapters("a")[2].records] == ["off"]


async def test_one_that_cannot_be_compared_is_served_and_said_so() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)

        await fleet.load_adapter("a", "poems", "/unclear")

        assert relays.row("a").adapters["poems"] is None
        told = AdaptersAnswer.of("a", fleet.adapters("a")).adapters[2].proof
        assert told is not None
        assert (told.verdict, told.effect, told.why_not) == ("unclear", None, "it gives no log-probabilities")


async def test_an_adapter_is_unloaded_and_stays_away() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)

        await fleet.unload_adapter("a", "law")

        assert "law" not in relays.row("a").adapters
        assert shelf.has["a", 1] == {}
        with pytest.raises(KeyError):
            await fleet.unload_adapter("a", "law")


async def test_an_adapter_that_the_engine_refuses_changes_nothing() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        before = (await relays.until_state("a", State.READY)).adapters

        with pytest.raises(EngineFailed, match=r"no adapter_config\.json"):
            await fleet.load_adapter("a", "worse", "/broken/too")
        with pytest.raises(EngineFailed):
            await fleet.load_adapter("a", "law", "/broken/too")

        assert relays.row("a").adapters == before
        assert fleet.adapters("a")[0].path == "/law"


async def test_every_replica_gets_it() -> None:
    relays, shelf = Relays(), Shelf()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config(replicas=2)) as fleet:
        await relays.until_state("a#2", State.READY)

        await fleet.load_adapter("a", "poems", "/poems")

        assert shelf.has["a", 1] == shelf.has["a#2", 1] == {"law": "/law", "poems": "/poems"}


async def test_an_engine_that_takes_none_says_so() -> None:
    relays = Relays()
    async with running(relays, a=config()) as fleet:
        await relays.until_state("a", State.READY)

        with pytest.raises(EngineFailed, match="takes no adapters"):
            await fleet.load_adapter("a", "poems", str(Path("poems")))


class Slow(Shelf):
    """Does its work when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_load, self.began = asyncio.Event(), asyncio.Event()
        self.refuses: set[str] = set()
        self.unloaded: list[str] = []

    async def load(self, endpoint: Endpoint, name: str, path: str) -> None:
        self.began.set()
        await self.may_load.wait()
        if endpoint.engine in self.refuses:
            raise EngineFailed(endpoint.engine, "its memory is not enough")
        await super().load(endpoint, name, path)

    async def unload(self, endpoint: Endpoint, name: str) -> None:
        self.unloaded.append(f"{endpoint.engine}:{name}")
        await super().unload(endpoint, name)


def plain(**values: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": "plain", **values})


async def test_when_one_replica_refuses_none_has_it() -> None:
    """The first used to have it, the second not; the command said that nothing had changed."""
    relays, shelf = Relays(), Slow()
    shelf.may_load.set()
    shelf.refuses.add("a#3")
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=plain(replicas=3)) as fleet:
        for name in ("a", "a#2", "a#3"):
            await relays.until_state(name, State.READY)

        with pytest.raises(EngineFailed, match="its memory is not enough") as refused:
            await fleet.load_adapter("a", "poems", "/poems")

        assert refused.value.engine == "a#3"
        assert all(not has for has in shelf.has.values())
        assert all(relays.row(name).adapters == {} for name in ("a", "a#2", "a#3"))
        assert fleet.adapters("a") == []


async def test_when_one_replica_refuses_another_folder_all_keep_the_one_before() -> None:
    relays, shelf = Relays(), Slow()
    shelf.may_load.set()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=plain(replicas=2)) as fleet:
        for name in ("a", "a#2"):
            await relays.until_state(name, State.READY)
        await fleet.load_adapter("a", "poems", "/old")
        shelf.refuses.add("a#2")

        with pytest.raises(EngineFailed):
            await fleet.load_adapter("a", "poems", "/new")

        assert shelf.has["a", 1] == {"poems": "/old"}
        assert [each.path for each in fleet.adapters("a")] == ["/old"]


async def test_nobody_is_led_to_an_adapter_before_every_replica_has_it() -> None:
    relays, shelf = Relays(), Slow()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=plain(replicas=2)) as fleet:
        for name in ("a", "a#2"):
            await relays.until_state(name, State.READY)

        loading = asyncio.create_task(fleet.load_adapter("a", "poems", "/poems"))
        await shelf.began.wait()
        fleet.leases_changed()
        assert relays.row("a").adapters == relays.row("a#2").adapters == {}
        shelf.may_load.set()
        await loading

        assert relays.row("a").adapters == relays.row("a#2").adapters == {"poems": None}


async def test_an_adapter_that_is_unloaded_while_its_engine_starts_does_not_end_the_start() -> None:
    """The start's own list of adapters lost a name under its hands: a KeyError, and the start counted as failed."""
    relays, shelf = Relays(), Slow()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await shelf.began.wait()

        for name in ("law", "broken"):
            await fleet.unload_adapter("a", name)
        shelf.may_load.set()
        row = await relays.until_state("a", State.READY)

        assert row.adapters == {}
        assert shelf.has.get(("a", 1), {}) == {}
        assert one(fleet, "a").restarts == 0


async def test_an_adapter_that_is_loaded_while_an_engine_starts_is_there_when_it_serves() -> None:
    relays, shelf = Relays(), Slow()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await shelf.began.wait()

        await fleet.load_adapter("a", "poems", "/poems")
        shelf.may_load.set()
        row = await relays.until_state("a", State.READY)

        assert row.adapters["poems"] is None
        assert shelf.has["a", 1] == {"law": "/law", "poems": "/poems"}


@pytest.mark.parametrize("user", ["a", "a#2"])
async def test_an_adapter_is_forgotten_when_the_last_request_that_uses_it_is_over(user: str) -> None:
    relays, shelf = Relays(), Slow()
    shelf.may_load.set()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config(replicas=2)) as fleet:
        for name in ("a", "a#2"):
            await relays.until_state(name, State.READY)
        relays.leases[f"{user}/law", -1] = 1
        relays.leases["a", 1] = 3  # others, that use the model without it

        unloading = asyncio.create_task(fleet.unload_adapter("a", "law"))
        await relays.until(lambda: "law" not in relays.row("a").adapters)
        await asyncio.sleep(0.2)
        assert shelf.unloaded == []
        del relays.leases[f"{user}/law", -1]
        await unloading

        assert shelf.unloaded == ["a:law", "a#2:law"]
        relays.leases.clear()
        fleet.leases_changed()


async def test_a_request_that_uses_an_adapter_for_too_long_does_not_keep_it() -> None:
    relays, shelf = Relays(), Slow()
    shelf.may_load.set()
    async with running(relays, None, lambda *made: adapted(shelf, *made), a=config()) as fleet:
        await relays.until_state("a", State.READY)
        relays.leases["a/law", -1] = 1
        fleet.drain_s = 0.1

        await fleet.unload_adapter("a", "law")

        assert shelf.unloaded == ["a:law"]


def test_a_name_of_the_file_comes_before_an_adapter_that_was_ordered() -> None:
    rows = {"gpu": Backend("gpu", "llama_cpp", State.READY, adapters={"base": None})}

    assert build_table.build(CONFIG, rows, 1).models["base"].parent is None


CONFIG = Config.model_validate(
    {
        "backends": {"gpu": {"kind": "llama_cpp", "model": "x.gguf", "replicas": 2}},
        "models": {"base": {"backend": "gpu"}},
    }
)


def row(name: str, law: str | None, state: State = State.READY) -> Backend:
    return Backend(name, "llama_cpp", state, can_start=True, adapters={"law": law})


def test_an_adapter_is_a_model_with_a_parent() -> None:
    table = build_table.build(CONFIG, {"gpu": row("gpu", None), "gpu#2": row("gpu#2", None)}, 1)

    assert table.models["law"].targets == (Target("gpu", "law"), Target("gpu#2", "law"))
    assert [(model.name, model.parent) for model in models(table)] == [("base", None), ("law", "base")]


def test_an_adapter_leads_only_to_engines_that_have_it_or_are_still_to_start() -> None:
    rows = {"gpu": row("gpu", "it is broken"), "gpu#2": row("gpu#2", "it is broken", State.STARTING)}

    assert build_table.build(CONFIG, rows, 1).models["law"].targets == (Target("gpu#2", "law"),)


def test_an_adapter_that_no_engine_has_leads_to_the_reason() -> None:
    rows = {"gpu": row("gpu", "it is broken"), "gpu#2": row("gpu#2", "it is broken")}

    [base, law] = models(build_table.build(CONFIG, rows, 1))

    assert (law.state, law.reason) == (State.FAILED, "it is broken")
    assert base.state is State.READY


def test_it_is_told_how_many_engines_of_a_name_serve() -> None:
    rows = {
        "gpu": Backend("gpu", "vllm", State.READY, models=("gpu", "law"), adapters={"law": None}),
        "gpu#2": Backend("gpu#2", "vllm", State.READY, models=("gpu",), adapters={"law": "its rank is too high"}),
        "gpu#3": Backend("gpu#3", "vllm", State.STARTING, adapters={"law": None}),
    }
    config = CONFIG.model_copy(update={"backends": {"gpu": CONFIG.backends["gpu"].model_copy(update={"replicas": 3})}})

    [base, law] = models(build_table.build(config, rows, 1))

    assert (base.serving, base.engines) == (2, 3)
    assert (law.serving, law.engines) == (1, 3)
