"""app/relay/tracing/otlp.py: what is written is what OpenTelemetry's own encoder writes."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from app.relay.tracing import otlp
from app.relay.tracing.spans import CLIENT, INTERNAL, SERVER, Span, SpanEvent, Value

TRACE, ROOT, CHILD = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "0123456789abcdef"
RESOURCE: dict[str, Value] = {"service.name": "gateway", "process.pid": 4711}
ATTRIBUTES: dict[str, Value] = {
    "text": "Köln 😀",
    "empty": "",
    "long": "x" * 5000,
    "zero": 0,
    "one": 1,
    "yes": True,
    "no": False,
    "float": 1.0,
    "small": 0.25,
    "big": 2**62,
    "negative": -3,
    "list": ("stop", "length"),
}
SPANS = [
    Span("chat qwen", TRACE, ROOT, CHILD, SERVER, 1_800_000_000_000_000_001, 1_800_000_000_000_000_300, ATTRIBUTES),
    Span("attempt", TRACE, CHILD, ROOT, CLIENT, 5, 2**63 - 1, {}, "engine_failed"),
    Span("queue", TRACE, CHILD, "", INTERNAL, 5, 6, {"a": 1}, events=(SpanEvent("asked again", 7, {"b": True}),)),
    Span("n" * 300, TRACE, CHILD, ROOT, INTERNAL, 5, 6, {}, trace_state="vendor=1,other=2"),
]
KINDS = {SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT, INTERNAL: SpanKind.INTERNAL}


def theirs(span: Span) -> ReadableSpan:
    """The same as OpenTelemetry's span."""

    def context(span_id: str, *, is_remote: bool = False) -> SpanContext:
        state: Any = TraceState.from_header([span.trace_state] if span.trace_state else [])
        return SpanContext(int(TRACE, 16), int(span_id, 16), is_remote, TraceFlags(1), state)

    return ReadableSpan(
        span.name,
        context(span.span_id),
        context(span.parent_id, is_remote=span.kind == SERVER) if span.parent_id else None,
        Resource(dict(RESOURCE)),
        dict(span.attributes),
        [Event(event.name, dict(event.attributes), event.at_ns) for event in span.events],
        (),
        KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope("modelport", "1.2.3"),
    )


def encoded_by_them(spans: list[Span]) -> ExportTraceServiceRequest:
    """Theirs writes a status that says nothing, and leaves out the W3C flags, which the proto file has a place for."""
    request: ExportTraceServiceRequest = encode_spans([theirs(span) for span in spans])
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.flags |= 1
        if not span.status.code:
            span.ClearField("status")
    return request


def ours(spans: list[Span]) -> ExportTraceServiceRequest:
    pieces = [otlp.encoded([span]) for span in spans]
    request = ExportTraceServiceRequest()
    request.ParseFromString(otlp.request(RESOURCE, "modelport", "1.2.3", pieces))
    return request


@pytest.mark.parametrize("span", SPANS, ids=lambda span: span.name[:12])
def test_each_span_is_written_as_opentelemetry_writes_it(span: Span) -> None:
    assert ours([span]) == encoded_by_them([span])


def test_several_spans_are_one_request() -> None:
    assert ours(SPANS) == encoded_by_them(SPANS)


def test_equal_values_of_other_types_stay_what_they_are() -> None:
    for value in (True, 1, 1.0, True):
        (attribute,) = (
            ours([SPANS[0]._replace(attributes={"same": value})]).resource_spans[0].scope_spans[0].spans[0].attributes
        )
        kind = {bool: "bool_value", int: "int_value", float: "double_value"}[type(value)]

        assert attribute.value.WhichOneof("value") == kind
