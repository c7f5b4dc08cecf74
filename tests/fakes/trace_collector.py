"""A collector of traces on a real socket: it takes OTLP over HTTP, and reads it with OpenTelemetry's own classes."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PATIENCE_S = 20.0
NAMES = {0: "unset", 1: "ok", 2: "error"}


@dataclass
class CollectedSpan:
    """A span as it came. Ids are hex digits; times are Unix nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    status: str
    resource: dict[str, Any]
    trace_state: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class FakeTraceCollector:
    """Collects what comes. `status`: of its answers; while `holds` is set it does not answer."""

    def __init__(self, port: int = 0, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self.status = 200
        self.holds = threading.Event()
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.holds.clear()
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[CollectedSpan]:
        """All spans of all batches that it took."""
        return [span for body in list(self.bodies) for span in read(body)]

    def until(self, is_so: Callable[[list[CollectedSpan]], object]) -> list[CollectedSpan]:
        """The spans, once it is so. Blocks."""
        end = time.monotonic() + self._patience_s
        while not is_so(spans := self.spans):
            assert time.monotonic() < end, f"it did not come to be: {[span.name for span in spans]}"
            time.sleep(0.01)
        return spans

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                while collector.holds.is_set():
                    time.sleep(0.01)
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.paths.append(self.path)
                if collector.status == 200:
                    collector.bodies.append(body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        return Handler


def read(body: bytes) -> list[CollectedSpan]:
    """The spans of one request."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        CollectedSpan(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            kind=span.kind,
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            attributes={each.key: _value(each.value) for each in span.attributes},
            status=NAMES[span.status.code],
            resource={each.key: _value(each.value) for each in of_resource.resource.attributes},
            trace_state=span.trace_state,
            events=[(event.name, {each.key: _value(each.value) for each in event.attributes}) for event in span.events],
        )
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind is not None
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
