"""One model request, from its plan to its settled response: for each target, in turn, a lease, an endpoint, and what
the engine there makes of it; and what is counted of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from app.dialects.usage import Usage
from app.errors import outcome
from app.metrics import Metrics
from app.relay.balancing.affinity import Affinity
from app.relay.balancing.outliers import Outliers
from app.relay.http.body_intake import INLINE_BYTES, BodyIntake
from app.relay.http.request import Request
from app.relay.limits.allowances import Allowances
from app.relay.limits.prepaid import Prepaid
from app.relay.limits.reservation import Reservation
from app.relay.planning.attempt import check, check_ability, place
from app.relay.planning.claim import claim
from app.relay.planning.plan import RequestPlan
from app.relay.proxy.accounting import RequestRecord
from app.relay.proxy.asker import Asker, Turn
from app.relay.proxy.continuer import Continuer
from app.relay.supervisor_client import Lease, SupervisorClient
from app.table import Backend, Target
from app.usage.segments import SegmentWriter
from backends import redaction
from backends.endpoint import Endpoint
from backends.errors import BackendError, GivenUp, Lost, NotReady, NotTaken, Rejected, Stale, Taken
from backends.http.pool import ConnectionPool
from backends.prompt_too_long import TooLong

# The supervisor gives up in time, and knows why; this is for one that does not.
LATE_S = 2.0
# For the supervisor to see that an engine that refuses connections is dead: it asks the engine, and hears its exit.
NOTICED_S = 5.0
# These have no side effects and no half answers: an attempt that failed may be repeated once.
REPEATABLE = frozenset({"embeddings", "rerank", "score", "tokenize", "detokenize"})


class Dispatcher:
    """The data path of one relay."""

    def __init__(
        self,
        supervisor: SupervisorClient,
        pool: ConnectionPool,
        metrics: Metrics,
        intake: BodyIntake,
        segments: SegmentWriter | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._metrics = metrics
        self._intake = intake
        self._segments = segments
        self.records: Callable[[Metrics, Request, RequestPlan, SegmentWriter | None], RequestRecord] = RequestRecord
        self._affinity = Affinity(lambda model, by: metrics.placement(model, by).inc())
        self.asker = Asker(supervisor, pool, intake)
        self._continuer = Continuer(supervisor, pool, metrics, self._endpoint, self.asker.refused)
        self.limits = Allowances(
            supervisor.of_limits, lambda: supervisor.table, lambda key, limit: metrics.limited(key, limit).inc()
        )
        self.outliers = Outliers(lambda: supervisor.table, supervisor.suspect, metrics.retry_denied)

    async def serve(self, request: Request, plan: RequestPlan, *, is_limited: bool = True) -> None:
        """Answer the request, come what may; only a client that leaves (cancellation) is raised, and the Problem of a
        key that has used up its limits, before anything else. Not `is_limited`: it is a question of our own."""
        allowance = request.allowance
        reservation: Reservation | Prepaid | None = None
        if allowance is not None and is_limited:
            prepaid = allowance.prepaid
            if prepaid is not None and prepaid.take(plan):
                reservation = prepaid
            else:
                reservation = await self._let_through(plan)
        record = self.record(request, plan)
        if reservation is not None:
            record.holds(reservation)
        try:
            record.settled(await self._try_targets(request, plan, record))
        except BackendError as exc:
            record.fail(exc)
        except asyncio.CancelledError:
            if request.response.is_gone:
                record.left()
            else:
                record.shut_down()
            raise
        finally:
            record.close()

    async def _let_through(self, plan: RequestPlan) -> Reservation:
        key = plan.key
        assert key is not None
        return self.limits.take(key, plan) or await self.limits.wait(key, plan)

    def record(self, request: Request, plan: RequestPlan) -> RequestRecord:
        """A new request's record. Where it may go to several targets, their health is noted."""
        segments, model = self._segments if request.table.keeps_usage else None, plan.resolved.model
        record = self.records(self._metrics, request, plan, segments)
        if model.fallbacks or len(model.targets) > 1:
            record.watched_by(self.outliers.siblings(model.name))
        return record

    async def _try_targets(self, request: Request, plan: RequestPlan, record: RequestRecord) -> Usage:
        """Each target in turn until one has taken the request; the last refusal when none did."""
        last: BackendError | None = None
        lost: tuple[Target, Lost] | None = None
        repeats = 1 if plan.operation.name in REPEATABLE else 0
        for target in self._targets(request, plan):
            if not record.may_retry():
                break
            record.next_target()
            is_over = False
            while not is_over:
                is_over = True
                try:
                    return await self._attempt(request, plan, target, record)
                except Lost as exc:
                    last, lost = last if isinstance(last, Taken) else exc, lost or (target, exc)
                except NotTaken as exc:
                    last = _more_telling(last, exc)
                except Taken as exc:
                    if record.stream is not None and record.stream.continuable is not None:
                        return await self._continuer.go_on(request, plan, record, target, exc)
                    if repeats == 0 or isinstance(exc, Rejected) or not record.may_retry():
                        raise
                    last, is_over = exc, False
                    repeats -= 1
        if lost is not None and not isinstance(last, Taken):
            target, start = lost
            # Who comes once it is known to be dead waits for its next start, and so does who came just before.
            if await self._supervisor.is_over(start.engine, start.generation, NOTICED_S):
                return await self._attempt(request, plan, target, record)
        raise last or NotReady(plan.resolved.name, "no engine is configured for it")

    def _targets(self, request: Request, plan: RequestPlan) -> Iterable[Target]:
        """Every target that may have the request, best first."""
        model = plan.resolved.model
        if len(model.targets) == 1 and not model.fallbacks:
            return model.targets
        return self._affinity.order(self._supervisor.table, plan, self._supervisor, request.headers)

    async def _attempt(self, request: Request, plan: RequestPlan, target: Target, record: RequestRecord) -> Usage:
        """One target: raises BackendError, of which NotTaken means that another one may be tried."""
        row = self._supervisor.row(target.backend)
        ready = None if row.is_limited else row.endpoint
        lease = Lease.on(self._supervisor, row, target.model)
        record.turn_to(target, row)
        try:
            if plan.work_bytes <= INLINE_BYTES:
                check(plan, row, target.model)
            else:
                await self._intake.work(plan.work_bytes, partial(check, plan, row, target.model))
            serving, endpoint = row, ready
            if endpoint is None:
                serving, endpoint = await self._endpoint(plan, target, lease, record)
            request.response.serving = serving.serving_digest(target.model)
            if serving is not row:  # it may say only now what its model can do
                check_ability(plan, serving, target.model)
            usage = await self.asker.answer(Turn(request, plan, record, target, serving, place(plan, endpoint)))
        except BackendError as exc:
            record.attempted(target.backend, outcome(exc))
            if isinstance(exc, TooLong):
                facts = row.fact(target.model)
                exc.placed(facts.context_length if facts is not None else None, plan.operation.needs or None)
            redaction.in_error(exc, self._supervisor.row(target.backend).endpoint or row.endpoint)
            raise
        finally:
            lease.release()
        record.attempted(target.backend, "ok")
        return usage

    async def _endpoint(
        self, plan: RequestPlan, target: Target, lease: Lease, record: RequestRecord
    ) -> tuple[Backend, Endpoint]:
        """Where the target is served now; waits for an engine that can be started, and for a place at a full one. What
        generates nothing needs no place.
        """
        row = self._supervisor.row(target.backend)
        if row.endpoint is None and not row.can_start:
            raise row.not_ready(time.time())
        needs_place = row.is_limited and plan.loads is None and not plan.operation.is_of_prompt
        if row.endpoint is None or needs_place:
            record.waits_for(lambda: self._supervisor.row(target.backend), "busy")
            began = time.perf_counter()
            try:
                limits = self._supervisor.table.limits
                asks = claim(plan, record.headers, limits.hold_s)
                await lease.admitted(max(limits.wait_s, row.wait_s or 0.0) + LATE_S, asks)
            finally:
                record.waited(row, began, self._supervisor.served_since(row.name))
            row = self._supervisor.row(target.backend)
            if row.endpoint is None:
                raise Stale(row.name, "it stopped again before the request could be sent", row.retry_after_s)
        lease.bind(row.endpoint.generation)
        return row, row.endpoint


def _more_telling(last: BackendError | None, now: NotTaken) -> BackendError:
    """Which of two failures the client hears of: one engine that has given up says nothing of another that is busy."""
    is_settled = isinstance(last, Taken) or isinstance(now, GivenUp)
    return last if is_settled and last is not None else now
