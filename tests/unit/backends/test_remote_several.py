"""One entry for several engines that somebody else runs: what may be configured, how they are reached and watched."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest

from app.config.load import loads
from app.config.yaml_document import ConfigError
from app.supervisor.replicas import replicas
from backends.engine import Probe
from backends.http.pool import ConnectionPool, UpstreamRequest
from backends.remote.config import RemoteConfig
from backends.remote.engine import PROBE_S, STALL_S, Remote
from tests import RECORDED
from tests.unit.backends.test_vllm import METRICS, Answers, page_of, server

CERTIFICATE = RECORDED / "engines_test.pem"
LISTED = {"data": [{"id": "big", "owned_by": "vllm"}]}


def remote(**values: object) -> RemoteConfig:
    return RemoteConfig.model_validate({"kind": "remote", **values})


BAD = {
    "neither": ("{kind: remote}", "backends.x: needs either `url` or `urls`"),
    "both": (
        "{kind: remote, url: 'http://a', urls: ['http://b']}",
        "backends.x: needs either `url` or `urls`, not both",
    ),
    "addresses of several": (
        "{kind: remote, urls: ['http://a'], addresses: dns}",
        "backends.x.addresses: are those of one `url`",
    ),
    "one twice": (
        "{kind: remote, urls: ['http://a', 'http://b', 'http://a']}",
        "backends.x.urls[2]: 'http://a' is there twice",
    ),
    "a name for an address": (
        "{kind: remote, url: 'http://a', addresses: [localhost]}",
        "backends.x.addresses[0]: 'localhost' is not an IP address",
    ),
    "a name that a replica has": (
        "{kind: remote, url: 'http://a', addresses: dns}\n  'x#2': {kind: remote, url: 'http://b'}",
        "backends.x#2: is the name of a replica of 'x'",
    ),
}


@pytest.mark.parametrize(("entry", "sentence"), BAD.values(), ids=BAD.keys())
def test_what_is_not_valid_is_named_with_its_place(entry: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"backends:\n  x: {entry}\nmodels: {{m: {{backend: x}}}}\n", {}, source="f")

    assert [error for error in caught.value.errors if sentence in error]


def test_an_entry_is_as_many_backends_as_it_has_urls_or_addresses() -> None:
    several = replicas.expand({"c": remote(urls=["http://a/v1", "http://b/v1"], api_key="k")})
    engines = replicas.expand({"c": remote(url="http://a/v1", addresses=["10.0.0.1", "::1"])})
    by_name = replicas.expand({"c": remote(url="http://a/v1", addresses="dns")})

    assert several == {"c": remote(url="http://a/v1", api_key="k"), "c#2": remote(url="http://b/v1", api_key="k")}
    assert {name: getattr(each, "addresses", None) for name, each in engines.items()} == {
        "c": ("10.0.0.1",),
        "c#2": ("::1",),
    }
    assert list(by_name) == ["c"]


def test_an_address_is_dialled_and_a_name_alone_is_not_changed() -> None:
    by_address = Remote("c", remote(url="https://a/v1/", addresses=["10.0.0.1"])).endpoint(1, 0, "")
    by_name = Remote("c", remote(url="https://a/v1/", addresses="dns")).endpoint(1, 0, "")

    assert (by_address.address, by_address.dial) == ("https://a/v1", "10.0.0.1")
    assert (by_name.address, by_name.dial) == ("https://a/v1", None)


@contextlib.asynccontextmanager
async def secure(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[int, list[str], list[str | None]]]:
    """A TLS server whose certificate is for engines.test only; the Host headers and the names it was asked for."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    hosts: list[str] = []
    names: list[str | None] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda _, name, __: names.append(name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        hosts.append(next(line.removeprefix("host: ") for line in head.split("\r\n") if line.startswith("host: ")))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], hosts, names
    finally:
        server.close()
        await server.wait_closed()


async def test_the_name_stays_in_the_host_header_and_in_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    async with secure(monkeypatch) as (port, hosts, names):
        engine = Remote("c", remote(url=f"https://engines.test:{port}/v1", addresses=["127.0.0.1"]))
        endpoint = engine.endpoint(1, 0, "")
        upstream = ConnectionPool()

        exchange = await upstream.open(endpoint, UpstreamRequest("GET", "/models"))
        body = await exchange.read(100)
        exchange.close()
        await upstream.aclose()
        probe = await engine.probe(endpoint)

    assert body == b"{}"
    assert probe == Probe(True)
    assert hosts == [f"engines.test:{port}"] * 2
    assert names == ["engines.test"] * 2


async def test_connections_to_two_addresses_of_one_name_are_kept_apart() -> None:
    upstream = ConnectionPool()
    seen: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            seen.append(writer.get_extra_info("sockname")[0])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    first = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = first.sockets[0].getsockname()[1]
    async with first, await asyncio.start_server(answer, "127.0.0.2", port):
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
            engine = Remote(address, remote(url=f"http://engines.test:{port}/v1", addresses=[address]))
            exchange = await upstream.open(engine.endpoint(1, 0, ""), UpstreamRequest("GET", "/models"))
            await exchange.read(100)
            exchange.close()
        await upstream.aclose()

    assert seen == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]


async def test_a_vllm_whose_core_died_is_down_though_it_lists_its_models() -> None:
    answers: Answers = {"/v1/models": (200, LISTED), "/health": (503, b""), "/metrics": (200, METRICS)}
    async with server(answers) as (endpoint, _):
        engine = Remote("c", remote(url=endpoint.address))

        down = Probe(False, "its core process died", is_dead=True, metrics=page_of(endpoint))
        assert await engine.probe(engine.endpoint(1, 0, "")) == down


async def test_a_vllm_that_is_slow_to_show_its_metrics_serves_all_the_same() -> None:
    answers: Answers = {"/v1/models": (200, LISTED), "/health": (200, b""), "/metrics": (200, None)}
    async with server(answers) as (endpoint, _), asyncio.timeout(PROBE_S):
        probe = await Remote("c", remote(url=endpoint.address)).probe(endpoint)

    assert (probe.is_up, probe.models, probe.in_flight) == (True, ("big",), None)


async def test_a_vllm_that_does_nothing_with_its_requests_is_avoided_until_it_moves() -> None:
    now = 0.0
    answers: Answers = {"/v1/models": (200, LISTED), "/health": (200, b""), "/metrics": (200, METRICS)}
    async with server(answers) as (endpoint, _):
        engine = Remote("c", remote(url=endpoint.address), now=lambda: now)
        there = engine.endpoint(1, 0, "")

        assert (await engine.probe(there)).is_up
        now = STALL_S
        stuck = "it has 7 requests and has done nothing for 120 s"
        assert await engine.probe(there) == Probe(False, stuck, is_dead=True, metrics=page_of(endpoint))
        answers["/metrics"] = (200, METRICS.replace(b"1e+06", b"2e+06"))
        assert (await engine.probe(there)).is_up
        now = 2 * STALL_S
        answers["/metrics"] = (
            200,
            METRICS.replace(b"2.0\n", b"0.0\n").replace(b"1.0\n", b"0.0\n").replace(b"4.0\n", b"0.0\n"),
        )
        assert (await engine.probe(there)).is_up
