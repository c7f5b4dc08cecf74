"""The ASGI application of one relay: from a request to its route, and from a failure to a refusal.

A plain ASGI callable: one dictionary look-up stands between a request and its handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, MutableMapping
from typing import Any

import structlog

from app.errors import Problem, internal_error, key_revoked, method_not_allowed, outcome, problem, shutting_down
from app.metrics import Metrics
from app.relay.http import origin_check
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import ClientGone, Receive, Request
from app.relay.http.request_head import HeldRequest
from app.relay.limits.allowances import Allowances
from app.relay.routes import access
from app.relay.routes.route import Access, Handler, RouteTable
from app.relay.supervisor_client import SupervisorClient
from app.relay.tracing.tracer import Tracer
from backends.errors import BackendError

log = structlog.get_logger()

# Of the routes whose answers have Anthropic's headers.
ANTHROPIC_PATH = "/v1/messages"


class RelayApplication:
    """Checks what the route table promises (origin, methods, access) before a handler sees a request. What is refused
    without a backend's name is counted here: `Dispatcher.serve` raises nothing.
    """

    def __init__(
        self,
        supervisor: SupervisorClient,
        intake: BodyIntake,
        routes: RouteTable,
        metrics: Metrics,
        tracer: Tracer,
        limits: Allowances,
    ) -> None:
        self._supervisor = supervisor
        self._intake = intake
        self._routes = routes
        self._metrics = metrics
        self._tracer = tracer
        self._limits = limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, _send: object) -> None:
        request = Request.of_scope(scope, receive, self._supervisor.table)
        task = asyncio.current_task()
        assert task is not None
        request.response.when_gone(lambda: _cancel(task))
        await self._run(request)

    def respond(self, held: HeldRequest) -> Coroutine[Any, Any, None]:
        """Answer a request that came whole. Whoever runs this cancels it where the client leaves."""
        return self._run(Request.of_held(held, self._supervisor.table))

    async def _run(self, request: Request) -> None:
        try:
            handler = self._handler(request)
            if handler is not None:
                await handler(request)
        except Problem as exc:
            self._refuse(request, exc, exc.code or "other")
        except BackendError as exc:
            self._refuse(request, problem(exc), outcome(exc))
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The client left, the time to drain is over, or the key was revoked: that ends the work, and is nobody's
            # error.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            if not request.response.is_gone and not request.response.is_started:
                is_revoked = request.response.is_revoked
                refusal = key_revoked() if is_revoked else shutting_down(may_retry=True)
                self._refuse(request, refusal, refusal.code or "other")
        except Exception:  # the top of a request's task
            log.error("request broke the relay", request_id=request.id, exc_info=True)
            if not request.response.is_started:
                self._refuse(request, internal_error(), "internal_error")
            else:
                request.response.cut()
        finally:
            request.response.when_gone(None)
            self._intake.release(request)

    def _refuse(self, request: Request, problem: Problem, reason: str) -> None:
        self._metrics.refused(reason)
        request.refuse(problem)
        if request.method != "POST":  # a probe of /readyz, say
            return
        is_failure = problem.status >= 500
        key = getattr(request, "key", None)  # it is not there where the refusal came before it was looked at
        if hasattr(request, "key") and reason != "internal_error":  # that one is a record's, which has spans of its own
            self._tracer.refused(request, problem.status, reason)
        if is_failure or request.table.access_log:
            (log.warning if is_failure else log.info)(
                "request refused",
                request_id=request.id,
                principal=key.name if key is not None else None,
                method=request.method,
                status=problem.status,
                code=reason,
            )

    def _handler(self, request: Request) -> Handler | None:
        """What answers the request; None where it is answered."""
        route = self._routes.find(request.path)
        if route.encoder is not None:
            request.encoder = route.encoder(request)
        origin_check.check(request, route.origin)
        if route.methods is not None:
            if request.method not in route.methods:
                raise method_not_allowed(", ".join(route.methods))
            if request.method == "OPTIONS":
                request.answer_options(route.methods)
                return None
        try:
            access.check(request, route.access)
        except Problem:
            if route.otherwise is None:
                raise
            return route.otherwise
        if route.access is Access.OPEN:
            return route.handler
        key = request.key
        if key is not None and key.limits is not None:
            is_anthropic = request.path.startswith(ANTHROPIC_PATH)
            request.allowance, request.response.limit_lines = self._limits.of(key, is_anthropic=is_anthropic)
        return route.handler


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
