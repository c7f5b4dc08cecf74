"""One request at one engine that serves: asked, asked again where the engine can be asked otherwise, and its response
passed on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from app.dialects.engine_errors import names_stream_options, refusal
from app.dialects.openai import transcription
from app.dialects.tasks import tasks
from app.dialects.tasks.llama_cpp import Stamp
from app.dialects.usage import Usage
from app.errors import JSON, outcome
from app.relay.http.body_intake import INLINE_BYTES, BodyIntake
from app.relay.http.request import Request
from app.relay.planning.attempt import NO_CONCESSIONS, Attempt, Concessions, openai_body, prepare, smaller_answer
from app.relay.planning.engine_call import EngineCall, about_prompt, loading, response_context, task_call
from app.relay.planning.plan import RequestPlan
from app.relay.proxy.accounting import RequestRecord
from app.relay.proxy.chat_templates import ChatTemplates
from app.relay.proxy.client_stream import relay_whole
from app.relay.proxy.collect import fitted, gather
from app.relay.proxy.daemon_loads import DaemonLoads
from app.relay.proxy.multi_call import MultiCall
from app.relay.supervisor_client import SupervisorClient
from app.table import Backend, Target
from backends import redaction
from backends.endpoint import Dialect, Endpoint, UsageMode
from backends.errors import BackendError, Broken, EngineFailed, Lost, NotFinite, Unreachable
from backends.http.exchange import EngineResponse, Exchange
from backends.http.pool import ConnectionPool, UpstreamRequest

MAX_ERROR_BYTES = 64 * 1024
T = TypeVar("T")


class Turn(msgspec.Struct, frozen=True):
    """One request at one engine that serves, and which its lease holds."""

    request: Request
    plan: RequestPlan
    record: RequestRecord
    target: Target
    backend: Backend
    endpoint: Endpoint


class Asker:
    """Asks the engines for one relay."""

    def __init__(self, supervisor: SupervisorClient, pool: ConnectionPool, intake: BodyIntake) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._intake = intake
        self._without_usage: set[tuple[str, int]] = set()  # starts of engines that refused `stream_options` once
        self._templates = ChatTemplates(pool, intake)
        self._loads = DaemonLoads()

    async def answer(self, turn: Turn) -> Usage:
        """Ask, and once more for each thing that the engine refuses and can be asked without."""
        plan = turn.plan
        try:
            if plan.loads is not None:
                return await self._load(turn, plan.loads)
            if plan.operation.is_of_prompt or plan.task is not None:
                return await self._ask_several_times(turn)
            result: Usage | Concessions = NO_CONCESSIONS
            while isinstance(result, Concessions):
                result = await self._exchange(turn, result)
            return result
        except NotFinite:
            self._supervisor.failing(turn.endpoint, is_not_finite=True)
            raise
        except Unreachable as exc:
            # The supervisor looks at it; one of ours will be started again.
            self._supervisor.failing(turn.endpoint)
            if not turn.endpoint.is_ours:
                raise
            raise Lost(turn.endpoint.engine, exc.message, turn.endpoint.generation) from exc

    async def _exchange(self, turn: Turn, tried: Concessions) -> Usage | Concessions:
        """One request and its response; its connection is free again when this returns. Concessions: how to ask once
        more, since it was refused as it was."""
        request, record, endpoint = turn.request, turn.record, turn.endpoint
        plan, backend, model = turn.plan, turn.backend, turn.target.model
        if plan.work_bytes <= INLINE_BYTES and not self._templates.has_to_ask(plan, backend, endpoint, model):
            attempt = prepare(plan, backend, endpoint, model, self._with_what_is_known(turn, tried))
        else:
            attempt = await self._prepare(turn, tried, partial(prepare, plan, backend, endpoint, model))
        request.reports(attempt.adjusted, attempt.dropped)
        call = attempt.call
        headers = request.engine_headers(attempt.content_type)
        record.sent()
        record.waits_for(lambda: self._supervisor.row(turn.target.backend), call.doing)
        exchange = await self._pool.open(endpoint, UpstreamRequest("POST", call.path, call.body, headers))
        try:
            if exchange.status >= 300:
                error = await self.refused(exchange, turn.target, call)
                exchange.close()  # what is asked next needs a connection
                return await self._concede(turn, tried, attempt, error)
            try:
                usage = await self._relay(turn, attempt, exchange)
            except EngineFailed as exc:  # some say under a good status that their template takes no such message
                if record.has_begun:
                    raise
                return await self._concede_template(turn, tried, exc)
            if tried.template is not None:
                self._templates.remember(endpoint, turn.target.model, tried.template)
            return usage
        finally:
            exchange.close()

    async def _prepare(self, turn: Turn, tried: Concessions, make: Callable[[Concessions], T]) -> T:
        """What the engine is sent, made in a thread where it is large."""
        plan, backend, endpoint, model = turn.plan, turn.backend, turn.endpoint, turn.target.model
        if tried.template is None and self._templates.has_to_ask(plan, backend, endpoint, model):
            # Its engine is not asked for the template of a request that it will not get.
            await self._intake.work(plan.work_bytes, partial(make, self._with_what_is_known(turn, tried)))
            await self._templates.ask(backend, endpoint, model)
        return await self._intake.work(plan.work_bytes, partial(make, self._with_what_is_known(turn, tried)))

    def _with_what_is_known(self, turn: Turn, tried: Concessions) -> Concessions:
        """The concessions that this start of the engine is known to need."""
        endpoint = turn.endpoint
        if self._without_usage and (endpoint.engine, endpoint.generation) in self._without_usage:
            tried = tried._replace(is_without_usage=True)
        if turn.plan.system_messages is not None and tried.template is None:
            known = self._templates.known(endpoint, turn.target.model)
            if known is not None:
                tried = tried._replace(template=known)
        return tried

    async def _concede(self, turn: Turn, tried: Concessions, attempt: Attempt, error: BackendError) -> Concessions:
        """How to ask once more after this refusal, before which nothing was generated; raises it where there is no
        other way to ask."""
        plan, endpoint = turn.plan, turn.endpoint
        if attempt.hides_usage and endpoint.usage is UsageMode.TRY and names_stream_options(error, plan.body):
            # A complete 400 before any work: it is safe to ask again without, now and from now on.
            self._without_usage.add((endpoint.engine, endpoint.generation))
            turn.record.asked_again(outcome(error))
            return tried
        fit = smaller_answer(plan, error, turn.backend.profile) if tried.answer_limit is None else None
        if fit is not None:
            turn.record.asked_again(outcome(error))
            return tried._replace(answer_limit=fit)
        return await self._concede_template(turn, tried, error)

    async def _concede_template(self, turn: Turn, tried: Concessions, error: BackendError) -> Concessions:
        """The same, where what was refused can only be the roles of the conversation."""
        template = await self._templates.again(error, turn.plan, turn.endpoint, turn.target.model, tried.template)
        if template is None:
            raise error
        turn.record.asked_again(outcome(error))
        return tried._replace(template=template)

    async def _relay(self, turn: Turn, attempt: Attempt, exchange: Exchange) -> Usage:
        """A good response, to its end."""
        request, plan, record, engine = turn.request, turn.plan, turn.record, turn.endpoint.engine
        limits = self._supervisor.table.limits
        response = attempt.call.answer(exchange, limits.max_event_bytes)
        context = response_context(plan, turn.endpoint)
        if record.stream is not None:
            usage = await record.stream.relay(
                response, context, hides_usage=attempt.hides_usage, continuable=attempt.continuable
            )
        elif plan.form is not None:
            body = await response.read(limits.max_answer_bytes)
            content_type, body, usage = transcription.settle(engine, exchange.headers.get("content-type", ""), body)
            record.ending(usage)
            request.answer(200, body, content_type)
        else:
            if attempt.gathers:
                body = await gather(response, context, plan.choices, limits)
            else:
                body = await response.read(limits.max_answer_bytes)
            if plan.operation.name == "embeddings":
                body = await fitted(plan, turn.backend, body)
            request.base.update(response.notes)
            usage = relay_whole(request, context, body, response.timings, record.ending)
        self._learn(response, turn)
        return usage

    async def _load(self, turn: Turn, loaded: bytes) -> Usage:
        """Have the model ready, and answer with `loaded`. An engine that serves has its model; a daemon has many, and
        this one may still be on its disk."""
        request, endpoint = turn.request, turn.endpoint
        if endpoint.dialect is Dialect.OLLAMA and turn.plan.operation.needs != "input":
            call = loading(turn.target.model, turn.backend)
            turn.record.sent()
            exchange = await self._pool.open(
                endpoint, UpstreamRequest("POST", call.path, call.body, request.engine_headers())
            )
            try:
                if exchange.status >= 300:
                    raise await self.refused(exchange, turn.target, call)
                await exchange.read(MAX_ERROR_BYTES)
            finally:
                exchange.close()
        turn.record.ending(Usage())
        request.answer(200, loaded, request.encoder.whole_type if request.encoder is not None else JSON)
        return Usage()

    async def _ask_several_times(self, turn: Turn) -> Usage:
        """What takes several requests to the engine: ranks, scores, tokens, and what a chat's prompt is."""
        request, plan, target, endpoint = turn.request, turn.plan, turn.target, turn.endpoint
        profile, engine = turn.backend.profile, endpoint.engine
        if plan.task is None:
            call = None
            body = await self._prepare(turn, NO_CONCESSIONS, partial(openai_body, plan, turn.backend, target.model))
            steps = about_prompt(plan, target.model, turn.backend, endpoint, body)
        else:
            call = task_call(plan, profile)
            stamp = Stamp(f"{random.getrandbits(96):024x}", int(time.time()))
            steps = tasks.steps(plan.task, profile, engine=engine, model=target.model, name=plan.name, stamp=stamp)
            request.reports(dropped=plan.task.dropped)
        calls = MultiCall(
            self._pool, endpoint, request.engine_headers(), lambda response: self.refused(response, target, call)
        )
        turn.record.sent()
        done = await calls.run(steps)
        turn.record.ending(done.cost)
        request.answer(200, done.body)
        return done.cost

    def _learn(self, response: EngineResponse, turn: Turn) -> None:
        """What an engine reports of its time."""
        if response.timings is not None:
            turn.record.took(response.timings)
            self._loads.note(turn.target.backend, turn.target.model, response.timings.load_s)

    async def refused(self, exchange: Exchange, target: Target, call: EngineCall | None = None) -> BackendError:
        """The error for a response that is not good."""
        try:
            body = await exchange.read(MAX_ERROR_BYTES)
        except Broken:
            body = b""
        # Before it is read, too: what is shortened for a client must not end in the middle of a secret.
        body = redaction.in_bytes(body, exchange.endpoint.address, exchange.endpoint.headers)
        load_s = self._loads.took(target.backend, target.model)
        error = call.refusal(exchange, body, load_s) if call is not None else None
        error = error or refusal(exchange.endpoint.engine, exchange.status, exchange.headers, body, time.time())
        marks = self._supervisor.row(target.backend).profile.failure_marks
        if isinstance(error, EngineFailed) and any(mark in error.message for mark in marks):
            self._supervisor.failing(exchange.endpoint)  # its server answers on for seconds
        return error
