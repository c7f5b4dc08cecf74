"""The listener of `server.metrics_port`, and the pages that it and the gateway's own port share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from app.config.load import load_all
from app.config.settings import ServeOptions
from app.config.yaml_document import ConfigError
from app.supervisor.listener import ListenError, listen, opened
from app.supervisor.metrics.engines.engine_scrape import EnginesPage
from app.supervisor.metrics.page import MetricsPage
from app.supervisor.metrics.pages import MetricsListener, MetricsPages, SharedPage, may_ask
from app.supervisor.metrics.relay_counters import RelayCounters
from app.supervisor.metrics.snapshot import GatewaySnapshot

CONFIG = "backends: {cloud: {kind: remote, url: 'http://127.0.0.1:1/v1'}}\nmodels: {m: {backend: cloud}}\n"


def both() -> MetricsPages:
    return MetricsPages(MetricsPage(RelayCounters(), GatewaySnapshot, "1.2.3", gpus=tuple), EnginesPage(list))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Of a listener on a real socket."""
    bound = listen("127.0.0.1", 0)
    running = asyncio.create_task(both().run(bound))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", trust_env=False) as client:
        yield client
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    bound.close()


async def test_both_pages_are_read_without_a_key(client: httpx.AsyncClient) -> None:
    page, engines = await client.get("/metrics"), await client.get("/metrics/engines")
    head = await client.head("/metrics")

    assert 'modelport_build_info{version="1.2.3"} 1.0' in page.text
    assert "# TYPE modelport_engine_scrape_up gauge" in engines.text
    assert {answer.headers["content-type"] for answer in (page, engines, head)} == {
        "text/plain; version=0.0.4; charset=utf-8"
    }
    assert (head.status_code, head.text) == (200, "")


@pytest.mark.parametrize("path", ["/", "/health", "/admin/status", "/v1/models", "/metrics/", "/metrics/engines/x"])
async def test_nothing_else_is(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "route_not_found"


async def test_nothing_can_be_ordered_there(client: httpx.AsyncClient) -> None:
    answer = await client.post("/metrics")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
async def test_a_web_page_reads_nothing(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.get("/metrics", headers=headers)

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "foreign_host"


async def test_who_says_nothing_or_too_much_is_cut_off_and_keeps_nobody_out() -> None:
    bound = listen("127.0.0.1", 0)
    serving = asyncio.create_task(MetricsListener(both(), most=2, wait_s=0.2).serve(bound))
    address = bound.getsockname()[:2]

    async def ask(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(data)
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async with asyncio.timeout(20):
        silent = await asyncio.gather(*[ask(b"") for _ in range(5)], ask(b"GET /metrics HTTP/1.1\r\nx: "))
        endless = await ask(b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000)
        answer = await ask(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
        strange = [await ask(b"\r\n\r\n"), await ask(b"GET\r\n\r\n"), await ask(b"\xff\xfe / \r\n\r\n")]
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    bound.close()

    assert [*silent, endless] == [b""] * 7
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert all(each.startswith(b"HTTP/1.1 404 Not Found\r\n") for each in strange)


async def test_a_mistake_of_our_own_is_told_and_the_next_one_is_answered() -> None:
    bound = listen("127.0.0.1", 0)
    pages = both()
    serving = asyncio.create_task(MetricsListener(pages).serve(bound))

    async def broken() -> bytes:
        raise RuntimeError("a mistake of our own")

    pages.engines = SharedPage(broken)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", trust_env=False) as client:
        with capture_logs() as logs:
            failed = await client.get("/metrics/engines")
        whole = await client.get("/metrics?x=1")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    bound.close()

    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
    assert [entry["event"] for entry in logs] == ["metrics not readable"]
    assert whole.status_code == 200


HOSTS = {
    "127.0.0.1:9464": True,
    "localhost": True,
    "LOCALHOST:1": True,
    "[::1]:9464": True,
    "[::1]": True,
    "": True,
    "evil.example": False,
    "evil.example:9464": False,
    "127.0.0.1.evil.example": False,
    "localhost.evil.example:80": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_on_loopback_only_addresses_are_answered_to(host: str) -> None:
    assert may_ask("127.0.0.1", host, False) is HOSTS[host]
    assert not may_ask("127.0.0.1", host, True)
    assert may_ask("10.0.0.5", host, False)


async def test_a_page_is_made_once_for_all_who_wait_for_it() -> None:
    made = 0
    ready = asyncio.Event()

    async def render() -> bytes:
        nonlocal made
        made += 1
        await ready.wait()
        return b"page"

    page = SharedPage(render)
    readers = [asyncio.create_task(page()) for _ in range(5)]
    await asyncio.sleep(0)
    readers[0].cancel()  # one who leaves takes nobody's page away
    await asyncio.sleep(0)
    ready.set()

    assert await asyncio.gather(*readers[1:]) == [b"page"] * 4
    assert made == 1
    assert await page() == b"page"
    assert made == 2


def _options(folder: Path, server: str, *, insecure_no_key: bool = False) -> ServeOptions:
    path = folder / "modelport.yaml"
    path.write_text(f"server: {server}\n{CONFIG}")
    return ServeOptions(state=folder, config_path=path, insecure_no_key=insecure_no_key)


def test_other_machines_read_metrics_only_where_there_is_a_key(tmp_path: Path) -> None:
    server = "{metrics_port: 9464, metrics_host: 0.0.0.0}"

    with pytest.raises(ConfigError) as refused:
        load_all(_options(tmp_path, server))
    insisted = load_all(_options(tmp_path, server, insecure_no_key=True))
    (tmp_path / "modelport.yaml").write_text(f"server: {server}\n{CONFIG}keys: [{{name: a, sha256: '{'0' * 64}'}}]\n")
    keyed = load_all(ServeOptions(state=tmp_path, config_path=tmp_path / "modelport.yaml"))

    assert "server.metrics_host: '0.0.0.0' is reachable from other machines, and there is no key" in str(refused.value)
    assert insisted.server.metrics_host == keyed.server.metrics_host == "0.0.0.0"  # read, not bound


def test_an_address_without_a_port_is_no_listener(tmp_path: Path) -> None:
    config = load_all(_options(tmp_path, "{port: 0, metrics_host: 0.0.0.0}"))

    with opened(config.server) as sockets:
        assert sockets.metrics is None


def test_a_port_that_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = load_all(_options(tmp_path, f"{{port: 0, metrics_port: {port}}}"))

        with pytest.raises(ListenError) as refused, opened(config.server):
            raise AssertionError("it listens")

    assert str(refused.value) == (
        f"127.0.0.1:{port} is in use by another program; choose another port: server.metrics_port"
    )
