"""One relay process: a listening socket inherited from the supervisor, a table from it, and the data path between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import uvicorn

from app.metrics import Metrics, watch_event_loop
from app.relay.accepting import Acceptor, ConnectionNumbers
from app.relay.compare.compare_api import CompareApi
from app.relay.drain import RelayDrain
from app.relay.http.body_intake import BodyIntake
from app.relay.http.protocol import ServerProtocol
from app.relay.proxy.dispatch import Dispatcher
from app.relay.revoking import Revoking
from app.relay.routes.application import RelayApplication
from app.relay.routes.foreign_apis import ForeignApis
from app.relay.routes.gateway_api import GatewayApi
from app.relay.routes.openai_api import OpenAIApi
from app.relay.routes.page_files import PageFiles
from app.relay.routes.routes import route_table
from app.relay.supervisor_client import SupervisorClient
from app.relay.tracing.tracer import Tracer
from app.shared_counters import SharedCounters
from app.table import Table
from app.usage.segments import FOLDER, SegmentWriter
from backends.http.pool import ConnectionPool

# `task`: every request gets a task of its own, for tests and for comparison.
CARRIER: Final = "MODELPORT_CARRIER"


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the supervisor says when to stop, also when a terminal signals us all.

    And without its own end, which resets connections that wait to be accepted, closes those that have not sent their
    request yet, and does not wait for what a request that is cut short still says.
    """

    drain_s = 0.0
    numbers: ConnectionNumbers | None = None
    acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, in turn with the other relays where there are some."""
        if self.numbers is None:
            await super().startup(sockets)
            return
        assert sockets
        await super().startup([])
        connections = self.server_state.connections
        self.acceptor = Acceptor(sockets[0], self.numbers, lambda: len(connections), self._protocol)
        self.acceptor.start()

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Any", self.config.http_protocol_class)
        made: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer whoever is connected, for `drain_s` at most."""
        assert sockets
        listener = sockets[0]
        began = time.monotonic()
        ending = RelayDrain(
            cast("set[ServerProtocol]", self.server_state.connections),
            self.server_state.tasks,
            lambda: self.force_exit,
        )
        if self.acceptor is not None:
            self.acceptor.take_all()
        await ending.accept_rest(listener, self.drain_s)
        if self.acceptor is not None:
            await self.acceptor.aclose()
        for server in self.servers:
            server.close()
        listener.close()
        await ending.finish(max(0.0, self.drain_s - (time.monotonic() - began)))


async def relay(
    listener: socket.socket, state: Path, counters: SharedCounters, numbers: ConnectionNumbers | None = None
) -> int:
    """Serve until the supervisor sends `DrainRelay` (returns 0) or is gone (returns 1): the process's exit code.

    `numbers`: of connections, where other relays have the same listener.
    """
    supervisor, pool, tracer, intake = SupervisorClient(), ConnectionPool(), Tracer(), BodyIntake()
    metrics, revoking = Metrics(counters), Revoking()
    segments = SegmentWriter(state / FOLDER, random.getrandbits(63), ThreadPoolExecutor(1))
    dispatcher = Dispatcher(supervisor, pool, metrics, intake, segments)

    def follow(table: Table) -> None:
        # What others run has no process whose end would end its connections.
        pool.doubt({row.name: row.reason or "it failed" for row in table.backends.values() if row.is_wedged})
        dispatcher.records = tracer.follow(table.tracing)
        metrics.follow(table)
        dispatcher.outliers.follow(table)
        dispatcher.limits.follow(table)
        revoking.follow(table)

    supervisor.on_table = follow
    supervisor.on_allowance = dispatcher.limits.granted
    await supervisor.connect(state / "relay.sock")
    gateway = GatewayApi(pool, state / "control.sock")
    routes = route_table(
        OpenAIApi(dispatcher, intake),
        ForeignApis(dispatcher, intake),
        gateway,
        CompareApi(dispatcher, intake, gateway, metrics.refused),
        PageFiles(),
    )

    application = RelayApplication(supervisor, intake, routes, metrics, tracer, dispatcher.limits)
    respond = None if os.environ.get(CARRIER) == "task" else application.respond
    protocol = partial(ServerProtocol, lambda: supervisor.table.limits, supervisor.is_ending, metrics.refused, respond)
    server = _Server(_listening(application, protocol))
    server.numbers = numbers
    revoking.connections = cast("set[ServerProtocol]", server.server_state.connections)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ending = asyncio.create_task(_stop_when_asked(supervisor, server))
    watching = asyncio.create_task(watch_event_loop(partial(_look, metrics, segments)))
    try:
        await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
        await serving
    finally:
        ending.cancel()
        watching.cancel()
        await asyncio.gather(ending, watching, return_exceptions=True)
        await pool.aclose()
        segments.close()
        await tracer.aclose()
        dispatcher.limits.aclose()
        await supervisor.aclose()
    return 1 if supervisor.lost.is_set() else 0


def _look(metrics: Metrics, segments: SegmentWriter, late_s: float) -> None:
    metrics.late(late_s)
    segments.settle()


def _listening(application: object, protocol: object) -> uvicorn.Config:
    """uvicorn without what of it we do not use."""
    return uvicorn.Config(
        cast("Any", application),
        http=cast("Any", protocol),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
    )


async def _stop_when_asked(supervisor: SupervisorClient, server: _Server) -> None:
    """Let what runs finish within the time that the supervisor gives; without a supervisor end at once."""
    lost = asyncio.create_task(supervisor.lost.wait())
    try:
        ends: set[asyncio.Future[Any]] = {lost, supervisor.drain_s}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if supervisor.drain_s.done():
            server.drain_s = supervisor.drain_s.result()
        else:
            server.force_exit = True  # engines end with the supervisor: nothing that runs here can finish
        server.should_exit = True
        await lost
        server.force_exit = True
    finally:
        lost.cancel()
