"""The handlers of routes about the gateway itself: whether it lives and serves, and what its supervisor answers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from app.errors import JSON, problem
from app.relay.http.request import Request
from app.table import Table
from backends.endpoint import Endpoint, Timeouts
from backends.errors import BackendError, EngineFailed, NotReady, TimedOut
from backends.http.pool import ConnectionPool, UpstreamRequest

_PASSED_HEADERS = ("allow", "retry-after", "retry-after-ms")  # of the supervisor's answer, beside its type
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ORDER_BYTES = 64 * 1024
# How long the supervisor may take to answer a question; and an order, such as a start, a download, tests of a model.
ANSWER_S = 60.0
ORDER_S = 900.0


async def live(request: Request) -> None:
    """`/livez`: this relay runs."""
    request.answer_json({"status": "ok"})


async def ready(request: Request) -> None:
    """`/readyz`: a model is ready or able to start, and it is known who may ask. Problem (503) otherwise, and while the
    gateway shuts down.
    """
    why = _why_not_ready(request.table)
    if why is not None:
        raise problem(NotReady("gateway", why))
    request.answer_json({"status": "ok"})


def _why_not_ready(table: Table) -> str | None:
    if table.draining:
        return "it is shutting down"
    if table.keys_unread:
        return "it does not know the keys of its store yet"
    if table.is_beginning:
        return "it has begun just now and has not agreed with its store yet"
    return None if _can_serve(table) else "no model is ready or able to start"


def _can_serve(table: Table) -> bool:
    used = {t.backend for model in table.models.values() for t in model.targets}
    used |= {wildcard.backend for wildcard in table.wildcards}
    return any(b.endpoint is not None or b.can_start for name, b in table.backends.items() if name in used)


class SupervisorAnswer(NamedTuple):
    """A response of the supervisor. `headers`: those that are passed on, beside its type."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]


class GatewayApi:
    """Forwards to the supervisor's socket. Whoever reaches that is an administrator: access is checked before."""

    def __init__(self, pool: ConnectionPool, control: Path) -> None:
        self._pool = pool
        self._questions = _supervisor(control, ANSWER_S)
        self._orders = _supervisor(control, ORDER_S)

    async def forward(self, request: Request) -> None:
        """The supervisor's answer to this request. Problem (502, 504) where it gives none."""
        body = await request.body(MAX_ORDER_BYTES) if request.method == "POST" else b""
        target = f"{request.path}?{request.query}" if request.query else request.path
        method = "GET" if request.method == "HEAD" else request.method
        answer = await self.ask(request, method, target, body)
        request.answer(answer.status, answer.body, answer.content_type, **answer.headers)

    async def ask(self, request: Request, method: str, target: str, body: bytes = b"") -> SupervisorAnswer:
        """What the supervisor answers to this, on behalf of a client's request. Problem (502, 504) where it gives
        nothing.
        """
        headers = [
            ("x-request-id", request.id),
            ("content-type", request.headers.get("content-type", JSON)),
            *_whose(request),
        ]
        supervisor = self._orders if method == "POST" else self._questions
        try:
            exchange = await self._pool.open(supervisor, UpstreamRequest(method, target, body, headers))
            try:
                answer = await exchange.read(MAX_ANSWER_BYTES)
            finally:
                exchange.close()
        except TimedOut as exc:
            late = f"its supervisor has not answered within {supervisor.timeouts.first_byte_s:g} s"
            goes_on = (
                ", and the order goes on: GET /admin/status says how far it is" if supervisor is self._orders else ""
            )
            raise problem(TimedOut("gateway", late + goes_on)) from exc
        except (BackendError, ValueError) as exc:
            raise problem(EngineFailed("gateway", "its supervisor did not answer")) from exc
        kind = exchange.headers.get("content-type", JSON)
        passed = {name: exchange.headers[name] for name in _PASSED_HEADERS if name in exchange.headers}
        return SupervisorAnswer(exchange.status, answer, kind, passed)


def _whose(request: Request) -> list[tuple[str, str]]:
    """Who gives the order, for the audit. A key's name may be any text, a header's value may not."""
    told = [("x-modelport-via", "page")] if request.headers.get("x-modelport-client") == "page" else []
    if (address := request.response.client_address) is not None:
        told.append(("x-modelport-address", address))
    key = getattr(request, "key", None)  # a route for everybody has checked none
    return [("x-modelport-key", quote(key.name)), *told] if key is not None else told


def _supervisor(control: Path, first_byte_s: float) -> Endpoint:
    waits = Timeouts(connect_s=5, first_byte_s=first_byte_s, between_events_s=60)
    return Endpoint("gateway", 0, f"unix:{control}", timeouts=waits)
