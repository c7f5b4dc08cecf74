"""Both pages that Prometheus reads, and the listener that they may have of their own."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog

from app.errors import JSON, Problem, internal_error, method_not_allowed, not_found
from app.metrics import watch_event_loop
from app.supervisor.metrics.engines.engine_scrape import EnginesPage
from app.supervisor.metrics.page import MetricsPage

log = structlog.get_logger()

MOST_SCRAPERS: Final = 64  # a Prometheus needs one
WAIT_S: Final = 10.0
MAX_HEAD_BYTES: Final = 16 * 1024
TEXT: Final = "text/plain; version=0.0.4"
PATHS: Final = ("/metrics", "/metrics/engines")
_METHODS: Final = ("GET", "HEAD")


class SharedPage:
    """A page that is made once for all who ask while it is being made."""

    def __init__(self, render: Callable[[], Awaitable[bytes]]) -> None:
        self._render = render
        self._making: asyncio.Future[bytes] | None = None

    async def __call__(self) -> bytes:
        if self._making is None or self._making.done():
            self._making = asyncio.ensure_future(self._render())
        return await asyncio.shield(self._making)


class MetricsPages:
    """`gateway` and `engines` return the pages of PATHS as they are now."""

    def __init__(self, gateway: MetricsPage, engines: EnginesPage) -> None:
        self.gateway = SharedPage(gateway.render)
        self.engines = SharedPage(engines.render)
        self._lag = gateway.lag

    async def run(self, listener: socket.socket | None = None) -> None:
        """Watch the event loop, and serve the pages where they have a port of their own, until cancelled."""
        tasks = [asyncio.ensure_future(watch_event_loop(self._lag.observe))]
        if listener is not None:
            log.info("metrics have a port of their own", address=listens_at(listener))
            tasks.append(asyncio.ensure_future(MetricsListener(self).serve(listener)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class MetricsListener:
    """Serves `server.metrics_port`: both pages without a key, and nothing else. One request for each connection, and
    `most` connections at the same time: whoever says nothing, or does not read, is cut off after `wait_s`.

    A listener that only this machine reaches answers to addresses and `localhost` only: any other name could be one
    that its owner lets point here, so that a web page could read the answer.
    """

    def __init__(self, pages: MetricsPages, most: int = MOST_SCRAPERS, wait_s: float = WAIT_S) -> None:
        self._pages = pages
        self._most = most
        self._wait_s = wait_s
        self._open = 0

    async def serve(self, listener: socket.socket) -> None:
        """Answer whoever connects, until cancelled."""
        server = await asyncio.start_server(self._converse, sock=listener, limit=MAX_HEAD_BYTES)
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= self._most:
            writer.transport.abort()
            return
        self._open += 1
        writer.transport.set_write_buffer_limits(0)  # so that `drain` waits for all of it
        try:
            async with asyncio.timeout(self._wait_s):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(head, str(writer.get_extra_info("sockname")[0])))
            async with asyncio.timeout(self._wait_s):
                await writer.drain()
            writer.close()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open -= 1

    async def _answer(self, head: bytes, bound: str) -> bytes:
        method, _, rest = head.decode("latin-1").partition(" ")
        try:
            body = await self._page(method, rest, bound)
        except Problem as exc:
            return _response(exc.status, exc.body(), JSON, exc.headers, method)
        except Exception:
            log.exception("metrics not readable")
            failure = internal_error()
            return _response(failure.status, failure.body(), JSON, failure.headers, method)
        return _response(200, body, f"{TEXT}; charset=utf-8", {}, method)

    async def _page(self, method: str, rest: str, bound: str) -> bytes:
        """Of a request whose head goes on like this behind its method."""
        target, _, lines = rest.partition("\r\n")
        fields = [line.partition(":") for line in lines.split("\r\n")]
        headers = {name.lower(): value.strip() for name, _, value in fields}
        if not may_ask(bound, headers.get("host", ""), "origin" in headers):
            raise Problem(403, "foreign_host", "The metrics of this machine are for its own programs, by its address.")
        path = target.partition(" ")[0].partition("?")[0]
        if path not in PATHS:
            raise not_found(f" This port has {' and '.join(PATHS)} only.")
        if method not in _METHODS:
            raise method_not_allowed(", ".join(_METHODS))
        return await (self._pages.gateway() if path == PATHS[0] else self._pages.engines())


def _response(status: int, body: bytes, content_type: str, more: Mapping[str, str], method: str) -> bytes:
    headers = {"content-type": content_type, "content-length": str(len(body)), "connection": "close", **more}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else body)


def may_ask(bound: str, host: str, is_page: bool) -> bool:
    """Whether a request with this `Host` may be answered at the address `bound`. `is_page`: it has an `Origin`."""
    if not _is_loopback(bound):
        return True
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return not is_page and name.lower() in ("localhost", "")
    return not is_page


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def listens_at(listener: socket.socket) -> str:
    """Its address and port, as a log shows them."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
