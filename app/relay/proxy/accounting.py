"""What is known of one model request while it runs, and what is counted and logged of it, exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from app.dialects.usage import Usage
from app.errors import Problem, key_revoked, outcome, problem, shutting_down
from app.metrics import Children, Metrics
from app.relay.balancing.outliers import Siblings
from app.relay.balancing.target_health import TargetHealth
from app.relay.http.request import Request
from app.relay.limits.prepaid import Prepaid
from app.relay.limits.reservation import Reservation, is_worked_on
from app.relay.planning.plan import RequestPlan
from app.relay.planning.token_estimate import estimate
from app.relay.proxy.client_stream import ClientStream
from app.relay.tracing import trace_context
from app.table import Backend, Target
from app.usage.record import encoded
from app.usage.segments import SegmentWriter
from backends.endpoint import State
from backends.errors import BackendError
from backends.http.exchange import ResponseTimings

log = structlog.get_logger()

_NO_KEY: Final = ("", "", None)
CLIENT_LEFT = 499  # nginx's number for it; no client ever sees it


class RequestRecord:
    """A request's stream, its times and its metrics. One of `settled`, `fail`, `left` and `shut_down` is called, then
    `close`; `ending` before what says to the client that its response is whole."""

    # How each begins.
    stream: ClientStream | None = None
    _reservation: Reservation | Prepaid | None = None  # of its key's limits, where it has some
    _load_s = _queue_s = 0.0
    _is_sent = _is_counted = _is_retry = False
    _series: Children | None = None
    _backend = ""
    _attempts = 0
    _given_up: tuple[str, str] | None = None  # the backend of the latest attempt, and how it failed
    _siblings: Siblings | None = None  # where its model has several targets
    _health: TargetHealth | None = None  # of the target that it is at

    def __init__(self, metrics: Metrics, request: Request, plan: RequestPlan, segments: SegmentWriter | None) -> None:
        """`segments`: where its usage record is written; None: nowhere."""
        self._metrics = metrics
        self._segments = segments
        self._request = request
        self._plan = plan
        self._waited_s = request.upload_s
        if not plan.is_stream:
            return
        response, limits = request.response, request.table.limits
        self.stream = ClientStream(response, request.base, limits, plan.choices, request.encoder)
        if segments is not None:
            self.stream.ending = self.ending

    @property
    def headers(self) -> Mapping[str, str]:
        """What the client has sent, by names in lower case."""
        return self._request.headers

    @property
    def has_begun(self) -> bool:
        """Whether the client has got a part of the response."""
        return self.stream is not None and self.stream.has_event

    def watched_by(self, siblings: Siblings) -> None:
        """It may go to several targets: those of whom what becomes of it is noted."""
        self._siblings = siblings

    def holds(self, reservation: Reservation | Prepaid) -> None:
        """This was spent for it of its key's limits, and is settled when it ends."""
        self._reservation = reservation

    def turn_to(self, target: Target, row: Backend) -> None:
        """This target is tried next: the request is counted under its backend's name from now on."""
        if self._series is not None:
            self._series.in_flight.dec()
        self._backend = backend = target.backend
        self._attempts += 1
        self._request.response.served_by(self._plan.resolved.name, backend, self._attempts)
        self._series = self._metrics.of(self._plan.operation.name, self._plan.resolved.label, backend)
        self._series.in_flight.inc()
        if self._siblings is not None:
            self._health = self._siblings.health(target)
            self._is_retry = self._is_sent

    def attempted(self, backend: str, ended: str) -> None:
        """An attempt at this backend ended: `ok`, or the failure's outcome."""
        self._metrics.attempt(backend, ended).inc()
        self._given_up = None if ended == "ok" else (backend, ended)
        if self._siblings is not None and self._health is not None:
            first_token_at = self.stream.first_token_at if self.stream is not None else None
            self._siblings.ended(self._health, self, ended, first_token_at)
            if ended == "ok":
                self._siblings.budget.answered()
            elif self._is_retry:
                self._siblings.budget.failed()

    def may_retry(self) -> bool:
        """Whether one more target may be asked; counts it where not. The first that is sent the request always may."""
        return self._siblings is None or not self._is_sent or self._siblings.may_retry()

    def asked_again(self, refusal: str) -> None:
        """The engine has refused it as it was (by that outcome), and is asked once more in the same attempt."""
        self._metrics.attempt(self._backend, refusal).inc()

    def next_target(self) -> None:
        """Another target is tried; where one was tried before, it is given up."""
        if self._given_up is not None:
            self._metrics.fallback(self._plan.resolved.label, *self._given_up).inc()

    def waits_for(self, backend: Callable[[], Backend], serving: str = "working") -> None:
        """What a stream's comments say while nothing comes: the backend's state at that time, or `serving` where it is
        ready."""
        if self.stream is not None:
            self.stream.waits_for = lambda: f"{self._plan.resolved.label} ({situation(backend(), serving)})"

    def took(self, timings: ResponseTimings) -> None:
        """Count the seconds that the engine reports for each phase."""
        if self._series is None:
            return
        for phase, seconds in timings.phases().items():
            labels = (self._plan.operation.name, self._plan.resolved.label, self._backend)
            self._metrics.phase(*labels, phase).observe(seconds)

    def waited(self, row: Backend, began: float, served_since: float) -> None:
        """It has waited until now for a backend, which `row` shows as it was when that `began`: for its engine to serve
        and, once it did (`served_since`), for a place. That is not the gateway's own time."""
        now = time.perf_counter()
        loaded = began if row.endpoint is not None else served_since if began < served_since < now else now
        self._waited_s += now - began
        self._load_s += loaded - began
        self._queue_s += now - loaded

    def sent(self) -> None:
        """It is sent to an engine. Only the first time shows the gateway's own part: later ones follow a refusal."""
        if self._series is not None and not self._is_sent:
            self._is_sent = True
            response = self._request.response
            response.asked_at = now = time.perf_counter()
            self._series.overhead.observe(now - response.arrived - self._waited_s)
        if self._siblings is not None and self._health is not None:
            operation = self._plan.operation.name
            self._siblings.sent(self._health, self, operation, is_stream=self.stream is not None)

    def ending(self, usage: Usage, ended: str = "ok", status: int = 200) -> None:
        """The response is complete but for its end mark, which goes out next: whoever has it has been counted, even if
        this process is killed in the next instant. Its usage record is written here, once."""
        segments = self._segments
        if segments is None:
            return
        self._segments = None
        request, plan, stream = self._request, self._plan, self.stream
        response, resolved, key = request.response, plan.resolved, plan.key
        arrived, price = response.arrived, resolved.model.price
        first = stream.first_token_at if stream is not None else None
        if not usage.input_tokens and is_worked_on(ended, usage, self._is_sent):
            # Engines say it at the end, if at all: whoever leaves before that has had it read, too.
            prompt = estimate(plan, 0)[0]
            usage = msgspec.structs.replace(usage, input_tokens=prompt, is_counted=usage.is_counted or prompt > 0)
        key_id, key_name, team = (key.id or key.name, key.name, key.team) if key is not None else _NO_KEY
        segments.write(
            encoded(
                (
                    time.time(),
                    key_id,
                    key_name,
                    team,
                    # Behind a wildcard a client may ask for anything.
                    resolved.name if ended == "ok" else resolved.label,
                    self._backend,
                    response.serving,
                    plan.operation.name,
                    request.path,
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cached_tokens,
                    usage.reasoning_tokens,
                    usage.is_counted,
                    0.0 if price is None else price.of(usage.input_tokens, usage.output_tokens, usage.cached_tokens),
                    time.perf_counter() - arrived,
                    None if first is None else first - arrived,
                    self._load_s,
                    self._queue_s,
                    self._attempts,
                    ended,
                    status,
                    request.id,
                    stream is not None,
                )
            )
        )

    def settled(self, usage: Usage) -> None:
        """The response is complete."""
        self._is_counted = True
        series = self._series
        if series is None:
            return
        took_s = self._took_s()
        series.duration.observe(took_s)
        _count_tokens(series, usage)
        first = self.stream.first_token_at if self.stream is not None else None
        if first is not None:
            first_s = first - self._request.response.arrived
            series.first_token.observe(first_s)
            if usage.output_tokens > 1:
                series.per_token.observe((took_s - first_s) / (usage.output_tokens - 1))
        self._ended("ok", 200, usage)

    def fail(self, error: BackendError) -> None:
        """An engine failed, or none took the request: tell the client."""
        self._end(problem(error), outcome(error))

    def shut_down(self) -> None:
        """The time to drain is over, and only what was not sent to an engine yet may be sent again; or the client's key
        was revoked."""
        if self._request.response.is_revoked:
            self._end(key_revoked(), "key_revoked")
            return
        self._end(shutting_down(may_retry=not self._is_sent), "shutting_down")

    def _end(self, failure: Problem, ended: str) -> None:
        """Tell the client: as a status or, once the response has begun, as an event and a cut connection."""
        is_begun, stream = self._request.response.is_started, self.stream
        if stream is not None and not (is_begun or stream.tells(failure)):
            stream = None
        usage = stream.settle() if stream is not None else Usage()
        self.ending(usage, ended, failure.status)
        if stream is not None:
            stream.fail(failure)
        else:
            self._request.refuse(failure)
        self._count_failure(ended, usage, is_begun=is_begun)
        self._ended(ended, failure.status, usage)

    def _count_failure(self, ended: str, usage: Usage, *, is_begun: bool) -> None:
        self._is_counted = True
        if self._series is not None:
            if is_begun:
                self._series.stream_errors.inc()
            _count_tokens(self._series, usage)
            labels = (self._plan.operation.name, self._plan.resolved.label, self._backend)
            self._metrics.failed(*labels, ended).observe(self._took_s())

    def left(self) -> None:
        """The client has gone. What was generated until then is counted too."""
        self._is_counted = True
        usage = self.stream.settle() if self.stream is not None else Usage()
        if self._series is not None:
            self._series.disconnects.inc()
            _count_tokens(self._series, usage)
        self._ended("client_left", CLIENT_LEFT, usage)

    def close(self) -> None:
        """The request is over, however it ended. One of which nothing was said yet ended by a mistake of our own."""
        if not self._is_counted:
            self._count_failure("internal_error", Usage(), is_begun=self._request.response.is_started)
            self._ended("internal_error", 500, Usage())
        if self.stream is not None:
            self.stream.close()
        if self._health is not None:
            self._health.left(self)
        if self._series is not None:
            self._series.in_flight.dec()

    def _took_s(self) -> float:
        return time.perf_counter() - self._request.response.arrived

    def _ended(self, ended: str, status: int, usage: Usage) -> None:
        """Settle what it holds of its key's limits, and keep its usage record. Log a request that the gateway or an
        engine failed at; every request where the configuration asks for it."""
        reservation = self._reservation
        if reservation is not None:
            self._reservation = None
            reservation.end(ended, usage, self._is_sent, self._plan)
        self.ending(usage, ended, status)
        is_failure = status >= 500
        if not is_failure and not self._request.table.access_log:
            return
        first = self.stream.first_token_at if self.stream is not None else None
        (log.warning if is_failure else log.info)(
            "request failed" if is_failure else "request",
            request_id=self._request.id,
            principal=self._plan.key.name if self._plan.key is not None else None,
            operation=self._plan.operation.name,
            model=self._plan.resolved.label,
            backend=self._backend,
            status=status,
            outcome=ended,
            finish_reason=usage.finish_reason,
            streamed=self._request.response.is_started and self.stream is not None,
            attempts=self._attempts,
            seconds=round(self._took_s(), 4),
            load_s=round(self._load_s, 4),
            queue_s=round(self._queue_s, 4),
            first_token_s=round(first - self._request.response.arrived, 4) if first is not None else None,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            trace_id=trace_context.trace_id_of(self._request.traceparent),
        )


def situation(backend: Backend, serving: str = "working") -> str:
    """The backend's state in words for a client that waits for it, with the reason while it starts; `serving` where it
    is ready."""
    if backend.state is State.READY:
        return serving
    if backend.state is State.STARTING and backend.reason:
        return f"{backend.state}: {' '.join(backend.reason.split())}"
    return str(backend.state)


def _count_tokens(series: Children, usage: Usage) -> None:
    if usage.input_tokens:
        series.input_tokens.observe(usage.input_tokens)
    if usage.output_tokens:
        series.output_tokens.observe(usage.output_tokens)
