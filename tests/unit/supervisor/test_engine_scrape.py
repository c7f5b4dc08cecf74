"""`/metrics/engines` over engines that answer, hang, and write nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from structlog.testing import capture_logs

from app.supervisor.metrics.engines import engine_scrape
from app.supervisor.metrics.engines.engine_scrape import EngineScrape, EngineSource, EnginesPage
from app.supervisor.metrics.engines.text_format import parse
from backends.endpoint import Endpoint

GOOD = b'# TYPE vllm:waiting gauge\nvllm:waiting{engine="0"} 3\n'


class Shown:
    """An HTTP server that answers every request with `body`; with None it never answers."""

    def __init__(self, body: bytes | None, status: int = 200) -> None:
        self.body = body
        self.status = status
        self.heads: list[str] = []
        self._server: asyncio.Server

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Its URL."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/metrics"
        finally:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if self.body is None:
                await reader.read()
            else:
                head = f"HTTP/1.1 {self.status} x\r\ncontent-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
                writer.write(head.encode() + self.body)
                await writer.drain()
        writer.close()


def source(name: str, url: str) -> EngineSource:
    return EngineSource(name, url, Endpoint(name, 1, url, {"authorization": "Bearer secret"}))


async def page_of(engines: dict[str, Shown], answer_s: float = 5.0) -> bytes:
    async with contextlib.AsyncExitStack() as stack:
        urls = {name: await stack.enter_async_context(shown.listening()) for name, shown in engines.items()}
        return await EnginesPage(lambda: [source(name, url) for name, url in urls.items()], answer_s).render()


async def test_every_engines_series_are_there_with_its_name() -> None:
    engines = {"gpu": Shown(GOOD), "gpu#2": Shown(GOOD)}

    page = (await page_of(engines)).decode()

    assert 'vllm:waiting{backend="gpu",engine="0"} 3' in page
    assert 'vllm:waiting{backend="gpu#2",engine="0"} 3' in page
    assert 'modelport_engine_scrape_up{backend="gpu"} 1' in page
    assert "modelport_engine_scrape_seconds{" in page
    assert "authorization: bearer secret" in engines["gpu"].heads[0].lower()
    assert "secret" not in page


async def test_a_page_that_cannot_be_read_is_dropped_and_the_others_are_shown() -> None:
    engines = {
        "html": Shown(b"<html>"),
        "cut": Shown(GOOD[:-5]),
        "angry": Shown(b"no", 500),
        "huge": Shown(b"x 1\n" * (engine_scrape.MAX_PAGE_BYTES // 4 + 1)),
        "gpu": Shown(GOOD),
    }

    with capture_logs() as logs:
        page = (await page_of(engines)).decode()

    ups = dict.fromkeys(engines, 0) | {"gpu": 1}
    assert [line for line in page.splitlines() if line.startswith("modelport_engine_scrape_up")] == [
        f'modelport_engine_scrape_up{{backend="{name}"}} {up}' for name, up in ups.items()
    ]
    assert "<html>" not in page
    assert 'vllm:waiting{backend="gpu",engine="0"} 3' in page
    reasons = {str(entry["backend"]): str(entry["reason"]) for entry in logs}
    assert reasons["html"] == "its page cannot be read: line 1 is no sample"
    assert reasons["angry"] == "it answers with status 500"
    assert set(reasons) == {"html", "cut", "angry", "huge"}


async def test_engines_that_hang_are_waited_for_together_and_not_for_long() -> None:
    """They are asked at the same time: one after the other these would take ten times as long."""
    engines = {f"dead{number}": Shown(None) for number in range(10)} | {"gpu": Shown(GOOD)}
    began = time.monotonic()

    page = (await page_of(engines, answer_s=0.5)).decode()

    assert time.monotonic() - began < 0.5 * len(engines)
    assert 'modelport_engine_scrape_up{backend="dead9"} 0' in page
    assert 'modelport_engine_scrape_up{backend="gpu"} 1' in page


async def test_one_that_shows_no_metrics_is_not_a_failure() -> None:
    """llama.cpp's own server says 501 where they are not switched on."""
    page = (await page_of({"plain": Shown(b"no", 501), "other": Shown(b"no", 404)})).decode()

    assert 'backend="' not in page


async def test_a_failure_is_logged_once_and_so_is_its_end() -> None:
    shown = Shown(b"<html>")
    async with shown.listening() as url:
        page = EnginesPage(lambda: [source("gpu", url)])
        with capture_logs() as logs:
            for body in (b"<html>", b"<html>", GOOD, GOOD, b"<html>"):
                shown.body = body
                await page.render()

    assert [entry["event"] for entry in logs] == [
        "an engine's metrics are not readable",
        "an engine's metrics are readable again",
        "an engine's metrics are not readable",
    ]


def test_an_engine_cannot_speak_for_the_gateway() -> None:
    lie = parse(b'# TYPE modelport_engine_scrape_up gauge\nmodelport_engine_scrape_up{backend="x"} 7\n')

    page = engine_scrape.page({"gpu": EngineScrape(0.1, lie)}).decode()

    assert page.count("# TYPE modelport_engine_scrape_up gauge") == 1
    assert 'modelport_engine_scrape_up{backend="gpu"} 1\n' in page
    assert " 7" not in page


def test_what_would_make_the_page_too_large_is_left_out() -> None:
    families = parse(GOOD)
    half = engine_scrape.MAX_BYTES // 2 + 1

    page = engine_scrape.page(
        {name: EngineScrape(0.1, families, size_bytes=half) for name in ("first", "second")}
    ).decode()

    assert 'modelport_engine_scrape_up{backend="first"} 1' in page
    assert 'modelport_engine_scrape_up{backend="second"} 0' in page
