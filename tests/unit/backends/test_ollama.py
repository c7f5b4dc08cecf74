"""An Ollama daemon as an engine: what it is asked, and how its responses are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from backends.endpoint import Dialect
from backends.engine import Probe
from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama

VERSION = (200, b'{"version":"0.35.1"}')
TAGS = (200, b'{"models":[{"name":"qwen2.5:7b","model":"qwen2.5:7b"},{"name":"security:latest","size":1}]}')


class Daemon:
    """Answers by path; keeps the heads of what it was asked."""

    def __init__(self, answers: Mapping[str, tuple[int, bytes]]) -> None:
        self._answers = answers
        self.heads: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head.lower())
        status, body = self._answers.get(head.split()[1], (404, b"404 page not found"))
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(body), body))
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def listening(daemon: Daemon) -> AsyncIterator[str]:
    server = await asyncio.start_server(daemon.answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def probed(url: str) -> Probe:
    engine = Ollama("ollama", OllamaConfig(kind="ollama", url=url))
    return await engine.probe(engine.endpoint(1, 0, ""))


def test_its_endpoint_is_its_root_without_a_key() -> None:
    engine = Ollama("ollama", OllamaConfig(kind="ollama", url="http://127.0.0.1:11434/"))

    endpoint = engine.endpoint(2, 0, "unused")

    assert (endpoint.address, endpoint.headers) == ("http://127.0.0.1:11434", {})
    assert endpoint.dialect is Dialect.OLLAMA
    assert engine.is_strict


async def test_it_is_up_with_its_models_by_their_full_names() -> None:
    daemon = Daemon({"/api/version": VERSION, "/api/tags": TAGS})

    async with listening(daemon) as url:
        assert await probed(url) == Probe(True, models=("qwen2.5:7b", "security:latest"), version="0.35.1")

    asked = [head.split()[1] for head in daemon.heads]
    assert asked == ["/api/version", "/api/tags", "/api/ps", "/api/show", "/api/show"]
    assert not any("origin:" in head or "authorization:" in head for head in daemon.heads)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"/api/version": VERSION}, Probe(True, version="0.35.1")),
        ({"/api/version": VERSION, "/api/tags": (200, b'{"models":null}')}, Probe(True, version="0.35.1")),
        ({}, Probe(False, "what answers there is not an Ollama daemon")),
        ({"/api/version": (200, b"<html>")}, Probe(False, "what answers there is not an Ollama daemon")),
        (
            {"/api/version": (403, b"")},
            Probe(False, "it refuses the host name in `url` (see OLLAMA_HOST): use its IP address"),
        ),
    ],
    ids=["no tags", "no list", "nothing", "something else", "forbidden"],
)
async def test_what_it_answers_is_understood(answers: dict[str, tuple[int, bytes]], expected: Probe) -> None:
    async with listening(Daemon(answers)) as url:
        assert await probed(url) == expected


async def test_no_daemon_is_its_reason() -> None:
    async with listening(Daemon({})) as url:
        pass

    assert (await probed(url)).reason == "no connection to it (connection refused)"


async def test_a_warm_up_leaves_it_to_the_daemon_what_to_load() -> None:
    daemon = Daemon({})
    async with listening(daemon) as url:
        engine = Ollama("ollama", OllamaConfig(kind="ollama", url=url))

        await engine.warm_up(engine.endpoint(1, 0, ""))

    assert daemon.heads == []


SHOWN = (200, b'{"capabilities":["completion"],"parameters":"num_ctx 512","model_info":{"x.context_length":9000}}')


async def test_what_is_known_of_its_models_is_asked_once_and_again_for_a_new_digest() -> None:
    running = (200, b'{"models":[{"name":"security:latest","size":7}]}')
    answers = {"/api/version": VERSION, "/api/tags": TAGS, "/api/ps": running, "/api/show": SHOWN}
    daemon = Daemon(answers)
    async with listening(daemon) as url:
        engine = Ollama("ollama", OllamaConfig(kind="ollama", url=url))
        endpoint = engine.endpoint(1, 0, "")
        first = await engine.probe(endpoint)
        again = await engine.probe(endpoint)
        answers["/api/tags"] = (200, TAGS[1].replace(b'"size":1', b'"digest":"new"'))
        await engine.probe(endpoint)

    assert first.facts == again.facts
    assert {name: facts.is_loaded for name, facts in first.facts.items()} == {
        "qwen2.5:7b": False,
        "security:latest": True,
    }
    assert first.facts["security:latest"].memory_bytes == 7
    assert {facts.num_ctx for facts in first.facts.values()} == {512}
    assert sum("/api/show" in head.split()[1] for head in daemon.heads) == 3


async def test_a_daemon_is_up_although_it_does_not_show_a_model() -> None:
    answers = {"/api/version": VERSION, "/api/tags": TAGS, "/api/show": (500, b"")}
    async with listening(Daemon(answers)) as url:
        probe = await probed(url)

    assert (probe.is_up, dict(probe.facts)) == (True, {})


async def test_an_old_daemon_is_named() -> None:
    async with listening(Daemon({"/api/version": (200, b'{"version":"0.33.0"}')})) as url:
        assert "CVE-2026-103663" in ((await probed(url)).warning or "")
