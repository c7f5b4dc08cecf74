"""Somebody else's endpoint: what its responses to a probe mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from backends.endpoint import UsageMode
from backends.engine import Probe
from backends.errors import TimedOut
from backends.http.probe_client import ProbeClient
from backends.remote.config import RemoteConfig
from backends.remote.engine import Remote
from tests.fakes.engine import FakeEngine


def remote(url: str, **values: object) -> Remote:
    return Remote("cloud", RemoteConfig.model_validate({"kind": "remote", "url": url, **values}))


async def probed(url: str, **values: object) -> Probe:
    engine = remote(url, **values)
    return await engine.probe(engine.endpoint(1, 0, ""))


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server that sends the same to everybody."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # its first segment: whatever comes, it is answered
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def whole(status: str, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def test_its_endpoint_carries_the_configured_credential_and_headers() -> None:
    engine = remote("https://host/api/v1/", api_key="k", headers={"X-Team": "a"}, timeouts={"connect_s": 1})

    endpoint = engine.endpoint(3, 0, "unused")

    assert endpoint.address == "https://host/api/v1"
    assert endpoint.headers == {"x-team": "a", "authorization": "Bearer k"}
    assert endpoint.timeouts.connect_s == 1
    assert not endpoint.is_ours
    assert endpoint.usage is UsageMode.TRY
    assert engine.launch(1, (), "") is None  # type: ignore[func-returns-value]  # as its port says


async def test_it_is_up_with_the_names_it_lists() -> None:
    async with FakeEngine(models=("a", "b"), key="k") as fake:
        probe = await probed(fake.url, api_key=SecretStr("k"))
        page = fake.url.removesuffix("/v1") + "/metrics"
        assert probe == Probe(True, models=("a", "b"), facts=probe.facts, metrics=page)
        assert {name: facts.context_length for name, facts in probe.facts.items()} == {"a": 2048, "b": 2048}
        assert [record.path for record in fake.requests] == ["/v1/models", "/health", "/metrics"]  # as a vLLM


OWNERS = {"vllm": True, "sglang": True, "llamacpp": True, "openai": False, "system": False, "": False}


@pytest.mark.parametrize("owner", OWNERS)
async def test_only_an_engine_is_asked_for_metrics(owner: str) -> None:
    listed = json.dumps({"object": "list", "data": [{"id": "a", "object": "model", "owned_by": owner}]}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(listed)
    async with answering(head + listed) as url:
        probe = await probed(url)

    assert (probe.metrics is not None) is OWNERS[owner]


async def test_a_refused_credential_is_its_reason() -> None:
    async with FakeEngine(key="k") as fake:
        assert (await probed(fake.url)).reason == "it refuses the configured credential (status 401)"


async def test_nobody_there_is_its_reason() -> None:
    async with FakeEngine() as fake:
        fake.refuse()

        assert (await probed(fake.url)).reason == "no connection to it (connection refused)"


async def test_a_name_that_does_not_resolve_is_its_reason() -> None:
    probe = await probed("http://no-such-host.invalid/v1")

    assert not probe.is_up
    assert probe.reason is not None
    assert probe.reason.startswith("no connection to it (")


ANSWERS: dict[str, tuple[bytes, Probe]] = {
    "no such list": (whole("404 Not Found"), Probe(True)),
    "too busy for it": (whole("429 Too Many Requests"), Probe(True)),
    "no such method": (whole("405 Method Not Allowed"), Probe(True)),
    "another list": (whole("200 OK", b'["a"]'), Probe(True)),
    "no JSON": (whole("200 OK", b"<html>"), Probe(True)),
    "forbidden": (whole("403 Forbidden"), Probe(False, "it refuses the configured credential (status 403)")),
    "a redirect": (
        whole("302 Found\r\nlocation: /login"),
        Probe(False, "it answers with status 302 when asked for its models"),
    ),
    "a failure": (
        whole("500 Internal Server Error"),
        Probe(False, "it answers with status 500 when asked for its models"),
    ),
    "an end": (b"", Probe(False, "it sent no valid response (RemoteProtocolError)")),
    "half an answer": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
        Probe(False, "it sent no valid response (RemoteProtocolError)"),
    ),
    "garbage": (
        b"hello\r\n\r\n",
        Probe(False, "it sent no valid response (RemoteProtocolError)"),
    ),
    "too much": (whole("200 OK", b"x" * 9_000_000), Probe(False, "its response is longer than 8388608 bytes")),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_it_answers_is_understood(name: str) -> None:
    answer, expected = ANSWERS[name]

    async with answering(answer) as url:
        assert await probed(url) == expected


async def test_a_warm_up_costs_its_owner_nothing() -> None:
    async with FakeEngine() as fake:
        engine = remote(fake.url)

        await engine.warm_up(engine.endpoint(1, 0, ""))

        assert fake.requests == []


async def test_one_that_says_nothing_is_not_waited_for_long() -> None:
    async with FakeEngine() as fake:
        fake.probes = "never_answers"

        with pytest.raises(TimedOut, match=r"within 0\.05 s"):
            await ProbeClient("cloud").ask(f"{fake.url}/models", timeout_s=0.05)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_port_that_speaks_something_else_is_an_answer_that_did_not_come(scheme: str) -> None:
    async with answering(b"HTTP/1.1 OK\r\n") as url:
        probe = await probed(url.replace("http:", f"{scheme}:"))

    assert not probe.is_up
    assert probe.reason
