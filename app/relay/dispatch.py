"""One model request from its plan to its settled answer: which engines are tried, and what is counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from app.dialects.openai import Settlement
from app.dialects.refusals import refusal
from app.errors import outcome, problem
from app.metrics import Children, Metrics
from app.relay.answers import Stream, relay_whole
from app.relay.link import Lease, Link
from app.relay.plan import Plan
from app.relay.request import Request
from app.routing import order
from app.table import Backend, Target
from backends.base import Endpoint, State, Usage
from backends.errors import BackendError, Broken, NotReady, NotTaken, Rejected, Stale, Taken, Unreachable
from backends.exchange import Exchange
from backends.upstream import Call, Upstream

log = structlog.get_logger()

MAX_ERROR_BYTES = 64 * 1024
# Embeddings have no side effects and no half answers: an attempt that failed may be repeated once.
REPEATABLE = frozenset({"embeddings"})


class Dispatcher:
    """The data path of one relay."""

    def __init__(
        self, link: Link, upstream: Upstream, metrics: Metrics, dice: Callable[[], float] = random.random
    ) -> None:
        self._link = link
        self._upstream = upstream
        self._metrics = metrics
        self._dice = dice
        self._no_usage: set[str] = set()  # engines that refused stream_options once

    async def serve(self, request: Request, plan: Plan) -> None:
        """Answer the request, come what may; only a client that leaves (cancellation) is raised."""
        job = _Job(self._metrics, request, plan)
        try:
            job.settled(await self._try(request, plan, job))
        except BackendError as exc:
            job.fail(exc)
        except asyncio.CancelledError:
            job.left()
            raise
        finally:
            job.close()

    async def _try(self, request: Request, plan: Plan, job: _Job) -> Settlement:
        """Each target in turn until one has taken the request; the last refusal when none did."""
        last: BackendError | None = None
        table = self._link.table
        for target in order(table, plan.resolved.model, self._link.in_flight, self._dice):
            repeats = 1 if plan.operation.name in REPEATABLE else 0
            while True:
                try:
                    return await self._attempt(request, plan, target, job)
                except NotTaken as exc:
                    last = exc
                    break
                except Taken as exc:
                    if repeats == 0 or isinstance(exc, Rejected):
                        raise
                    repeats -= 1
        raise last or NotReady(plan.resolved.name, "no engine is configured for it")

    async def _attempt(self, request: Request, plan: Plan, target: Target, job: _Job) -> Settlement:
        lease = self._link.hold(target.backend)
        job.turn_to(target.backend)
        try:
            endpoint = await self._endpoint(target, lease, job)
            answer = await self._exchange(request, plan, target, endpoint, job)
        except BackendError as exc:
            self._metrics.attempt(target.backend, outcome(exc)).inc()
            raise
        finally:
            lease.release()
        self._metrics.attempt(target.backend, "ok").inc()
        return answer

    async def _endpoint(self, target: Target, lease: Lease, job: _Job) -> Endpoint:
        """Where the target is served now; waits for an engine that can be started."""
        backend = self._backend(target)
        if backend.endpoint is None:
            if not backend.can_start:
                raise NotReady(backend.name, backend.reason or f"it is {backend.state}", backend.retry_after_s)
            job.waits_for(backend)
            began = time.monotonic()
            await self._link.wanted(backend.name, self._link.table.limits.wait_s)
            job.waited(time.monotonic() - began)
            backend = self._backend(target)
            if backend.endpoint is None:
                raise Stale(backend.name, "it stopped again before the request could be sent", backend.retry_after_s)
        lease.bind(backend.endpoint.generation)
        return backend.endpoint

    def _backend(self, target: Target) -> Backend:
        found = self._link.table.backends.get(target.backend)
        return found or Backend(target.backend, "", State.STOPPED, reason="it is no longer configured")

    async def _exchange(
        self, request: Request, plan: Plan, target: Target, endpoint: Endpoint, job: _Job
    ) -> Settlement:
        hides = plan.hides_usage(endpoint.usage) and endpoint.engine not in self._no_usage
        body = plan.edited(target.model, asks_usage=hides)
        call = Call("POST", plan.operation.path, body, request.engine_headers())
        job.waits_for(self._backend(target))
        job.sent()
        try:
            exchange = await self._upstream.open(endpoint, call)
        except Unreachable:
            self._link.failing(endpoint)
            raise
        try:
            if exchange.status >= 300:
                error = await self._refused(exchange)
                if hides and endpoint.usage is Usage.TRY and _names_stream_options(error):
                    # A complete 400 before any work: it is safe to ask again without, now and from now on.
                    self._no_usage.add(endpoint.engine)
                    return await self._exchange(request, plan, target, endpoint, job)
                raise error
            if job.stream is not None:
                return await job.stream.relay(exchange, plan.name, hides_usage=hides)
            limit = self._link.table.limits.max_answer_bytes
            return await relay_whole(request.line, request.base, exchange, plan.operation.name, plan.name, limit)
        finally:
            exchange.close()

    async def _refused(self, exchange: Exchange) -> BackendError:
        try:
            body = await exchange.read(MAX_ERROR_BYTES)
        except Broken:
            body = b""
        return refusal(exchange.endpoint.engine, exchange.status, exchange.headers, body, time.time())


def _names_stream_options(error: BackendError) -> bool:
    return isinstance(error, Rejected) and error.status in (400, 422) and "stream_options" in error.message


class _Job:
    """What is known of one request while it runs: its stream, its times, its series. Settled exactly once."""

    def __init__(self, metrics: Metrics, request: Request, plan: Plan) -> None:
        self._metrics = metrics
        self._request = request
        self._plan = plan
        self._waited_s = 0.0
        self._series: Children | None = None
        self._backend = ""
        line, limits = request.line, request.table.limits
        self.stream = Stream(line, request.base, limits) if plan.is_stream else None

    def turn_to(self, backend: str) -> None:
        """This backend is tried next; the request counts as its."""
        if self._series is not None:
            self._series.in_flight.dec()
        self._backend = backend
        self._series = self._metrics.of(self._plan.operation.name, self._plan.resolved.label, backend)
        self._series.in_flight.inc()

    def waits_for(self, backend: Backend) -> None:
        if self.stream is not None:
            state = "working" if backend.state is State.READY else str(backend.state)
            self.stream.waits_for(f"{self._plan.resolved.label} ({state})")

    def waited(self, seconds: float) -> None:
        self._waited_s += seconds

    def sent(self) -> None:
        if self._series is not None:
            self._series.overhead.observe(time.perf_counter() - self._request.line.arrived - self._waited_s)

    def settled(self, cost: Settlement) -> None:
        series = self._series
        if series is None:
            return
        now = time.perf_counter()
        series.duration.observe(now - self._request.line.arrived)
        _count_tokens(series, cost)
        first = self.stream.first_token_at if self.stream is not None else None
        if first is not None:
            series.first_token.observe(first - self._request.line.arrived)
            if cost.output_tokens > 1:
                series.per_token.observe((now - first) / (cost.output_tokens - 1))

    def fail(self, error: BackendError) -> None:
        """Tell the client, as a status or, once the answer has begun, as an event and a cut connection."""
        trouble = problem(error)
        is_begun = self._request.line.is_started
        if is_begun and self.stream is not None:
            self.stream.fail(trouble)
        else:
            self._request.refuse(trouble)
        if self._series is not None:
            if is_begun and self.stream is not None:
                self._series.stream_errors.inc()
                _count_tokens(self._series, self.stream.settle())
            labels = (self._plan.operation.name, self._plan.resolved.label, self._backend)
            took = time.perf_counter() - self._request.line.arrived
            self._metrics.failed(*labels, outcome(error)).observe(took)
        if trouble.status >= 500:
            log.warning(
                "request failed",
                request_id=self._request.id,
                model=self._plan.resolved.label,
                backend=self._backend,
                status=trouble.status,
                code=trouble.code,
                mid_stream=is_begun,
            )

    def left(self) -> None:
        """The client has gone."""
        if self._series is not None:
            self._series.disconnects.inc()
            if self.stream is not None:
                _count_tokens(self._series, self.stream.settle())  # hanging up early is not free

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
        if self._series is not None:
            self._series.in_flight.dec()


def _count_tokens(series: Children, cost: Settlement) -> None:
    if cost.input_tokens:
        series.input_tokens.observe(cost.input_tokens)
    if cost.output_tokens:
        series.output_tokens.observe(cost.output_tokens)
