"""Who may come in while there is no key, and what opens with none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.keys import digest
from app.table import Key
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Client, chat, request
from tests.rigs.relay import Rig, backend, models, running

SECRET = "mp-0123456789"
AUTHORIZED = {"authorization": f"Bearer {SECRET}"}
OURS = ["127.0.0.1:8000", "127.0.0.1", "[::1]:8000", "[::1]", "192.168.1.7:8000", "localhost", "localhost:8000"]
OURS += ["LOCALHOST", "modelport:8000", "box.local", "host.docker.internal:8000", "me.localhost", "localhost."]
FOREIGN = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "local.evil.example", "notlocalhost.com"]


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeEngine() as fake, running({"engine": backend(fake.url)}, models("fake")) as gateway:
        yield gateway


@pytest.mark.parametrize("host", OURS)
async def test_without_keys_an_address_or_a_local_name_is_answered(rig: Rig, host: str) -> None:
    assert (await rig.ask("/v1/models", headers={"host": host})).status == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_without_keys_a_name_that_somebody_could_own_is_refused(rig: Rig, host: str) -> None:
    """DNS rebinding: the page's own name leads to this machine, and its requests are of the same origin."""
    reply = await rig.ask(body=chat(), headers={"host": host, "origin": f"http://{host}"})

    assert (reply.status, reply.error["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/backends/engine/restart"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000"])
async def test_without_keys_a_page_of_another_origin_is_refused(rig: Rig, origin: str, path: str) -> None:
    reply = await rig.ask(path, body=chat(), headers={"host": "localhost:8000", "origin": origin})

    assert (reply.status, reply.error["code"]) == (403, "foreign_origin")


async def test_a_request_without_a_name_is_not_of_the_origin_of_a_page_on_this_machine(rig: Rig) -> None:
    reply = await rig.ask(body=chat(), headers={"host": "", "origin": "http://localhost"})

    assert (reply.status, reply.error["code"]) == (403, "foreign_origin")


async def test_a_page_of_ours_or_of_a_listed_origin_is_answered(rig: Rig) -> None:
    await rig.published(cors_origins=("https://chat.example",))

    ours = await rig.ask(body=chat(), headers={"host": "localhost:8000", "origin": "http://localhost:8000"})
    listed = await rig.ask(body=chat(), headers={"host": "localhost:8000", "origin": "https://chat.example"})

    assert (ours.status, listed.status) == (200, 200)


async def test_with_keys_host_and_origin_do_not_matter(rig: Rig) -> None:
    await rig.published(keys=(Key("office", digest(SECRET)),))
    foreign = {"host": "gpu.example.com", "origin": "http://evil.example"}

    assert (await rig.ask(body=chat(), headers=AUTHORIZED | foreign)).status == 200
    assert (await rig.ask(body=chat(), headers=foreign)).status == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_may_use_any_name(rig: Rig, path: str) -> None:
    assert (await rig.ask(path, headers={"host": "gpu.example.com"})).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/admin/status", "/admin/backends/engine/logs"])
async def test_without_keys_the_admins_routes_are_for_this_machine_only(rig: Rig, path: str) -> None:
    await rig.published(is_loopback=False)

    reply = await rig.ask(path)

    assert (reply.status, reply.error["code"]) == (403, "not_allowed")


async def test_details_of_health_are_not_for_other_machines_either(rig: Rig) -> None:
    await rig.published(is_loopback=False)

    assert (await rig.ask("/health")).json == {"status": "ok"}


async def test_an_order_has_no_large_body_and_a_read_none_at_all(rig: Rig) -> None:
    order = await rig.ask("/admin/reload", body=b"{" + b" " * 65536 + b"}")
    async with Client(rig.url) as client:
        client.send(request("GET", "/version", b"", {"content-length": str(30 * 2**20)}))
        read = await client.reply()

    assert (order.status, order.error["code"]) == (413, "request_too_large")
    assert read.status == 502  # nobody serves it here; the body was not waited for


async def test_a_page_may_send_the_headers_that_its_sdk_sends(rig: Rig) -> None:
    await rig.published(cors_origins=("https://chat.example",))
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    names = "authorization, x-stainless-os, bad header, x-stainless-retry-count"

    async with Client(rig.url) as client:
        headers = asked | {"access-control-request-headers": names}
        client.send(request("OPTIONS", "/v1/chat/completions", b"", headers))
        reply = await client.reply()

    allowed = "authorization, x-stainless-os, x-stainless-retry-count"
    assert reply.headers["access-control-allow-headers"] == allowed
    assert "retry-after" in reply.headers["access-control-expose-headers"]
