"""One sampled request while it runs, and the spans that it leaves: itself, each attempt, and in that the waits (`load`,
`queue`) and the time to the first token."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from app.dialects.usage import Usage
from app.metrics import Metrics
from app.relay.http.request import FORWARDED, Request
from app.relay.planning.plan import RequestPlan
from app.relay.proxy.accounting import RequestRecord
from app.relay.tracing.spans import CLIENT, INTERNAL, SERVER, Span, SpanEvent, Value
from app.relay.tracing.trace_context import TraceContext
from app.table import Backend, Target
from app.usage.segments import SegmentWriter
from backends.endpoint import State
from backends.http.exchange import ResponseTimings

MAX_READ_BYTES = 64 * 1024  # of a request's body, for its parameters
# How attempts and requests end without anybody's failure.
_NO_ERRORS = frozenset({"ok", "client_left"})


def new_span_id() -> str:
    """The id of one more span, 16 hex digits."""
    return f"{random.getrandbits(64) or 1:016x}"


@dataclass(slots=True)
class _Attempt:
    """One target, from the turn to it until it has answered or refused. Times are time.perf_counter()'s."""

    span_id: str
    began: float
    target: Target
    row: Backend
    ended: float = 0.0
    how: str = ""
    sent: float = 0.0
    waits: list[tuple[str, float, float, dict[str, Value]]] = field(default_factory=list)
    asked_again: list[tuple[float, str]] = field(default_factory=list)
    phases: dict[str, Value] = field(default_factory=dict)


class TracedRecord(RequestRecord):
    """A request's record that also notes what its spans are made of. `offer` gets them when it has ended.

    `context`: the request's own span; `parent`: the client's. Engines are told the span of the attempt.
    """

    def __init__(
        self,
        metrics: Metrics,
        request: Request,
        plan: RequestPlan,
        segments: SegmentWriter | None,
        context: TraceContext,
        parent: TraceContext | None,
        offer: Callable[[list[Span]], None],
    ) -> None:
        super().__init__(metrics, request, plan, segments)
        self._context = context
        self._parent = parent
        self._offer = offer
        self._tries: list[_Attempt] = []
        self._state = request.headers.get(FORWARDED[1], "") if parent is not None else ""
        # Monotonic clocks have no date.
        self._epoch_ns = time.time_ns() - int(time.perf_counter() * 1e9)

    def turn_to(self, target: Target, row: Backend) -> None:
        """As every request's; and a new attempt begins."""
        super().turn_to(target, row)
        attempt = _Attempt(new_span_id(), time.perf_counter(), target, row)
        self._tries.append(attempt)
        told = self._context._replace(span_id=attempt.span_id)
        state = [(FORWARDED[1], self._state)] if self._state else []
        self._request.trace = [(FORWARDED[0], told.header), *state]

    def waited(self, row: Backend, began: float, served_since: float) -> None:
        """As every request's; and a span for each part of the wait."""
        loaded_s, queued_s = self._load_s, self._queue_s
        super().waited(row, began, served_since)
        until = began + self._load_s - loaded_s
        waits = self._tries[-1].waits
        if until > began:
            waits.append(("load", began, until, {"modelport.load.how": _how(row)}))
        if self._queue_s > queued_s:
            waits.append(("queue", until, until + self._queue_s - queued_s, {}))

    def waits_for(self, backend: Callable[[], Backend], serving: str = "working") -> None:
        """As every request's; and by now it may be known where the engine is."""
        super().waits_for(backend, serving)
        row = backend()
        if row.endpoint is not None:
            self._tries[-1].row = row

    def sent(self) -> None:
        """As every request's; what is sent again after a refusal belongs to the same attempt."""
        super().sent()
        attempt = self._tries[-1]
        attempt.sent = attempt.sent or time.perf_counter()

    def attempted(self, backend: str, ended: str) -> None:
        """As every request's; and the attempt's span ends."""
        super().attempted(backend, ended)
        self._tries[-1].ended, self._tries[-1].how = time.perf_counter(), ended

    def asked_again(self, refusal: str) -> None:
        """As every request's; and the attempt shows it."""
        super().asked_again(refusal)
        self._tries[-1].asked_again.append((time.perf_counter(), refusal))

    def took(self, timings: ResponseTimings) -> None:
        """As every request's; and the attempt shows it."""
        super().took(timings)
        self._tries[-1].phases = {f"modelport.engine.{name}_s": round(s, 6) for name, s in timings.phases().items()}

    def _ended(self, ended: str, status: int, usage: Usage) -> None:
        super()._ended(ended, status, usage)
        now = time.perf_counter()
        for attempt in self._tries:
            if not attempt.how:  # whoever left or was told to end did so in the middle of it
                attempt.ended, attempt.how = now, ended
        spans = [self._root(now, ended, status, usage)]
        for attempt in self._tries:
            spans += self._of_attempt(attempt, usage if attempt is self._tries[-1] else Usage())
        self._offer(spans)

    # -- the spans

    def _root(self, now: float, ended: str, status: int, usage: Usage) -> Span:
        plan, request, last = self._plan, self._request, self._tries[-1] if self._tries else None
        attributes: dict[str, Value] = {
            **self._operation(plan.resolved.name),
            **({"gen_ai.provider.name": last.row.kind, "gen_ai.response.model": last.target.model} if last else {}),
            **_usage(usage),
            **({"error.type": ended} if ended != "ok" else {}),
            "http.request.method": request.method,
            "http.response.status_code": status,
            "url.path": request.path,
            "modelport.request_id": request.id,
            "modelport.backend": self._backend,
            "modelport.attempts": len(self._tries),
            "modelport.stream": plan.is_stream,
        }
        attributes |= _asked(plan.body)
        if plan.key is not None:
            attributes["modelport.principal"] = plan.key.name
        if plan.choices > 1:
            attributes["gen_ai.request.choice.count"] = plan.choices
        is_failure = status >= 500
        return Span(
            f"{plan.operation.name} {plan.resolved.label}",
            self._context.trace_id,
            self._context.span_id,
            self._parent.span_id if self._parent is not None else "",
            SERVER,
            self._ns(request.response.arrived),
            self._ns(now),
            attributes,
            ended if is_failure else "",
            trace_state=self._state,
            flags=self._context.flags,
        )

    def _of_attempt(self, attempt: _Attempt, usage: Usage) -> list[Span]:
        place, port = _place(attempt.row.endpoint.address) if attempt.row.endpoint is not None else ("", 0)
        attributes: dict[str, Value] = {
            **self._operation(attempt.target.model),
            "gen_ai.provider.name": attempt.row.kind,
            **_usage(usage),
            **({"error.type": attempt.how} if attempt.how != "ok" else {}),
            **({"server.address": place} if place else {}),
            **({"server.port": port} if port else {}),
            "modelport.backend": attempt.target.backend,
            **attempt.phases,
        }
        error = "" if attempt.how in _NO_ERRORS else attempt.how
        own = self._span(
            "attempt", attempt.span_id, self._context.span_id, attempt.began, attempt.ended, attributes, CLIENT, error
        )
        events = [SpanEvent("asked again", self._ns(at), {"error.type": how}) for at, how in attempt.asked_again]
        spans = [own._replace(events=events) if events else own]
        backend: dict[str, Value] = {"modelport.backend": attempt.target.backend}
        for name, began, until, more in attempt.waits:
            spans.append(self._span(name, new_span_id(), attempt.span_id, began, until, backend | more))
        first = self.stream.first_token_at if self.stream is not None else None
        if first is not None and attempt.sent and attempt.sent <= first <= attempt.ended:
            spans.append(self._span("first token", new_span_id(), attempt.span_id, attempt.sent, first, backend))
        return spans

    def _span(
        self,
        name: str,
        span_id: str,
        parent_id: str,
        began: float,
        ended: float,
        attributes: dict[str, Value],
        kind: int = INTERNAL,
        error: str = "",
    ) -> Span:
        times = self._ns(began), self._ns(ended)
        return Span(name, self._context.trace_id, span_id, parent_id, kind, *times, attributes, error)

    def _operation(self, model: str) -> dict[str, Value]:
        return {"gen_ai.operation.name": self._plan.operation.name, "gen_ai.request.model": model}

    def _ns(self, at: float) -> int:
        return self._epoch_ns + int(at * 1e9)


def refusal(request: Request, context: TraceContext, parent: TraceContext | None, status: int, code: str) -> Span:
    """The span of a request that was refused before a backend was chosen."""
    epoch_ns = time.time_ns() - int(time.perf_counter() * 1e9)
    key = request.key
    return Span(
        f"{request.method} {request.path}",
        context.trace_id,
        context.span_id,
        parent.span_id if parent is not None else "",
        SERVER,
        epoch_ns + int(request.response.arrived * 1e9),
        time.time_ns(),
        {
            "error.type": code,
            "http.request.method": request.method,
            "http.response.status_code": status,
            "url.path": request.path,
            "modelport.request_id": request.id,
            **({"modelport.principal": key.name} if key is not None else {}),
        },
        code if status >= 500 else "",
    )


class _Sampling(msgspec.Struct, frozen=True):
    """What of a request's parameters is a number, by OpenAI's names."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_sampling = msgspec.json.Decoder(_Sampling)
_NAMES = tuple((field, f"gen_ai.request.{field.replace('completion_', '')}") for field in _Sampling.__struct_fields__)


def _asked(body: bytes) -> dict[str, Value]:
    """The sampling parameters of a request in OpenAI's words; none of one that is large, or has other types there."""
    if not 0 < len(body) <= MAX_READ_BYTES:
        return {}
    try:
        given = _sampling.decode(body)
    except msgspec.MsgspecError:
        return {}
    return {name: value for field, name in _NAMES if (value := getattr(given, field)) is not None}


def _usage(usage: Usage) -> dict[str, Value]:
    attributes: dict[str, Value] = {}
    if usage.input_tokens:
        attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
    if usage.output_tokens:
        attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
    if isinstance(usage.finish_reason, str):
        attributes["gen_ai.response.finish_reasons"] = (usage.finish_reason,)
    return attributes


def _how(row: Backend) -> str:
    return "wake" if row.state is State.SLEEPING else "start"


@lru_cache(maxsize=1024)
def _place(address: str) -> tuple[str, int]:
    """Host and port of an engine's address; of a Unix socket its path, and no port."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:"), 0
    url = urlsplit(address)
    return url.hostname or "", url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
