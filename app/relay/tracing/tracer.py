"""Which requests of a relay are traced, and where their spans go. Off until a table says otherwise."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from app.metrics import Metrics
from app.relay.http.request import FORWARDED, Request
from app.relay.planning.plan import RequestPlan
from app.relay.proxy.accounting import RequestRecord
from app.relay.tracing import otlp
from app.relay.tracing.collector import Delivery, TraceCollector
from app.relay.tracing.exporter import SpanExporter
from app.relay.tracing.spans import Span, Value
from app.relay.tracing.trace_context import SAMPLED, TraceContext, is_sampled, parsed
from app.relay.tracing.traced_record import TracedRecord, new_span_id, refusal
from app.table import Tracing
from app.usage.segments import SegmentWriter

Records: TypeAlias = Callable[[Metrics, Request, RequestPlan, SegmentWriter | None], RequestRecord]
SCOPE = "modelport"


def resource(settings: Tracing, instance: str, pid: int, host: str) -> dict[str, Value]:
    """What all spans of one relay have in common; what the configuration says comes before what we know."""
    return {
        "service.instance.id": instance,
        "process.pid": pid,
        "host.name": host,
        "telemetry.sdk.name": SCOPE,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": settings.attributes.get("service.version", ""),
        **settings.attributes,
    }


class Tracer:
    """The traces of one relay, which is one instance of the service, however often its settings change."""

    def __init__(self) -> None:
        self._instance = str(uuid.uuid4())
        self._settings: Tracing | None = None
        self._exporter: SpanExporter | None = None

    def follow(self, settings: Tracing | None) -> Records:
        """What makes a request's record from now on: a plain one where traces are off (None)."""
        if settings != self._settings:
            self._settings, last = settings, self._exporter
            if last is not None:  # what it has left is delivered while we go on
                asyncio.get_running_loop().run_in_executor(None, last.close)
            self._exporter = self._started(settings) if settings is not None else None
        if settings is None or self._exporter is None:
            return RequestRecord
        return partial(_record, settings, self._exporter)

    def refused(self, request: Request, status: int, code: str) -> None:
        """A request of a known client was refused before a backend was chosen: a span without children."""
        settings, exporter = self._settings, self._exporter
        if settings is not None and exporter is not None:
            context, parent = _context(settings, request)
            if context.is_sampled:
                _offer(exporter, [refusal(request, context, parent, status, code)])

    async def aclose(self) -> None:
        """Deliver what is left, within the exporter's time for it."""
        exporter, self._exporter, self._settings = self._exporter, None, None
        if exporter is not None:
            await asyncio.to_thread(exporter.close)

    def _started(self, settings: Tracing) -> SpanExporter:
        collector = TraceCollector(settings)
        version = settings.attributes.get("service.version", "")
        of_relay = resource(settings, self._instance, os.getpid(), socket.gethostname())

        def send(pieces: list[bytes], timeout_s: float) -> Delivery:
            return collector.send(otlp.request(of_relay, SCOPE, version, pieces), timeout_s)

        return SpanExporter(collector.name, send, settings.interval_s, settings.timeout_s)


def _record(
    settings: Tracing,
    exporter: SpanExporter,
    metrics: Metrics,
    request: Request,
    plan: RequestPlan,
    segments: SegmentWriter | None,
) -> RequestRecord:
    """The record of one request, which knows of its trace where that is sampled."""
    context, parent = _context(settings, request)
    if context.is_sampled:
        return TracedRecord(metrics, request, plan, segments, context, parent, partial(_offer, exporter))
    # A client's trace that nobody records goes on as it came. Any other is told to be not sampled: without that an
    # engine would record it on its own.
    if parent is None or parent.is_sampled:
        state = request.headers.get(FORWARDED[1])
        request.trace = [(FORWARDED[0], context.header), *([(FORWARDED[1], state)] if parent and state else [])]
    return RequestRecord(metrics, request, plan, segments)


def _context(settings: Tracing, request: Request) -> tuple[TraceContext, TraceContext | None]:
    """The request's own span, sampled or not, and its client's."""
    parent = parsed(request.headers.get(FORWARDED[0]))
    trace_id = parent.trace_id if parent is not None else f"{random.getrandbits(128) or 1:032x}"
    if is_sampled(settings.sampler, settings.ratio, parent, int(trace_id, 16)):
        return TraceContext(trace_id, new_span_id(), (parent.flags if parent is not None else 0) | SAMPLED), parent
    return TraceContext(trace_id, new_span_id(), 0), parent


def _offer(exporter: SpanExporter, spans: list[Span]) -> None:
    exporter.offer(otlp.encoded(spans))
