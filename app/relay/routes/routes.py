"""The data listener's routes: model routes and the model list are served here, the rest by the supervisor.

A plain ASGI callable: one dictionary look-up stands between a request and its handler.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import structlog

from app.errors import JSON, Problem, forbidden, internal_error, method_not_allowed, not_found, problem, shutting_down
from app.relay.http import json_body, multipart, origin_check
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import ClientGone, Receive, Request
from app.relay.proxy.dispatch import Dispatcher
from app.relay.proxy.plan import FORMS, OPERATIONS, Operation, plan, plan_form, resolved, unknown_model
from app.relay.routes import anthropic_models, base_urls
from app.relay.routes.foreign_apis import FRONTS, ForeignApis
from app.relay.routes.openai_models import entry
from app.relay.supervisor_client import SupervisorClient
from app.routing import visible
from app.table import Table
from backends.endpoint import Endpoint, Timeouts
from backends.errors import BackendError, EngineFailed, NotReady, TimedOut
from backends.http.pool import ConnectionPool, UpstreamRequest

log = structlog.get_logger()

# Served by the supervisor over its control socket; for whom is decided here.
OPEN = frozenset({"/version", "/openapi.json", "/docs"})
FOR_ADMINS = frozenset({"/metrics"})
PROBES = frozenset({"/livez", "/readyz"})
ADMIN_PREFIX = "/admin/"
MODELS = "/v1/models"
MODEL_PREFIX = "/v1/models/"
_ALL = "GET, HEAD, POST, OPTIONS"
_CONTROL_HEADERS = ("allow", "retry-after", "retry-after-ms")  # what of a supervisor's answer passes
MAX_CONTROL_BYTES = 64 * 1024 * 1024
MAX_ORDER_BYTES = 64 * 1024
# The supervisor's answer; and what it does for an order, such as a start, a download, tests of a model.
ANSWER_S = 60.0
ORDER_S = 900.0
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")
Handler = Callable[[Request], Awaitable[None]]


class Routes:
    """The ASGI application of one relay."""

    def __init__(
        self,
        link: SupervisorClient,
        upstream: ConnectionPool,
        dispatcher: Dispatcher,
        intake: BodyIntake,
        control: Path,
    ) -> None:
        self._link = link
        self._upstream = upstream
        self._dispatcher = dispatcher
        self._intake = intake
        self._fronts = ForeignApis(dispatcher, intake)
        self._control = _supervisor(control, ANSWER_S)
        self._orders = _supervisor(control, ORDER_S)
        self._reads: dict[str, Handler] = {
            MODELS: self._models,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/health": self._health,
        }
        self._paths = (*OPERATIONS, *FORMS, *self._reads, *self._fronts.paths)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, _send: object) -> None:
        request = Request(scope, receive, self._link.table)
        task = asyncio.current_task()
        assert task is not None
        request.line.when_gone(lambda: _cancel(task))
        try:
            await self._route(request)
        except Problem as exc:
            request.refuse(exc)
        except BackendError as exc:
            request.refuse(problem(exc))
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The client left, or the time to drain is over: that ends the work, and is nobody's error.
            task.uncancel()
            if not request.line.is_gone and not request.line.is_started:
                request.refuse(shutting_down(may_retry=True))
        except Exception:  # the top of a request's task
            log.error("request broke the relay", request_id=request.id, exc_info=True)
            if not request.line.is_started:
                request.refuse(internal_error())
            else:
                request.line.cut()
        finally:
            request.line.when_gone(None)
            self._intake.release(request)

    async def _route(self, request: Request) -> None:
        path = self._path(request)
        is_front = path not in OPERATIONS and path not in FORMS and self._fronts.greet(request, path)
        if not is_front and path not in PROBES:
            if anthropic_models.MARK in request.headers and (path == MODELS or path.startswith(MODEL_PREFIX)):
                request.tongue = FRONTS["/v1/messages"].tongue("")  # for what is refused
            origin_check.check(request.headers, request.table)
        is_about_all = path == "*" and request.method == "OPTIONS"  # RFC 9110, 9.3.7
        methods = _ALL if is_about_all else (self._fronts.methods if is_front else self._methods)(path)
        if methods is None:
            raise not_found(base_urls.advice(path, self._paths))
        if request.method not in methods.split(", "):
            raise method_not_allowed(methods)
        if request.method == "OPTIONS":
            self._options(request, methods)
        elif path in OPERATIONS:
            await self._operate(request, OPERATIONS[path])
        elif path in FORMS:
            await self._take_form(request, FORMS[path])
        elif is_front:
            await self._fronts.serve(request, path)
        elif path in self._reads or path.startswith(MODEL_PREFIX):
            await self._reads.get(path, self._model)(request)
        else:
            await self._forward(request, path)

    def _methods(self, path: str) -> str | None:
        """What a route takes, as `Allow` says it; None where there is no route."""
        if path in OPERATIONS or path in FORMS:
            return "POST, OPTIONS"
        is_model = path.startswith(MODEL_PREFIX) and path != MODEL_PREFIX
        if path in self._reads or is_model or path in OPEN or path in FOR_ADMINS:
            return "GET, HEAD, OPTIONS"
        if path.startswith(ADMIN_PREFIX):
            return _ALL
        return None

    @staticmethod
    def _path(request: Request) -> str:
        """The path as it came, not decoded: an encoded slash is no slash here. A proxy may leave the root path on."""
        root = request.table.root_path
        return request.path.removeprefix(root) if root and request.path.startswith(f"{root}/") else request.path

    # -- model routes

    async def _operate(self, request: Request, operation: Operation) -> None:
        key = request.principal(time.time())
        request.check_type()
        body = await self._intake.read(request, json_body.MAX_TOKENS if operation.takes_tokens else json_body.MAX_ITEMS)
        made = await self._intake.work(len(body), lambda: plan(operation, body, request.table, key))
        await self._dispatcher.serve(request, made)

    async def _take_form(self, request: Request, operation: Operation) -> None:
        key = request.principal(time.time())
        request.check_encoding()
        boundary = multipart.boundary_of(request.headers.get("content-type", ""))
        body = await request.body(hold=lambda size: self._intake.admit(request, size))
        form = await self._intake.work(len(body), lambda: multipart.read(body, boundary))
        fresh = f"{random.getrandbits(128):032x}"
        await self._dispatcher.serve(request, plan_form(operation, form, fresh, request.table, key))

    async def _models(self, request: Request) -> None:
        key = request.principal(time.time())
        table = request.table
        entries = [entry(table, name, backend) for name, backend in visible(table, key).items()]
        is_anthropic = anthropic_models.MARK in request.headers
        request.answer_json(
            anthropic_models.page(entries, request.query) if is_anthropic else {"object": "list", "data": entries}
        )

    async def _model(self, request: Request) -> None:
        key = request.principal(time.time())
        name = unquote(self._path(request).removeprefix(MODEL_PREFIX))
        found = resolved(request.table, key, name)
        if found.name not in (name, request.table.aliases.get(name)):
            raise unknown_model(request.table, key, name)  # `default_model` answers requests, and is no list entry
        told = entry(request.table, found.name, found.model.targets[0].backend)
        request.answer_json(anthropic_models.as_anthropic(told) if anthropic_models.MARK in request.headers else told)

    # -- is it alive, is it ready

    async def _livez(self, request: Request) -> None:
        request.answer_json({"status": "ok"})

    async def _readyz(self, request: Request) -> None:
        table = request.table
        if table.draining or not _can_serve(table):
            why = "it is shutting down" if table.draining else "no model is ready or able to start"
            raise problem(NotReady("gateway", why))
        request.answer_json({"status": "ok"})

    async def _health(self, request: Request) -> None:
        """Details for admins (everybody while no key exists); for the rest only whether it serves."""
        try:
            self._check_admin(request)
        except Problem:
            await self._readyz(request)
        else:
            await self._forward(request, "/health")

    # -- the supervisor's routes

    def _check_admin(self, request: Request) -> None:
        key = request.principal(time.time())
        if key is not None and key.role != "admin":
            raise forbidden("This needs a key of role 'admin'.")
        if key is None and not request.table.is_loopback:
            raise forbidden("Other machines can reach this gateway, and there is no key that could open this.")

    async def _forward(self, request: Request, path: str) -> None:
        if path not in OPEN:
            self._check_admin(request)
        body = await request.body(MAX_ORDER_BYTES) if request.method == "POST" else b""
        target = f"{path}?{request.query}" if request.query else path
        headers = [
            ("x-request-id", request.id),
            ("content-type", request.headers.get("content-type", JSON)),
        ]
        method = "GET" if request.method == "HEAD" else request.method
        supervisor = self._control if method in ("GET", "OPTIONS") else self._orders
        try:
            exchange = await self._upstream.open(supervisor, UpstreamRequest(method, target, body, headers))
            try:
                answer = await exchange.read(MAX_CONTROL_BYTES)
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
        extra = {name: exchange.headers[name] for name in _CONTROL_HEADERS if name in exchange.headers}
        request.answer(exchange.status, answer, kind, **extra)

    # -- OPTIONS

    def _options(self, request: Request, methods: str) -> None:
        headers = {"allow": methods, **request.base}
        if "access-control-allow-origin" in headers and "access-control-request-method" in request.headers:
            headers |= {
                "access-control-allow-methods": methods,
                "access-control-allow-headers": _listed(request.headers.get("access-control-request-headers", "")),
                "access-control-max-age": "600",
            }
        request.line.answer(204, headers, b"")


def _supervisor(control: Path, first_byte_s: float) -> Endpoint:
    waits = Timeouts(connect_s=5, first_byte_s=first_byte_s, between_events_s=60)
    return Endpoint("gateway", 0, f"unix:{control}", timeouts=waits)


def _listed(names: str) -> str:
    """The header names a page asks to send (an SDK has many of its own), without what is none."""
    asked = [name.strip().lower() for name in names.split(",")]
    return ", ".join(name for name in asked if _HEADER_NAME.match(name)) or "authorization, content-type"


def _can_serve(table: Table) -> bool:
    """At least one public model is ready or able to start."""
    used = {t.backend for model in table.models.values() for t in model.targets}
    used |= {wildcard.backend for wildcard in table.wildcards}
    return any(b.endpoint is not None or b.can_start for name, b in table.backends.items() if name in used)


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
