"""One model request from its plan to its settled answer: which engines are tried, and what is counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from app.dialects.chat_templates import TemplateSupport
from app.dialects.engine_errors import names_stream_options, refusal
from app.dialects.engine_options import taken
from app.dialects.openai import embeddings, transcription
from app.dialects.openai.normalize import ResponseContext
from app.dialects.parameters import adjust
from app.dialects.parameters.answer_limit import Fit
from app.dialects.tasks import tasks
from app.dialects.tasks.llama_cpp import Stamp
from app.dialects.usage import Usage
from app.errors import JSON, outcome
from app.metrics import Metrics
from app.relay.http.body_intake import BodyIntake
from app.relay.http.request import Request
from app.relay.proxy.accounting import RequestRecord
from app.relay.proxy.chat_templates import ChatTemplates
from app.relay.proxy.client_stream import relay_whole
from app.relay.proxy.collect import INLINE_BYTES, gather
from app.relay.proxy.daemon_loads import DaemonLoads
from app.relay.proxy.engine_call import EngineCall, TaskCall, loading, translated
from app.relay.proxy.multi_call import MultiCall
from app.relay.proxy.plan import COUNT, RequestPlan
from app.relay.supervisor_client import Lease, SupervisorClient
from app.routing import order
from app.table import Backend, Target
from backends import redaction
from backends.endpoint import Dialect, Endpoint, State, UsageMode
from backends.errors import (
    BackendError,
    Broken,
    EngineFailed,
    GivenUp,
    Lost,
    NotReady,
    NotTaken,
    Rejected,
    Stale,
    Taken,
    Unreachable,
)
from backends.http.exchange import EngineResponse, Exchange
from backends.http.pool import ConnectionPool, UpstreamRequest
from backends.prompt_too_long import TooLong

MAX_ERROR_BYTES = 64 * 1024
# The supervisor gives up in time, and knows why; this is for one that does not.
LATE_S = 2.0
# For the supervisor to see that an engine that refuses connections is dead: it asks the engine, and hears its exit.
NOTICED_S = 5.0
# These have no side effects and no half answers: an attempt that failed may be repeated once.
REPEATABLE = frozenset({"embeddings", "rerank", "score", "tokenize", "detokenize"})


class _Again(NamedTuple):
    """How an engine is asked: what it was found to take, when it refused it otherwise."""

    fit: Fit | None = None
    form: TemplateSupport | None = None
    outcome: str = ""


class Dispatcher:
    """The data path of one relay."""

    def __init__(
        self,
        link: SupervisorClient,
        upstream: ConnectionPool,
        metrics: Metrics,
        intake: BodyIntake,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._link = link
        self._upstream = upstream
        self._metrics = metrics
        self._intake = intake
        self._dice = dice
        self._no_usage: set[tuple[str, int]] = set()  # engine starts that refused stream_options once
        self._templates = ChatTemplates(upstream, intake)
        self._loads = DaemonLoads()

    async def serve(self, request: Request, plan: RequestPlan) -> None:
        """Answer the request, come what may; only a client that leaves (cancellation) is raised."""
        job = RequestRecord(self._metrics, request, plan)
        try:
            job.settled(await self._try(request, plan, job))
        except BackendError as exc:
            job.fail(exc)
        except asyncio.CancelledError:
            if request.response.is_gone:
                job.left()
            else:
                job.shut_down()
            raise
        finally:
            job.close()

    async def _try(self, request: Request, plan: RequestPlan, job: RequestRecord) -> Usage:
        """Each target in turn until one has taken the request; the last refusal when none did."""
        last: BackendError | None = None
        lost: tuple[Target, Lost] | None = None
        repeats = 1 if plan.operation.name in REPEATABLE else 0
        table = self._link.table
        for target in order(table, plan.resolved.model, self._link.in_flight, self._dice, plan.key):
            is_over = False
            while not is_over:
                is_over = True
                try:
                    return await self._attempt(request, plan, target, job)
                except Lost as exc:
                    last, lost = last if isinstance(last, Taken) else exc, lost or (target, exc)
                except NotTaken as exc:
                    last = _told(last, exc)
                except Taken as exc:
                    if repeats == 0 or isinstance(exc, Rejected):
                        raise
                    last, is_over = exc, False
                    repeats -= 1
        if lost is not None and not isinstance(last, Taken):
            target, start = lost
            # Who comes once it is known to be dead waits for its next start, and so does who came just before.
            if await self._link.is_over(start.engine, start.generation, NOTICED_S):
                return await self._attempt(request, plan, target, job)
        raise last or NotReady(plan.resolved.name, "no engine is configured for it")

    async def _attempt(self, request: Request, plan: RequestPlan, target: Target, job: RequestRecord) -> Usage:
        row = self._backend(target)
        ready = None if row.is_limited else row.endpoint
        adapter = target.model if target.model in row.adapters else None
        lease = self._link.hold(target.backend, ready.generation if ready is not None else 0, adapter)
        job.turn_to(target.backend)
        try:
            plan.check_ability(row, target.model)
            await self._intake.work(plan.work_bytes, partial(_check, plan, row))
            endpoint = await self._endpoint(plan, target, lease, job)
            plan.check_ability(self._backend(target), target.model)  # which it may have said only now
            if plan.loads is not None:
                answer = await self._load(request, plan, target, endpoint, job)
            elif plan.operation is COUNT or plan.task is not None:
                answer = await self._errand(request, plan, target, endpoint, job)
            else:
                answer = await self._exchange(request, plan, target, endpoint, job)
        except BackendError as exc:
            self._metrics.attempt(target.backend, outcome(exc)).inc()
            if isinstance(exc, TooLong):
                facts = row.fact(target.model)
                exc.placed(facts.context_length if facts is not None else None, plan.operation.needs or None)
            redaction.in_error(exc, self._backend(target).endpoint or row.endpoint)
            raise
        finally:
            lease.release()
        self._metrics.attempt(target.backend, "ok").inc()
        return answer

    async def _endpoint(self, plan: RequestPlan, target: Target, lease: Lease, job: RequestRecord) -> Endpoint:
        """Where the target is served now; waits for an engine that can be started, and for a place at a full one. Who
        generates nothing needs none.
        """
        backend = self._backend(target)
        if backend.endpoint is None and not backend.can_start:
            raise backend.not_ready(time.time())
        needs_place = backend.is_limited and plan.loads is None and plan.operation is not COUNT
        if backend.endpoint is None or needs_place:
            job.waits_for(lambda: self._backend(target), "busy")
            began = time.monotonic()
            await lease.admitted(max(self._link.table.limits.wait_s, backend.wait_s or 0.0) + LATE_S)
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
        self, request: Request, plan: RequestPlan, target: Target, endpoint: Endpoint, job: RequestRecord
    ) -> Usage:
        """Ask, and once more for each thing that the engine refuses and can be asked without."""
        done: Usage | _Again = _Again()
        while isinstance(done, _Again):
            done = await self._once(request, plan, target, endpoint, job, done)
            if isinstance(done, _Again):
                self._metrics.attempt(target.backend, done.outcome).inc()
        return done

    async def _once(
        self, request: Request, plan: RequestPlan, target: Target, endpoint: Endpoint, job: RequestRecord, asked: _Again
    ) -> Usage | _Again:
        """One request and its answer; its connection is free again when this returns."""
        fit, form, _ = asked
        start = (endpoint.engine, endpoint.generation)
        hides = plan.hides_usage(endpoint.usage) and start not in self._no_usage
        gathers = plan.gathers(endpoint)
        backend = self._backend(target)
        changes = await self._intake.work(plan.work_bytes, partial(plan.changes, backend, target.model, fit))
        changes = await self._templates.changes(plan, changes, backend, endpoint, target.model, form)
        speak = partial(_spoken, plan, target.model, backend, endpoint, changes.members, hides or gathers, gathers)
        spoken = await self._intake.work(plan.work_bytes, speak)
        request.adjusts(plan.called(changes.names))
        left = taken(plan.extras, backend.profile)[1] if plan.extras else ()
        told = [*left, *changes.dropped, *spoken.dropped]
        request.drops([*plan.dropped, *plan.called(told)])
        call = UpstreamRequest("POST", spoken.path, spoken.body, request.engine_headers(plan.content_type))
        job.waits_for(lambda: self._backend(target), spoken.doing)
        job.sent()
        exchange = await self._open(endpoint, call)
        try:
            if exchange.status >= 300:
                error = await self._refused(exchange, target, spoken)
                exchange.close()  # what is asked next needs one
                if hides and endpoint.usage is UsageMode.TRY and names_stream_options(error, plan.body):
                    # A complete 400 before any work: it is safe to ask again without, now and from now on.
                    self._no_usage.add(start)
                    return _Again(fit, form, outcome(error))
                less = None if fit is not None else plan.fitting(error, backend.profile)
                if less is not None:
                    return _Again(less, form, outcome(error))
                other = await self._templates.again(error, plan, endpoint, target.model, form)
                if other is not None:
                    return _Again(fit, other, outcome(error))
                raise error
            try:
                cost = await self._answered(request, plan, target, job, exchange, spoken, hides=hides, gathers=gathers)
            except EngineFailed as exc:  # some say under a good status that their template takes no such message
                other = None if job.has_begun else await self._templates.again(exc, plan, endpoint, target.model, form)
                if other is None:
                    raise
                return _Again(fit, other, outcome(exc))
            if form is not None:
                self._templates.remember(endpoint, target.model, form)
            return cost
        finally:
            exchange.close()

    async def _answered(
        self,
        request: Request,
        plan: RequestPlan,
        target: Target,
        job: RequestRecord,
        exchange: Exchange,
        spoken: EngineCall,
        *,
        hides: bool,
        gathers: bool,
    ) -> Usage:
        """A good answer, to its end."""
        limits = self._link.table.limits
        answer = spoken.answer(exchange, limits.max_event_bytes)
        token, now = f"{random.getrandbits(128):032x}", int(time.time())
        reasoning = plan.resolved.model.reasoning
        terms = ResponseContext(exchange.endpoint.engine, plan.name, plan.operation.name, token, now, reasoning)
        if plan.choices > 1 and exchange.endpoint.usage is UsageMode.TIMINGS:
            copies = adjust.choices(plan.asked)
            terms = msgspec.structs.replace(terms, reports=plan.choices, copies=copies)
        if job.stream is not None:
            cost = await job.stream.relay(answer, terms, hides_usage=hides)
        elif plan.form is not None:
            said = await answer.read(limits.max_answer_bytes)
            kind, said, cost = transcription.settle(
                exchange.endpoint.engine, exchange.headers.get("content-type", ""), said
            )
            request.answer(200, said, kind)
        else:
            limit = limits.max_answer_bytes
            whole = await (gather(answer, terms, plan.choices, limits) if gathers else answer.read(limit))
            if plan.operation.name == "embeddings":
                whole = await self._in_form(plan, target, whole)
            request.base.update(answer.notes)
            cost = relay_whole(request, terms, whole, answer.timings)
        self._learn(answer, target, job)
        return cost

    async def _in_form(self, plan: RequestPlan, target: Target, answer: bytes) -> bytes:
        """Embeddings as they were asked for."""
        backend = self._backend(target)
        wanted = adjust.vectors(plan.asked, backend.profile)
        if len(answer) > INLINE_BYTES:
            return await asyncio.to_thread(embeddings.fitted, backend.name, answer, wanted)
        return embeddings.fitted(backend.name, answer, wanted)

    async def _load(
        self, request: Request, plan: RequestPlan, target: Target, endpoint: Endpoint, job: RequestRecord
    ) -> Usage:
        """An engine that serves has its model; a daemon has many, and this one may still be on its disk."""
        if endpoint.dialect is Dialect.OLLAMA and plan.operation.needs != "input":
            spoken = loading(target.model, self._backend(target))
            job.sent()
            exchange = await self._open(
                endpoint, UpstreamRequest("POST", spoken.path, spoken.body, request.engine_headers())
            )
            try:
                if exchange.status >= 300:
                    raise await self._refused(exchange, target, spoken)
                await exchange.read(MAX_ERROR_BYTES)
            finally:
                exchange.close()
        request.answer(200, plan.loads or b"", request.encoder.whole_type if request.encoder is not None else JSON)
        return Usage()

    async def _open(self, endpoint: Endpoint, call: UpstreamRequest) -> Exchange:
        try:
            return await self._upstream.open(endpoint, call)
        except Unreachable as exc:
            raise self._lost(endpoint, exc) from exc

    def _lost(self, endpoint: Endpoint, exc: Unreachable) -> Unreachable:
        """The supervisor looks at it; one of ours will be started again."""
        self._link.failing(endpoint)
        return Lost(endpoint.engine, exc.message, endpoint.generation) if endpoint.is_ours else exc

    async def _errand(
        self, request: Request, plan: RequestPlan, target: Target, endpoint: Endpoint, job: RequestRecord
    ) -> Usage:
        backend, engine = self._backend(target), endpoint.engine
        profile = backend.profile
        if plan.task is None:
            spoken = None
            changes = await self._intake.work(plan.work_bytes, partial(plan.changes, backend, target.model))
            changes = await self._templates.changes(plan, changes, backend, endpoint, target.model, None)
            edit = partial(plan.edited, target.model, asks_usage=False, profile=profile, members=changes.members)
            steps = tasks.count(await self._intake.work(plan.work_bytes, edit), profile, engine)
        else:
            spoken = TaskCall(plan, profile)
            stamp = Stamp(f"{random.getrandbits(96):024x}", int(time.time()))
            steps = tasks.steps(plan.task, profile, engine=engine, model=target.model, name=plan.name, stamp=stamp)
            request.drops(plan.task.dropped)
        errand = MultiCall(
            self._upstream, endpoint, request.engine_headers(), lambda no: self._refused(no, target, spoken)
        )
        job.sent()
        try:
            done = await errand.run(steps)
        except Unreachable as exc:
            raise self._lost(endpoint, exc) from exc
        request.answer(200, done.body)
        return done.cost

    def _learn(self, answer: EngineResponse, target: Target, job: RequestRecord) -> None:
        """What an engine says of its time."""
        if answer.timings is None:
            return
        job.took(answer.timings)
        self._loads.note(target.backend, target.model, answer.timings.load_s)

    async def _refused(self, exchange: Exchange, target: Target, spoken: EngineCall | None = None) -> BackendError:
        try:
            body = await exchange.read(MAX_ERROR_BYTES)
        except Broken:
            body = b""
        # Before it is read, too: what is shortened for a client must not end in the middle of a secret.
        body = redaction.in_bytes(body, exchange.endpoint.address, exchange.endpoint.headers)
        load_s = self._loads.took(target.backend, target.model)
        told = spoken.refusal(exchange, body, load_s) if spoken is not None else None
        error = told or refusal(exchange.endpoint.engine, exchange.status, exchange.headers, body, time.time())
        marks = self._backend(target).profile.failure_marks
        if isinstance(error, EngineFailed) and any(mark in error.message for mark in marks):
            self._link.failing(exchange.endpoint)  # its server answers on for seconds
        return error


def _told(last: BackendError | None, now: NotTaken) -> BackendError:
    """Which of two failures the client hears of: one engine that has given up says nothing of another that is busy."""
    is_settled = isinstance(last, Taken) or isinstance(now, GivenUp)
    return last if is_settled and last is not None else now


def _spoken(
    plan: RequestPlan,
    model: str,
    backend: Backend,
    endpoint: Endpoint,
    members: Mapping[str, bytes | None],
    asks_usage: bool,
    as_stream: bool,
) -> EngineCall:
    body = plan.edited(model, asks_usage=asks_usage, as_stream=as_stream, profile=backend.profile, members=members)
    return translated(plan, model, backend, endpoint, body)


def _check(plan: RequestPlan, backend: Backend) -> None:
    plan.check_shape(backend)
    plan.check_media(backend)
