"""Engines that are found by a name: which address has which place, and a whole gateway that follows a name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.load import load_all
from app.config.settings import ServeOptions
from app.relay.server import relay
from app.shared_counters import SharedCounters, create
from app.supervisor.gateway import Gateway
from app.supervisor.replicas.discovery import Discovery, arranged, look_up
from app.supervisor.state_folder import StateFolder
from backends.config.base import BackendConfig
from backends.endpoint import State
from backends.remote.config import RemoteConfig
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, Reply, ask, chat, request

ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]
CHANGES: dict[str, tuple[Sequence[str], Collection[str], Sequence[str]]] = {
    "the first time in order": ((), {"10.0.0.10", "10.0.0.9", "::1"}, ("10.0.0.9", "10.0.0.10", "::1")),
    "nothing new": (("b", "a"), {"a", "b"}, ("b", "a")),
    "one goes, one comes": (("1.1.1.1", "2.2.2.2"), {"2.2.2.2", "3.3.3.3"}, ("3.3.3.3", "2.2.2.2")),
    "one comes": (("2.2.2.2",), {"1.1.1.1", "2.2.2.2"}, ("2.2.2.2", "1.1.1.1")),
    "the last goes": (("a", "b", "c"), {"a", "b"}, ("a", "b")),
    "the first goes, and the last has its place": (("a", "b", "c"), {"b", "c"}, ("c", "b")),
    "all but the last go": (("a", "b", "c"), {"c"}, ("c",)),
    "all others": (("1.1.1.1",), {"2.2.2.2", "3.3.3.3"}, ("2.2.2.2", "3.3.3.3")),
}


@pytest.mark.parametrize(("before", "current", "wanted"), CHANGES.values(), ids=CHANGES.keys())
def test_an_address_keeps_its_place(before: Sequence[str], current: Collection[str], wanted: Sequence[str]) -> None:
    assert arranged(before, current) == wanted


@given(st.lists(st.ip_addresses(v=4).map(str), unique=True, max_size=9), st.sets(st.integers(0, 8)), st.integers(0, 4))
def test_whatever_changes_everybody_found_has_one_place(before: list[str], gone: set[int], new: int) -> None:
    current = {address for at, address in enumerate(before) if at not in gone} | {f"::{at}" for at in range(1, new + 1)}

    places = arranged(before, current)

    assert len(places) == len(current)
    assert set(places) == current


async def test_the_systems_own_names_are_found() -> None:
    assert "127.0.0.1" in await look_up("127.0.0.1")


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.01)


class Names:
    """What a name server says; a test changes it and pokes."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = set(addresses)
        self.fails = False
        self.asked: list[str] = []

    async def look_up(self, host: str) -> Collection[str]:
        self.asked.append(host)
        if self.fails:
            raise socket.gaierror("no such name")
        return set(self.addresses)


async def test_it_ends_also_when_it_is_woken_in_the_same_moment() -> None:
    names = Names("10.0.0.1")
    discovery = Discovery(names.look_up)
    cloud: dict[str, BackendConfig] = {
        "cloud": RemoteConfig(kind="remote", url="http://engines.test:8000/v1", addresses="dns")
    }
    changed = asyncio.Event()

    async def told() -> None:
        changed.set()

    discovery.follow(cloud)
    following = asyncio.create_task(discovery.run(told))
    async with asyncio.timeout(20):
        await changed.wait()
        await asyncio.sleep(0.05)  # it waits now
        discovery.follow(cloud)
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait({following})

    assert following.cancelled()


async def test_a_name_that_fails_keeps_what_it_had() -> None:
    names = Names("10.0.0.1", "10.0.0.2")
    discovery = Discovery(names.look_up)
    cloud: dict[str, BackendConfig] = {
        "cloud": RemoteConfig(kind="remote", url="http://engines.test:8000/v1", addresses="dns")
    }
    changes: asyncio.Queue[BackendConfig] = asyncio.Queue()

    async def changed() -> None:
        changes.put_nowait(discovery.applied(cloud)["cloud"])

    assert discovery.applied(cloud) == cloud
    discovery.follow(cloud)
    following = asyncio.create_task(discovery.run(changed))
    async with asyncio.timeout(20):
        first = await changes.get()
        assert isinstance(first, RemoteConfig)
        assert first.addresses == ("10.0.0.1", "10.0.0.2")

        names.fails = True
        discovery.follow(cloud)
        await until(lambda: len(names.asked) == 2)
        names.fails, names.addresses = False, {"10.0.0.2"}
        discovery.follow(cloud)
        second = await changes.get()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert isinstance(second, RemoteConfig)
    assert second.addresses == ("10.0.0.2",)
    assert changes.empty()


# -- a whole gateway


class Followed:
    """A gateway whose one backend is a name, and the engines that the name may lead to."""

    def __init__(self, gateway: Gateway, names: Names, engines: Sequence[FakeEngine], url: str) -> None:
        self.gateway = gateway
        self.names = names
        self.engines = engines
        self.url = url

    async def ask(self, **fields: object) -> Reply:
        return await ask(self.url, "POST", "/v1/chat/completions", chat(**fields))  # type: ignore[arg-type]

    def states(self) -> dict[str, State]:
        return {backend.name: backend.state for backend in self.gateway.health().backends}

    async def until_ready(self, count: int) -> None:
        await until(lambda: [*self.states().values()] == [State.READY] * count)

    def has_sent(self, count: int) -> bool:
        return sum(len(engine.posts) for engine in self.engines) >= count

    async def served(self, count: int) -> list[int]:
        """How many of so many requests each engine got; every one is answered."""
        before = [len(engine.posts) for engine in self.engines]
        replies = [await self.ask() for _ in range(count)]
        assert [reply.status for reply in replies] == [200] * count
        return [len(engine.posts) - already for engine, already in zip(self.engines, before, strict=True)]


@contextlib.asynccontextmanager
async def following(tmp_path: Path, entry: str, *addresses: str) -> AsyncIterator[Followed]:
    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(FakeEngine())]
        port = engines[0].port
        others = [FakeEngine(port=port, host=host) for host in ADDRESSES[1:]]
        engines += [await stack.enter_async_context(other) for other in others]
        config = tmp_path / "modelport.yaml"
        entry = entry.replace("PORT", str(port))
        config.write_text(f"backends: {{cloud: {{kind: remote, {entry}}}}}\nmodels: {{fake: {{backend: cloud}}}}\n")
        options = ServeOptions(state=tmp_path / "state", config_path=config, env={})
        names = Names(*addresses)
        state = stack.enter_context(StateFolder(options.state))
        state.sweep()
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        gateway = Gateway(options, load_all(options), state, listener, Discovery(names.look_up, every_s=0.05))
        await gateway.relay_server.open(state.relay_socket, gateway.fleet)
        gateway.publish_again()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        tasks = [
            asyncio.create_task(gateway.fleet.run()),
            asyncio.create_task(gateway.follow_names()),
            asyncio.create_task(relay(listener, state.path, SharedCounters(create()))),
        ]
        try:
            yield Followed(gateway, names, engines, url)
        finally:
            tasks[1].cancel()
            await gateway.fleet.close(0)
            await gateway.relay_server.close()
            await asyncio.gather(*tasks, return_exceptions=True)


BY_NAME = 'url: "http://engines.test:PORT/v1", addresses: dns'
BY_URL = 'urls: ["http://127.0.0.1:PORT/v1", "http://127.0.0.2:PORT/v1", "http://127.0.0.3:PORT/v1"]'


@pytest.mark.parametrize("entry", [BY_NAME, BY_URL], ids=["by name", "by url"])
async def test_the_requests_are_shared_and_one_that_dies_leaves_and_comes_back(tmp_path: Path, entry: str) -> None:
    async with following(tmp_path, entry, *ADDRESSES[:3]) as cluster:
        await cluster.until_ready(3)
        assert list(cluster.states()) == ["cloud", "cloud#2", "cloud#3"]
        shares = await cluster.served(60)
        assert sum(shares) == 60
        assert min(shares[:3]) > 0
        assert shares[3] == 0

        cluster.engines[1].refuse()
        assert (await cluster.served(30))[1] == 0
        await until(lambda: cluster.states()["cloud#2"] is State.FAILED)

        cluster.engines[1].listen()
        await cluster.until_ready(3)
        assert (await cluster.served(60))[1] > 0


async def test_who_has_the_fewest_requests_gets_the_next(tmp_path: Path) -> None:
    async with following(tmp_path, BY_NAME, *ADDRESSES[:3]) as cluster, asyncio.timeout(60):
        await cluster.until_ready(3)
        body = json.dumps(chat("fake")).encode()
        for engine in cluster.engines:
            engine.script(default="never_answers")
        async with contextlib.AsyncExitStack() as stack:
            for count in range(1, 7):
                client = await stack.enter_async_context(Client(cluster.url))
                client.send(request("POST", "/v1/chat/completions", body))
                await until(partial(cluster.has_sent, count))
            assert [len(engine.posts) for engine in cluster.engines] == [2, 2, 2, 0]


async def test_the_engines_change_with_the_name_and_who_stays_is_left_alone(tmp_path: Path) -> None:
    async with following(tmp_path, BY_NAME, *ADDRESSES[:2]) as cluster:
        await cluster.until_ready(2)
        generation = {backend.name: backend.generation for backend in cluster.gateway.health().backends}

        cluster.names.addresses = {ADDRESSES[1], ADDRESSES[2], ADDRESSES[3]}
        await cluster.until_ready(3)

        shares = await cluster.served(60)
        assert shares[0] == 0
        assert min(shares[1:]) > 0
        after = {backend.name: backend.generation for backend in cluster.gateway.health().backends}
        assert after["cloud#2"] == generation["cloud#2"]

        cluster.names.addresses = {ADDRESSES[3]}
        await cluster.until_ready(1)
        assert await cluster.served(5) == [0, 0, 0, 5]


async def test_every_engine_is_asked_under_the_name(tmp_path: Path) -> None:
    async with following(tmp_path, BY_NAME, *ADDRESSES[:3]) as cluster:
        await cluster.until_ready(3)
        await cluster.served(30)

        hosts = {dict(record.headers)["host"] for engine in cluster.engines for record in engine.requests}
        assert hosts == {f"engines.test:{cluster.engines[0].port}"}
