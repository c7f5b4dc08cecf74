"""Each row of the route table gives the access that it promises, over a real relay; and nothing is served beside it."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from app.keys import digest
from app.relay.compare.compare_api import CompareApi
from app.relay.http.origin_check import OriginRule
from app.relay.http.request import Request
from app.relay.routes import access
from app.relay.routes.foreign_apis import ForeignApis
from app.relay.routes.gateway_api import GatewayApi, ready
from app.relay.routes.openai_api import OpenAIApi
from app.relay.routes.page_files import PageFiles
from app.relay.routes.route import ANY_METHOD, READ, Access, Route, RouteTable
from app.supervisor.admin.app import create_admin
from app.table import Key
from tests import ROOT
from tests.fakes import wire
from tests.fakes.engine import FakeEngine
from tests.rigs.hop import take
from tests.rigs.raw_client import Reply, ask
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.route_table import rows_only

TABLE = rows_only()
ROWS = [route for route in TABLE.rows if route.methods is not ANY_METHOD]
SECRETS = {"client": "mp-client", "admin": "mp-admin"}
KEYS = (Key("client", digest("mp-client")), Key("admin", digest("mp-admin"), role="admin"))
SUPERVISOR = b'{"from":"the supervisor"}'
# Who presents which key → the status of the refusal, by what the row promises.
REFUSALS = {
    Access.OPEN: {},
    Access.KEY: {None: 401, "stranger": 401},
    Access.ADMIN: {None: 401, "stranger": 401, "client": 403},
}


@contextlib.asynccontextmanager
async def supervisor(folder: Path) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await take(reader)
                writer.write(wire.whole(200, SUPERVISOR))
        writer.close()

    async with await asyncio.start_unix_server(serve, folder / "control.sock"):
        yield


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    async with (
        FakeEngine() as fake,
        running({"engine": backend(fake.url)}, models("fake")) as gateway,
        supervisor(gateway.state),
    ):
        yield gateway


def path_of(route: Route) -> str:
    """One that leads to this row."""
    if route.path == "*":
        return "/status"
    return (
        route.path.replace("{model}", "fake")
        .replace("{file}", PageFiles().names[0])
        .replace("{id}", "run")
        .replace("*", "status")
    )


async def answer(rig: Rig, route: Route, method: str, who: str | None, **headers: str) -> Reply:
    given = headers if who is None else {"authorization": f"Bearer {SECRETS.get(who, who)}", **headers}
    return await ask(rig.url, method, path_of(route), {"model": "fake"} if method == "POST" else b"", given)


def served(route: Route) -> list[str]:
    return [method for method in route.methods or () if method != "OPTIONS"]


@pytest.mark.parametrize("route", ROWS, ids=lambda route: route.path)
async def test_a_row_is_for_those_whom_its_access_names_and_for_nobody_else(rig: Rig, route: Route) -> None:
    await rig.published(keys=KEYS)

    for method in served(route):
        for who in (None, "stranger", "client", "admin"):
            reply = await answer(rig, route, method, who)
            refusal = REFUSALS[route.access].get(who)
            if refusal is None:
                assert reply.status not in (401, 403, 404, 405), (method, who)
            elif route.otherwise is None:
                assert reply.status == refusal, (method, who)
            else:
                assert (reply.status, reply.body) == (200, b"" if method == "HEAD" else b'{"status":"ok"}')


@pytest.mark.parametrize("route", ROWS, ids=lambda route: route.path)
async def test_while_no_key_is_configured_only_this_machine_has_an_administrators_access(
    rig: Rig, route: Route
) -> None:
    for is_loopback in (True, False):
        await rig.published(is_loopback=is_loopback)
        for method in served(route):
            reply = await answer(rig, route, method, None)
            is_refused = route.access is Access.ADMIN and route.otherwise is None and not is_loopback
            assert (reply.status == 403) is is_refused, (method, is_loopback)


@pytest.mark.parametrize("route", ROWS, ids=lambda route: route.path)
async def test_options_need_no_key_and_another_method_is_refused_before_a_key_is_asked_for(
    rig: Rig, route: Route
) -> None:
    await rig.published(keys=KEYS)

    told, refused = await answer(rig, route, "OPTIONS", None), await answer(rig, route, "DELETE", None)

    assert (told.status, refused.status) == (204, 405)
    assert told.headers["allow"] == refused.headers["allow"] == ", ".join(route.methods or ())


@pytest.mark.parametrize("route", TABLE.rows, ids=lambda route: route.path)
async def test_a_foreign_page_gets_through_where_the_row_lets_every_origin_in(rig: Rig, route: Route) -> None:
    method = (route.methods or READ)[0]

    page = await answer(rig, route, method, None, origin="http://evil.example")
    rebound = await answer(rig, route, method, None, host="evil.example", origin="http://evil.example")
    local = await answer(rig, route, method, None, origin="http://localhost:3000")

    assert (page.status == 403, rebound.status == 403) == (route.origin is not OriginRule.ANY,) * 2
    assert (local.status == 403) == (route.origin is OriginRule.LISTED)
    assert ("access-control-allow-origin" in local.headers) == (route.origin is OriginRule.OLLAMA)


async def test_what_the_supervisor_answers_comes_to_those_who_have_access_only(rig: Rig) -> None:
    await rig.published(keys=KEYS)
    forwarded = [route for route in ROWS if is_forwarded(route)]

    for route in forwarded:
        for who in (None, "client", "admin"):
            reply = await answer(rig, route, "GET", who)
            assert (reply.body == SUPERVISOR) == (who not in REFUSALS[route.access]), (route.path, who)
    assert {route.path for route in forwarded} > {"/metrics", "/health", "/admin/*"}


def is_forwarded(route: Route) -> bool:
    return inspect.ismethod(route.handler) and isinstance(route.handler.__self__, GatewayApi)


# -- nothing beside the table


async def described() -> dict[str, dict[str, Any]]:
    """The operations of `/openapi.json` by `METHOD /path`; it is made of what the admin application serves."""
    admin = create_admin(cast("Any", object()), "0", docs=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(admin), base_url="http://admin") as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    return {f"{method.upper()} {path}": each for path, methods in paths.items() for method, each in methods.items()}


async def test_the_description_names_every_row_and_says_where_a_key_is_needed() -> None:
    operations = await described()
    for name, operation in operations.items():
        method, _, path = name.partition(" ")
        route = TABLE.find(path)
        assert method in (route.methods or ()), name
        assert ("security" in operation) == (route.access is not Access.OPEN), name

    exact = {f"{method} {route.path}" for route in ROWS if route.is_exact for method in served(route)}
    left = {name for name in exact - operations.keys() if not name.startswith("HEAD ")}
    assert left == {"GET /openapi.json", "GET /docs"}


async def test_whatever_the_admin_application_serves_is_forwarded_for_administrators() -> None:
    for name in await described():
        route = TABLE.find(name.partition(" ")[2])
        if name.partition(" ")[2].startswith("/admin/"):
            assert is_forwarded(route)
            assert route.access is Access.ADMIN


def test_every_handler_belongs_to_a_row() -> None:
    handlers = {getattr(handler, "__func__", handler) for route in TABLE.rows for handler in (route.handler,)}
    written = {
        method
        for api in (OpenAIApi, ForeignApis, GatewayApi, CompareApi, PageFiles)
        for name, method in vars(api).items()
        if inspect.iscoroutinefunction(method) and not name.startswith("_")
        if list(inspect.signature(method).parameters) == ["self", "request"]
    }

    assert written <= handlers
    assert ready in handlers


def test_keys_roles_and_origins_are_checked_in_one_place() -> None:
    asked = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node.func)}"
        for path in sorted((ROOT / "app" / "relay").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("access.check", "origin_check.check", ".presented_key"))
    ]

    assert asked == [
        "app/relay/routes/access.py: request.presented_key",
        "app/relay/routes/application.py: origin_check.check",
        "app/relay/routes/application.py: access.check",
    ]


def test_a_handler_of_an_open_row_finds_no_key_to_rely_on() -> None:
    request = Request.__new__(Request)

    access.check(request, Access.OPEN)

    assert not hasattr(request, "key")


# -- how a path leads to a row


async def handler(_request: Request) -> None:
    """Not called here."""


def table(*paths: str) -> RouteTable:
    return RouteTable(Route(path, READ, Access.OPEN, handler) for path in paths)


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("/a", "/a"),
        ("/a/", "*"),
        ("/a/b", "/a/{name}"),
        ("/a/b/c", "/a/{name}"),
        ("/a/x", "/a/x"),
        ("/a/x/", "/a/x/*"),
        ("/a/x/y", "/a/x/*"),
        ("/b", "*"),
        ("*", "*"),
    ],
)
def test_an_exact_row_comes_first_and_then_the_longest_beginning(path: str, row: str) -> None:
    assert table("*", "/a", "/a/{name}", "/a/x", "/a/x/*").find(path).path == row


@pytest.mark.parametrize("paths", [("/a", "/a", "*"), ("/a",)])
def test_a_table_with_two_rows_for_a_path_or_none_for_the_rest_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one row for each path"):
        table(*paths)
