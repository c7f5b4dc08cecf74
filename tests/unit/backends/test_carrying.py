"""Coroutines that run without a task for as long as they wait for nothing but an engine's response."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from backends.endpoint import Endpoint
from backends.errors import TimedOut
from backends.http.carrying import Carrier, in_task
from backends.http.connection import Connection
from backends.http.exchange import Exchange
from tests import ROOT

Said = list[Any]


class Pipe(asyncio.Transport):
    """A connection that nobody is at the other end of."""

    def abort(self) -> None:
        """Nothing happens."""


@pytest.fixture
async def exchange() -> Exchange:
    connection = Connection(lambda _: None)
    connection.connection_made(Pipe())
    return Exchange(Endpoint("engine", 1, "http://engine"), connection, lambda *_: None, "engine")


async def outside(call: Callable[[], object]) -> None:
    """Call it where no task runs, as the event loop does with what a socket brings."""
    done = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            call()
        except BaseException as exc:  # noqa: BLE001  # raised where it is awaited
            done.set_exception(exc)
        else:
            done.set_result(None)

    asyncio.get_running_loop().call_soon(run)
    await done


def answer(exchange: Exchange) -> None:
    exchange.on_head(200, {})
    exchange.on_news()


async def carry(coroutine: Coroutine[Any, Any, None], said: Said) -> Carrier:
    carrier = Carrier(coroutine, lambda _: said.append("over"))
    await outside(carrier.start)
    return carrier


async def test_it_goes_on_in_the_callback_that_brings_the_response(exchange: Exchange) -> None:
    said: Said = []

    async def work() -> None:
        said.append(asyncio.current_task())
        await exchange.head()
        said.append((exchange.status, asyncio.current_task()))

    await carry(work(), said)
    assert said == [None]
    await outside(lambda: answer(exchange))

    assert said == [None, (200, None), "over"]


async def test_what_waits_for_something_else_goes_on_in_a_task(exchange: Exchange) -> None:
    said: Said = []
    until = asyncio.get_running_loop().create_future()

    async def work() -> None:
        said.append(await until)
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
            said.append(asyncio.current_task() is not None)
        await exchange.head()
        said.append(exchange.status)

    await carry(work(), said)
    until.set_result("waited")
    await asyncio.sleep(0.01)
    answer(exchange)
    await asyncio.sleep(0.01)

    assert said == ["waited", True, 200, "over"]


async def test_what_fails_there_fails_in_the_coroutine() -> None:
    said: Said = []
    until = asyncio.get_running_loop().create_future()

    async def work() -> None:
        try:
            await until
        except OSError as exc:
            said.append(exc.errno)
            await asyncio.sleep(0)

    await carry(work(), said)
    until.set_exception(OSError(5, "x"))
    await asyncio.sleep(0.01)

    assert said == [5, "over"]


async def test_in_task_makes_one_where_there_is_none() -> None:
    said: Said = []

    async def work() -> None:
        await in_task()
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
            said.append(asyncio.current_task() is not None)

    await carry(work(), said)
    await asyncio.sleep(0.01)
    own = asyncio.current_task()
    await in_task()

    assert said == [True, "over"]
    assert asyncio.current_task() is own


@pytest.mark.parametrize("waits", ["exchange", "else"])
async def test_it_is_cancelled_where_it_waits(exchange: Exchange, waits: str) -> None:
    said: Said = []

    async def work() -> None:
        try:
            await (exchange.head() if waits == "exchange" else asyncio.sleep(60))
        except asyncio.CancelledError:
            said.append("cancelled")
            raise
        finally:
            exchange.close()

    carrier = await carry(work(), said)
    await outside(carrier.cancel)
    answer(exchange)  # too late: nobody is there
    await asyncio.sleep(0.01)

    assert said == ["cancelled", "over"]


async def test_one_that_is_cancelled_while_it_runs_ends_at_its_next_wait(exchange: Exchange) -> None:
    said: Said = []
    carrier: Carrier

    async def work() -> None:
        carrier.cancel()
        said.append("goes on")
        try:
            await exchange.head()
        except asyncio.CancelledError:
            said.append("cancelled")

    carrier = Carrier(work(), lambda _: said.append("over"))
    await outside(carrier.start)

    assert said == ["goes on", "cancelled", "over"]


async def test_it_is_cancelled_before_the_first_step_of_its_task() -> None:
    said: Said = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            said.append("cancelled")

    def run() -> None:
        early = Carrier(work(), lambda _: said.append("over"))
        early.start()
        early.cancel()

    await outside(run)
    await asyncio.sleep(0.01)

    assert said == ["cancelled", "over"]


async def test_one_that_is_cancelled_while_it_runs_ends_where_it_waits_for_something_else() -> None:
    said: Said = []
    carrier: Carrier

    async def work() -> None:
        carrier.cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            said.append("cancelled")

    carrier = Carrier(work(), lambda _: said.append("over"))
    await outside(carrier.start)
    await asyncio.sleep(0.01)

    assert said == ["cancelled", "over"]


async def test_who_cancels_it_from_a_task_does_not_lend_it_that_task(exchange: Exchange) -> None:
    said: Said = []

    async def work() -> None:
        try:
            await exchange.head()
        except asyncio.CancelledError:
            said.append(asyncio.current_task())

    carrier = await carry(work(), said)
    carrier.cancel()
    await asyncio.sleep(0.01)

    assert said == [None, "over"]


@pytest.mark.parametrize("waits", [False, True])
async def test_its_mistakes_are_not_those_of_whoever_brings_the_response(exchange: Exchange, waits: bool) -> None:
    said: Said = []

    async def work() -> None:
        await exchange.head()
        if waits:
            await asyncio.sleep(0)
        raise KeyError

    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(type(context["exception"])))
    carrier = await carry(work(), said)
    await outside(lambda: answer(exchange))
    await asyncio.sleep(0.01)

    assert said == [KeyError, "over"]
    assert carrier.has_failed


async def test_an_engine_that_is_given_up_by_a_task_does_not_lend_it_that_task(exchange: Exchange) -> None:
    said: Said = []

    async def work() -> None:
        try:
            await exchange.head()
        except TimedOut:
            said.append(asyncio.current_task())

    await carry(work(), said)
    exchange.look(asyncio.get_running_loop().time() + 10_000)  # in this test's own task
    assert said == []
    await asyncio.sleep(0.01)

    assert said == [None, "over"]


def test_what_needs_a_task_makes_sure_of_one() -> None:
    """`asyncio.timeout` takes the task that runs for its caller's."""
    files = [*(ROOT / "app/relay").rglob("*.py"), *(ROOT / "backends/http").glob("*.py")]
    without = [each for path in files for each in _without_task(path) if path.name != "probe_client.py"]

    assert without == []


def _without_task(path: Path) -> list[str]:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.AsyncFunctionDef)]
    return [
        f"{path.name}: {node.name}"
        for node in functions
        if any(word in ast.unparse(node) for word in ("asyncio.timeout(", "asyncio.TaskGroup("))
        and "await in_task()" not in ast.unparse(node)
    ]
