"""What a real vLLM records of a request stands below the attempt that the gateway recorded of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.trace_collector import CollectedSpan, FakeTraceCollector
from tests.journeys.gateway import until
from tests.live.engines import Live, Record, backend, config

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SLOW_S = 60.0  # vLLM hands its spans over every five seconds, as OpenTelemetry's packages do


@pytest.fixture(scope="module")
def collector() -> Iterator[FakeTraceCollector]:
    with FakeTraceCollector(patience_s=SLOW_S) as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, collector: FakeTraceCollector) -> Iterator[Live]:
    url = f"{collector.url}/v1/traces"
    engine = backend("tiny", sleep="1", unload_after_s="3", args=json.dumps(["--otlp-traces-endpoint", url])).replace(
        "env: {",
        "env: {OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: http/protobuf, OTEL_SERVICE_NAME: vllm-tiny, "
        "OTEL_BSP_SCHEDULE_DELAY: '100', ",
    )
    tracing = f"tracing: {{endpoint: '{collector.url}', interval_s: 0.1}}\n"
    with Live(Path(tmp_path_factory.mktemp("traced")), tracing + config(engine)) as program:
        program.ready("tiny")
        yield program


def of(spans: list[CollectedSpan], service: str, name: str = "") -> list[CollectedSpan]:
    return [
        span
        for span in spans
        if span.resource["service.name"] == service and span.trace_id == TRACE and span.name.startswith(name)
    ]


@pytest.mark.full
def test_vllms_span_is_a_child_of_the_attempt(
    gateway: Live, collector: FakeTraceCollector, record_property: Record
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True}
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    reply = gateway.post("/v1/chat/completions", body, headers)
    spans = collector.until(lambda all_: of(all_, "vllm-tiny", "llm_request") and of(all_, "modelport"))
    (root,), (attempt,) = of(spans, "modelport", "chat"), of(spans, "modelport", "attempt")
    theirs = of(spans, "vllm-tiny")

    assert reply.status_code == 200
    assert (root.parent_id, attempt.parent_id) == (SPAN, root.span_id)
    assert {span.parent_id for span in theirs if span.name == "llm_request"} == {attempt.span_id}
    record_property("vLLM's spans", [(span.name, sorted(span.attributes)) for span in theirs])


@pytest.mark.full
def test_a_request_that_wakes_it_shows_how_long_that_took(
    gateway: Live, collector: FakeTraceCollector, record_property: Record
) -> None:
    until(lambda: bool(gateway.backend("tiny")["state"] == "sleeping"))
    reply = gateway.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]})
    (load,) = [
        span for span in collector.until(lambda all_: [s for s in all_ if s.name == "load"]) if span.name == "load"
    ]

    assert reply.status_code == 200
    assert load.attributes == {"modelport.backend": "tiny", "modelport.load.how": "wake"}
    record_property("a wake, in seconds", round((load.end_ns - load.start_ns) / 1e9, 3))
