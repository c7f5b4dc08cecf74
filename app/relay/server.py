"""One relay process: a listening socket inherited from the supervisor, a table from it, and the data path between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
import uvicorn
from prometheus_client import REGISTRY, CollectorRegistry

from app.metrics import Metrics
from app.relay.http.body_intake import BodyIntake
from app.relay.http.protocol import ServerProtocol
from app.relay.proxy.dispatch import Dispatcher
from app.relay.routes.routes import Routes
from app.relay.supervisor_client import SupervisorClient
from app.table import Limits
from backends.http.pool import ConnectionPool

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the supervisor says when to stop, also when a terminal signals us all."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def relay(listener: socket.socket, state: Path, registry: CollectorRegistry = REGISTRY) -> int:
    """Serve until the supervisor says Drain or is gone; the process's exit code."""
    link, upstream = SupervisorClient(), ConnectionPool()
    # What others run has no process whose end would end its connections.
    link.on_table = lambda table: upstream.doubt(
        {row.name: row.reason or "it failed" for row in table.backends.values() if row.is_wedged}
    )
    await link.connect(state / "relay.sock")
    intake = BodyIntake()
    dispatcher = Dispatcher(link, upstream, Metrics(registry), intake)
    routes = Routes(link, upstream, dispatcher, intake, state / "control.sock")

    def limits() -> Limits:
        return link.table.limits

    config = uvicorn.Config(
        cast("Any", routes),
        http=cast("Any", partial(ServerProtocol, limits)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ending = asyncio.create_task(_until_told(link, server, config))
    try:
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        await serving
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        await upstream.aclose()
        await link.aclose()
    return 1 if link.lost.is_set() else 0


async def _until_told(link: SupervisorClient, server: _Server, config: uvicorn.Config) -> None:
    lost = asyncio.create_task(link.lost.wait())
    try:
        said: set[asyncio.Future[Any]] = {lost, link.drain_s}
        await asyncio.wait(said, return_when=asyncio.FIRST_COMPLETED)
        if link.drain_s.done():
            config.timeout_graceful_shutdown = max(1, int(link.drain_s.result()))
        else:
            server.force_exit = True  # engines end with the supervisor: nothing that runs here can finish
        server.should_exit = True
        await lost
        server.force_exit = True
    finally:
        lost.cancel()
