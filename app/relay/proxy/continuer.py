"""A stream whose engine failed in the middle goes on at another one, from the tokens that were told until then.

Once at most, and only where what both engines make their answers from is the same to the last byte
(docs/decisions.md, "A broken stream goes on").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

import structlog

from app.dialects.continuing import seam
from app.dialects.continuing.continued_chunks import ContinuedChunks
from app.dialects.continuing.permission import Continuable
from app.dialects.continuing.token_record import TokenRecord
from app.dialects.usage import Usage
from app.errors import JSON, outcome
from app.metrics import Metrics
from app.relay.http.request import Request
from app.relay.planning.plan import RequestPlan
from app.relay.proxy.accounting import RequestRecord
from app.relay.proxy.client_stream import ClientStream
from app.relay.proxy.multi_call import MultiCall
from app.relay.supervisor_client import Lease, SupervisorClient
from app.table import Backend, Table, Target
from backends import redaction
from backends.endpoint import Endpoint, State
from backends.errors import BackendError, Disconnected, EngineFailed, NotReady, Taken, TimedOut
from backends.http.exchange import Exchange
from backends.http.pool import ConnectionPool, UpstreamRequest

log = structlog.get_logger()

COMPLETIONS: Final = "/completions"
Placing = Callable[[RequestPlan, Target, Lease, RequestRecord], Awaitable[tuple[Backend, Endpoint]]]
Refusing = Callable[[Exchange, Target], Awaitable[BackendError]]


class _BrokenStream(NamedTuple):
    """What is known of it. `digest`: of what its engine made it from, None where that is not known."""

    stream: ClientStream
    continuable: Continuable
    tokens: TokenRecord | None
    target: Target
    digest: str | None
    error: Taken


def successors(
    targets: Iterable[Target],
    table: Table,
    broken: Target,
    digest: str,
    is_ejected: Callable[[Target], bool],
) -> list[Target]:
    """The targets that serve now what the broken one served, other engines than that."""
    return [
        target
        for target in targets
        if target.backend != broken.backend
        and (row := table.backends.get(target.backend)) is not None
        and row.state is State.READY
        and row.endpoint is not None
        and row.serving_digest(target.model) == digest
        and not is_ejected(target)
    ]


def is_of_the_engine(error: Taken, broken: Backend) -> bool:
    """Whether the engine has failed, or the way to it, and not at this very request."""
    if isinstance(error, EngineFailed):
        return any(mark in error.message for mark in broken.profile.failure_marks)
    return isinstance(error, Disconnected | TimedOut)


class Continuer:
    """Goes on with the streams of one relay. `place`: waits until a target may be asked, and where; `refused`: the
    error for a response that is not good."""

    def __init__(
        self, supervisor: SupervisorClient, pool: ConnectionPool, metrics: Metrics, place: Placing, refused: Refusing
    ) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._metrics = metrics
        self._place = place
        self._refused = refused

    async def go_on(
        self, request: Request, plan: RequestPlan, record: RequestRecord, target: Target, error: Taken
    ) -> Usage:
        """The rest of the stream that broke off at `target` with this error, which is raised where it does not go on.
        Call it for streams only that have `continuable`."""
        stream = record.stream
        assert stream is not None
        assert stream.continuable is not None
        digest = request.response.serving or self._digest(target, stream.endpoint)
        broken = _BrokenStream(stream, stream.continuable, stream.tokens, target, digest, error)
        label = plan.resolved.label
        why_not = self._why_not(broken)
        after = self._successor(plan, broken) if not why_not else None
        if why_not or after is None:
            self._metrics.continued(label, "refused").inc()
            reason = why_not or "no other engine serves the same now"
            log.warning(
                "stream not continued", request_id=request.id, model=label, backend=target.backend, reason=reason
            )
            raise error
        try:
            usage = await self._at(after, request, plan, record, broken)
        except BackendError as exc:
            self._metrics.continued(label, "failed").inc()
            log.warning(
                "stream not continued", request_id=request.id, model=label, backend=after.backend, reason=exc.message
            )
            raise error from exc
        self._metrics.continued(label, "continued").inc()
        log.info(
            "stream continued", request_id=request.id, model=label, backend=after.backend, instead_of=target.backend
        )
        return usage

    def _why_not(self, broken: _BrokenStream) -> str:
        if broken.continuable.why_not:
            return broken.continuable.why_not
        if not is_of_the_engine(broken.error, self._supervisor.row(broken.target.backend)):
            return broken.error.message
        tokens = broken.tokens
        if tokens is None or not tokens.ids or not broken.stream.has_event:
            return "it had no token yet"
        if not tokens.text:  # these may begin to think, or to call a tool, which engines tell only of later ones
            return "it had no text yet"
        if broken.digest is None:
            return "what its engine serves is not known to the last byte"
        return tokens.why_not

    def _digest(self, target: Target, endpoint: Endpoint | None) -> str | None:
        """Of a start whose files had not been read yet when it was asked, and have been meanwhile."""
        row = self._supervisor.row(target.backend)
        is_the_same = (
            endpoint is not None and row.endpoint is not None and row.endpoint.generation == endpoint.generation
        )
        return row.serving_digest(target.model) if is_the_same else None

    def _successor(self, plan: RequestPlan, broken: _BrokenStream) -> Target | None:
        assert broken.digest is not None
        equal = successors(
            plan.resolved.model.targets,
            self._supervisor.table,
            broken.target,
            broken.digest,
            self._supervisor.is_ejected,
        )
        return min(equal, key=lambda target: self._supervisor.in_flight(target.backend), default=None)

    async def _at(
        self, target: Target, request: Request, plan: RequestPlan, record: RequestRecord, broken: _BrokenStream
    ) -> Usage:
        """One try at another engine."""
        row = self._supervisor.row(target.backend)
        lease = Lease.on(self._supervisor, row, target.model)
        record.turn_to(target, row)
        request.response.serving = broken.digest
        try:
            row, endpoint = await self._place(plan, target, lease, record)
            if row.serving_digest(target.model) != broken.digest:
                raise NotReady(target.backend, "it serves something else now")
            usage = await self._ask(target, endpoint, request, record, broken)
        except BackendError as exc:
            record.attempted(target.backend, outcome(exc))
            redaction.in_error(exc, self._supervisor.row(target.backend).endpoint or row.endpoint)
            raise
        finally:
            lease.release()
        record.attempted(target.backend, "ok")
        return usage

    async def _ask(
        self, target: Target, endpoint: Endpoint, request: Request, record: RequestRecord, broken: _BrokenStream
    ) -> Usage:
        """Find the seam, and pass on what comes behind it."""
        continuable, tokens, engine = broken.continuable, broken.tokens, endpoint.engine
        assert tokens is not None

        async def refused(exchange: Exchange) -> BackendError:
            return await self._refused(exchange, target)

        calls = MultiCall(self._pool, endpoint, request.engine_headers(), refused)
        members = continuable.named(target.model)
        place = await calls.run(seam.find(tokens, members, continuable.limit, engine))
        body = continuable.rest(place.prompt, place.kept, target.model)
        record.waits_for(lambda: self._supervisor.row(target.backend))
        headers = request.engine_headers(JSON)
        exchange = await self._pool.open(endpoint, UpstreamRequest("POST", COMPLETIONS, body, headers))
        try:
            if exchange.status >= 300:
                raise await refused(exchange)
            chunks = ContinuedChunks(
                tokens,
                engine=engine,
                kept=place.kept,
                repeats=place.repeats,
                wants_usage=continuable.wants_usage,
                max_event_bytes=self._supervisor.table.limits.max_event_bytes,
            )
            return await broken.stream.go_on(exchange, chunks)
        finally:
            exchange.close()
