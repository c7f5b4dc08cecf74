"""What a PostgreSQL server does to us: it hangs, dies, comes back, refuses; no call waits for long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest

from app.store import postgresql_url, schema
from app.store.database import StoreDown, StoreError
from app.store.postgresql import MOST_CONNECTIONS, PostgresDatabase
from tests.rigs.postgres import PostgresServer

ROW = "INSERT INTO gateways (id, life, name, version, started, seen) VALUES ($1, '', '', '', 0, 0)"
# Nothing is asserted about it.
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that the tests of this file stop and kill."""
    with PostgresServer() as server:
        yield server


@asynccontextmanager
async def opened(url: str, timeout_s: float = 30.0) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url, timeout_s)
    try:
        yield database
    finally:
        await database.aclose()


async def test_a_server_that_hangs_is_given_up_in_time_and_used_again_later(server: PostgresServer) -> None:
    """Connections that were open, new ones, and transactions: each call ends by itself."""
    async with opened(server.database(), 0.3) as database, asyncio.timeout(PATIENCE_S):
        await settled(database)

        async def begun() -> None:
            async with database.transaction() as statements:
                await statements.execute(ROW, "a")
                server.pause()
                await statements.execute(ROW, "b")

        try:
            with pytest.raises(StoreDown, match=r"127.0.0.1:\d+/modelport_\d+ did not answer within 0.3 s"):
                await begun()
            results = await asyncio.gather(*(database.fetch("SELECT 1") for _ in range(12)), return_exceptions=True)
        finally:
            server.resume()

        assert {type(result) for result in results} == {StoreDown}
        assert await again(database) == []


async def settled(database: PostgresDatabase) -> None:
    """The tables are there, however slow this machine is."""
    async with opened(database._url) as patient:
        await schema.migrate(patient)
        assert await again(database) == []


async def again(database: PostgresDatabase) -> list[str]:
    """The gateways that are in the store, once it responds."""
    while True:
        try:
            return [row["id"] for row in await database.fetch("SELECT id FROM gateways")]
        except StoreDown:
            await asyncio.sleep(0.02)


async def test_a_server_that_was_killed_is_used_again_once_it_is_back(server: PostgresServer) -> None:
    async with opened(server.database()) as database, asyncio.timeout(PATIENCE_S):
        await schema.migrate(database)
        await database.execute(ROW, "a")
        server.kill()
        with pytest.raises(StoreDown):
            await database.fetch("SELECT id FROM gateways")
        with pytest.raises(StoreDown, match=r"refused|Connect call failed"):
            await database.fetch("SELECT id FROM gateways")
        server.start()

        assert await again(database) == ["a"]


async def test_whoever_listens_is_told_that_something_may_have_been_missed(server: PostgresServer) -> None:
    url = server.database()
    async with opened(url) as database, opened(url) as other, asyncio.timeout(PATIENCE_S):
        told: asyncio.Queue[str] = asyncio.Queue()
        database.listen(told.put_nowait)
        first = await told.get()
        await other.notify("keys")
        second = await told.get()
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        third = await told.get()

        assert (first, second, third) == ("", "keys", "")


async def test_however_many_ask_at_once_there_are_only_so_many_connections(server: PostgresServer) -> None:
    url = server.database()
    async with opened(url) as database, asyncio.timeout(PATIENCE_S):
        await schema.migrate(database)

        async def ask(number: int) -> None:
            async with database.transaction() as statements:
                await statements.execute(ROW, str(number))
                await statements.fetch("SELECT pg_sleep(0.005)")

        await asyncio.gather(*(ask(number) for number in range(60)))
        count = server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'modelport'", "postgres")

        assert 1 <= int(count) <= MOST_CONNECTIONS
        assert len(await again(database)) == 60


async def test_two_that_wait_for_each_other_are_told_apart_by_the_server(server: PostgresServer) -> None:
    async with opened(server.database()) as database, asyncio.timeout(PATIENCE_S):
        await schema.migrate(database)
        await database.many(ROW, [("a",), ("b",)])
        both = asyncio.Barrier(2)

        async def lock(*ids: str) -> None:
            async with database.transaction() as statements:
                await statements.execute("UPDATE gateways SET seen = 1 WHERE id = $1", ids[0])
                await both.wait()
                await statements.execute("UPDATE gateways SET seen = 1 WHERE id = $1", ids[1])

        results = await asyncio.gather(lock("a", "b"), lock("b", "a"), return_exceptions=True)
        lost = [result for result in results if isinstance(result, StoreDown)]

        assert [result for result in results if result not in lost] == [None]
        assert [("deadlock detected" in each.reason, each.may_be_done) for each in lost] == [(True, False)]
        assert sorted(await again(database)) == ["a", "b"]


async def test_whether_a_commit_came_through_is_not_pretended_to_be_known(server: PostgresServer) -> None:
    async with opened(server.database(), 0.5) as database, asyncio.timeout(PATIENCE_S):
        await settled(database)

        async def commit() -> None:
            async with database.transaction() as statements:
                await statements.execute(ROW, "a")
                server.pause()

        try:
            with pytest.raises(StoreDown) as lost:
                await commit()
        finally:
            server.resume()

        assert lost.value.may_be_done


async def test_a_call_that_is_cancelled_leaves_neither_work_nor_a_connection(server: PostgresServer) -> None:
    url = server.database()
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'modelport' AND state = 'active'"
    async with opened(url) as database, asyncio.timeout(PATIENCE_S):
        call = asyncio.create_task(database.fetch("SELECT pg_sleep(20)"))
        while server.sql(busy, "postgres") == "0":  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        assert call.cancelled()
        assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert await database.fetch("SELECT 1 AS one") == [{"one": 1}]


async def test_an_argument_of_a_wrong_type_is_our_mistake_and_no_outage(server: PostgresServer) -> None:
    async with opened(server.database()) as database:
        await schema.migrate(database)

        with pytest.raises(StoreError) as refused:
            await database.execute(ROW, 5)

        assert not isinstance(refused.value, StoreDown)


async def test_a_database_that_is_not_there_is_said_without_the_password(server: PostgresServer) -> None:
    url = server.url("nowhere").replace("unused", "hidden%20word")
    async with opened(url) as database:
        with pytest.raises(StoreDown, match='database "nowhere" does not exist') as down:
            await database.fetch("SELECT 1")

    assert "hidden" not in f"{down.value} {down.value.reason} {database!r}"


@pytest.mark.parametrize(
    ("url", "place", "has_password"),
    [
        ("postgresql://modelport:secret@db:5432/team?sslmode=require", "db:5432/team", True),
        ("postgres://modelport@db/team", "db/team", False),
        ("postgresql://u:p@a:1,b:2/team", "a:1,b:2/team", True),
        ("postgresql://u:p%40x@[::1]:5432/", "[::1]:5432", True),
        ("postgresql:///team?host=/run/postgresql&password=x", "/run/postgresql/team", True),
    ],
)
def test_of_a_url_only_the_place_is_shown(url: str, place: str, has_password: bool) -> None:
    assert postgresql_url.place(url) == place
    assert postgresql_url.has_password(url) is has_password
    assert postgresql_url.trouble(url) is None


@pytest.mark.parametrize("mark", ["/", "?", "#", "@", "[", "/1", "@1:"])
def test_a_password_that_is_not_written_as_urls_need_it_is_shown_nowhere(mark: str) -> None:
    url = f"postgresql://u:hidden{mark}word@db:5432/team"

    assert "%2F" in (postgresql_url.trouble(url) or "")
    assert postgresql_url.place(url) == "PostgreSQL"


async def test_a_port_that_cannot_be_is_an_error_of_the_store() -> None:
    url = "postgresql://u:hidden@127.0.0.1:99999/team"

    assert postgresql_url.trouble(url) == "has a port that is not between 1 and 65535"
    with pytest.raises(StoreError):
        await PostgresDatabase(url).fetch("SELECT 1")


@pytest.mark.parametrize(
    ("url", "env", "names"),
    [
        ("postgresql://u:p@a:1,b,10.0.0.1:2,[::1]:5/team", {}, ("a", "b")),
        ("postgresql:///team?host=/run/postgresql", {}, ()),
        ("postgresql://%2Frun%2Fpostgresql/team", {}, ()),
        ("postgresql:///team?host=db", {"PGHOST": "other"}, ("db",)),
        ("postgresql:///team", {"PGHOST": "other"}, ("other",)),
        ("postgresql:///team", {}, ()),
    ],
)
def test_names_of_hosts_are_looked_up_and_nothing_else(url: str, env: dict[str, str], names: tuple[str, ...]) -> None:
    assert postgresql_url.names(url, env) == names


async def test_a_name_server_that_hangs_keeps_none_of_the_threads_that_others_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs, asked = threading.Event(), []

    def lookup(name: str, *_args: object) -> NoReturn:
        asked.append(threading.current_thread().name)
        hangs.wait(60)
        raise OSError(f"{name} was not looked up")

    monkeypatch.setattr("socket.getaddrinfo", lookup)
    database = PostgresDatabase("postgresql://u@db.invalid/team", 0.02)
    database.listen(repr)
    for _ in range(40):
        with pytest.raises(StoreDown, match=r"db\.invalid"):
            await database.fetch("SELECT 1")
    async with asyncio.timeout(20):
        await asyncio.to_thread(hangs.is_set)
        await database.aclose()
    hangs.set()

    assert asked == ["store name"]
