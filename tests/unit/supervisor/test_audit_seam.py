"""What the audit is told of orders to the admin application, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, FastAPI

from app.store.tables.audit_entry import MOST_CHARS, MOST_ITEMS, AuditEntry, details
from app.supervisor.admin.app import AdminServer
from app.supervisor.admin.team.audit_seam import AuditSeam, action, fields_of
from app.supervisor.admin.team.peers import user_name
from app.supervisor.state_folder import bind_private
from tests.rigs.audit import RememberedAudit
from tests.rigs.eventually import eventually


def application(audit: RememberedAudit, relays: Collection[int]) -> AuditSeam:
    app = FastAPI()

    @app.get("/admin/status")
    async def status() -> dict[str, str]:
        return {}

    @app.post("/admin/backends/{name:path}/stop", status_code=202)
    async def stop(name: str) -> dict[str, str]:
        return {"name": name}

    @app.post("/admin/keys")
    async def make(body: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
        return {"key": "mp-secret"}

    @app.post("/admin/broken")
    async def broken() -> None:
        raise RuntimeError("a bug")

    @app.post("/admin/slow")
    async def slow() -> None:
        await asyncio.sleep(3600)

    @app.post("/admin/comparisons/sealed")
    async def seal() -> None:
        return None

    return AuditSeam(app, lambda: audit, lambda: relays, lambda: 1000.0)


@contextlib.asynccontextmanager
async def serving(path: Path, audit: RememberedAudit, relays: Collection[int] = ()) -> AsyncIterator[httpx.AsyncClient]:
    server = AdminServer(application(audit, relays))
    listening = bind_private(path)
    listening.listen()
    running = asyncio.create_task(server.serve([listening]))
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            yield client
    finally:
        server.should_exit = True
        await running


@pytest.fixture
def audit() -> RememberedAudit:
    return RememberedAudit()


async def test_an_order_over_the_socket_is_that_of_the_machines_user(tmp_path: Path, audit: RememberedAudit) -> None:
    async with serving(tmp_path / "control.sock", audit) as client:
        await client.post("/admin/backends/a/b/stop", headers={"x-request-id": "req-1"})

    (entry,) = audit.entries
    assert entry == AuditEntry(
        entry.id,
        1000.0,
        getpass.getuser(),
        "socket",
        "backends.stop",
        "a/b",
        202,
        request_id="req-1",
    )
    assert entry.is_done


async def test_what_a_relay_forwards_is_the_order_of_the_clients_key(tmp_path: Path, audit: RememberedAudit) -> None:
    told = {"x-modelport-key": "Anna%20%C3%9F", "x-modelport-via": "page", "x-modelport-address": "10.0.0.7"}
    async with serving(tmp_path / "control.sock", audit, [os.getpid()]) as client:
        await client.post("/admin/backends/a/stop", headers=told)
        await client.post("/admin/backends/a/stop")

    named, unnamed = audit.entries
    assert (named.actor, named.via, named.address) == ("Anna ß", "page", "10.0.0.7")
    assert (unnamed.actor, unnamed.via) == ("anybody", "http")


async def test_a_name_that_no_database_takes_is_made_one_that_they_take(tmp_path: Path, audit: RememberedAudit) -> None:
    async with serving(tmp_path / "control.sock", audit, [os.getpid()]) as client:
        await client.post("/admin/backends/a%00b/stop", headers={"x-modelport-key": "An%00na"})

    assert (audit.entries[0].actor, audit.entries[0].target) == ("An\ufffdna", "a\ufffdb")


async def test_nobody_but_a_relay_can_give_an_order_in_anothers_name(tmp_path: Path, audit: RememberedAudit) -> None:
    async with serving(tmp_path / "control.sock", audit, [1]) as client:
        await client.post("/admin/backends/a/stop", headers={"x-modelport-key": "Anna"})

    assert (audit.entries[0].actor, audit.entries[0].via) == (getpass.getuser(), "socket")


async def test_questions_and_what_relays_keep_there_are_no_orders(tmp_path: Path, audit: RememberedAudit) -> None:
    async with serving(tmp_path / "control.sock", audit) as client:
        await client.get("/admin/status")
        await client.head("/admin/status")
        await client.options("/admin/status")
        await client.post("/admin/comparisons/sealed")
        await client.post("/admin/nothing")

    assert audit.entries == []


async def test_refused_and_failed_orders_are_kept_with_how_they_ended(tmp_path: Path, audit: RememberedAudit) -> None:
    async with serving(tmp_path / "control.sock", audit) as client:
        await client.post("/admin/keys", content=b"[1")
        await client.post("/admin/broken")

    assert [(entry.action, entry.status, entry.is_done) for entry in audit.entries] == [
        ("keys.new", 422, False),
        ("broken.new", 500, False),
    ]


async def test_an_order_that_was_cut_off_is_kept_as_one_whose_end_nobody_knows(audit: RememberedAudit) -> None:
    app = application(audit, ())
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/admin/slow",
        "raw_path": b"/admin/slow",
        "query_string": b"",
        "headers": [],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    running = asyncio.create_task(app(scope, receive, send))

    async def is_under_way() -> bool:
        return "route" in scope

    await eventually(is_under_way)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert [(entry.action, entry.status, entry.actor) for entry in audit.entries] == [("slow.new", 0, "anybody")]


async def test_of_an_orders_fields_only_known_ones_are_kept(tmp_path: Path, audit: RememberedAudit) -> None:
    body = {
        "name": "office",
        "rpm": 60,
        "budget": {"tokens": 5, "per": "day"},
        "secret": "s",
        "sha256": "d",
        "key": "k",
    }
    async with serving(tmp_path / "control.sock", audit) as client:
        await client.post("/admin/keys?again=true&token=t", json=body)

    (entry,) = audit.entries
    assert entry.target == "office"
    assert entry.details == {"name": "office", "rpm": 60, "budget": {"tokens": 5, "per": "day"}, "again": "true"}


def test_long_values_are_cut_and_what_is_taken_away_is_kept() -> None:
    kept = details({"name": "n" * 1000, "models": ["m"] * 100, "rpm": None, "expires": object()})

    assert kept == {"name": "n" * MOST_CHARS + "…", "models": [*["m"] * MOST_ITEMS, "…"], "rpm": None, "expires": None}


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/admin/backends/{name:path}/adapters/load", "backends.adapters.load"),
        ("POST", "/admin/models/{name:path}/certificate", "models.certificate"),
        ("POST", "/admin/reload", "reload"),
        ("POST", "/admin/comparisons/votes", "comparisons.vote"),
        ("POST", "/admin/keys", "keys.new"),
        ("POST", "/admin/keys/{id}/revoke", "keys.revoke"),
        ("DELETE", "/admin/keys/{id}", "keys.delete"),
        ("PATCH", "/admin/keys/{id}", "keys.edit"),
    ],
)
def test_an_order_is_called_as_its_route_says(method: str, path: str, name: str) -> None:
    assert action(method, path) == name


def test_a_body_that_is_no_object_has_no_fields() -> None:
    deep = b'{"models":' + b"[" * 30_000 + b"]" * 30_000 + b"}"

    assert [fields_of(body, b"adapter=x") for body in (b"", b"[1]", b"\xff", b"{", deep)] == [{"adapter": "x"}] * 5


def test_a_user_without_a_name_is_called_by_the_number() -> None:
    assert user_name("4294967294") == "user 4294967294"
    assert user_name("none") == "user none"
