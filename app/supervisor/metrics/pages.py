"""Both pages that Prometheus reads, and the listener that they may have of their own."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.errors import JSON, Problem, method_not_allowed, not_found
from app.metrics import watch_event_loop
from app.supervisor.metrics.engines.engine_scrape import EnginesPage
from app.supervisor.metrics.page import MetricsPage

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

    async def run(self, serve: Callable[[MetricsListener], Awaitable[None]] | None = None) -> None:
        """Watch the supervisor's event loop, and have the pages served, until cancelled."""
        tasks = [asyncio.ensure_future(watch_event_loop(self._lag.observe))]
        if serve is not None:
            tasks.append(asyncio.ensure_future(serve(MetricsListener(self))))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class MetricsListener:
    """The ASGI application of `server.metrics_port`: both pages without a key, and nothing else.

    A listener that only this machine reaches answers to addresses and `localhost` only: any other name could be one
    that its owner lets point here, so that a web page could read the answer.
    """

    def __init__(self, pages: MetricsPages) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._answer(scope)
            response = PlainTextResponse(body, media_type=TEXT)
        except Problem as exc:
            response = PlainTextResponse(exc.body(), exc.status, exc.headers, JSON)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope) -> bytes:
        headers = dict(scope["headers"])
        if not may_ask(scope["server"][0], headers.get(b"host", b"").decode("latin-1"), b"origin" in headers):
            raise Problem(403, "foreign_host", "The metrics of this machine are for its own programs, by its address.")
        if scope["path"] not in PATHS:
            raise not_found(f" This port has {' and '.join(PATHS)} only.")
        if scope["method"] not in _METHODS:
            raise method_not_allowed(", ".join(_METHODS))
        return await (self._pages.gateway() if scope["path"] == PATHS[0] else self._pages.engines())


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
