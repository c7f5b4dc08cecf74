"""Every Prometheus series of the data path, named once. Labels come from the configuration, never from a client.

Names follow OpenTelemetry's semantic conventions for generative AI where they have one. The relays keep them in memory
that the supervisor reads (app/shared_counters.py) and adds up (app/supervisor/metrics/relay_counters.py). Each series
has its heading in docs/metrics.md (a test holds it).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_REQUEST = ("gen_ai_operation_name", "gen_ai_request_model", "modelport_backend")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_OVERHEAD = (0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.1, 0.5, 2)
LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
LAG_EVERY_S: Final = 0.5
LAG_NAME: Final = "modelport_event_loop_lag_seconds"
LAG_HELP: Final = "How late an event loop came to what was due, looked at twice a second."


Labels = TypeVar("Labels", bound=tuple[str, ...])
Series = TypeVar("Series", Counter, Histogram)


@dataclass(frozen=True, slots=True)
class Children:
    """The series of one (operation, model, backend), bound once: looking labels up costs more than adding."""

    duration: Histogram
    first_token: Histogram
    per_token: Histogram
    input_tokens: Histogram
    output_tokens: Histogram
    overhead: Histogram
    in_flight: Gauge
    disconnects: Counter
    stream_errors: Counter


class Metrics:
    """The data path's series in one registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        histogram = partial(Histogram, registry=registry)
        self._duration = histogram(
            "gen_ai_server_request_duration_seconds",
            "From the last byte of the request's headers to the end of the answer.",
            (*_REQUEST, "error_type"),
            buckets=_SECONDS,
        )
        self._first_token = histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the last byte of the request's headers to the first token of a streamed answer.",
            _REQUEST,
            buckets=_FIRST,
        )
        self._per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the tokens of one streamed answer, after the first.",
            _REQUEST,
            buckets=_PER_TOKEN,
        )
        self._tokens = histogram(
            "gen_ai_client_token_usage",
            "Tokens of one request, by gen_ai_token_type (input, output).",
            (*_REQUEST, "gen_ai_token_type"),
            buckets=_TOKENS,
        )
        self._phases = _phases(registry)
        self._overhead = histogram(
            "modelport_overhead_seconds",
            "The gateway's own part: from a request's last header byte until it goes to a first engine, without waits.",
            _REQUEST,
            buckets=_OVERHEAD,
        )
        self._in_flight = Gauge(
            "modelport_in_flight",
            "Requests between their last header byte and the end of their answer.",
            _REQUEST,
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._attempts, self._fallbacks, self._rejected = _outcomes(registry)
        self._stream_errors, self._disconnects = _ends(registry)
        self._lag = _lag(registry)
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self._bound: dict[tuple[str, str, str], Children] = {}
        self._errors: dict[tuple[str, str, str, str], Histogram] = {}
        self._spent: dict[tuple[str, str, str, str], Histogram] = {}
        self._given_up: dict[tuple[str, str, str], Counter] = {}
        self._refusals: dict[tuple[str], Counter] = {}

    def of(self, operation: str, model: str, backend: str) -> Children:
        """The bound series of one operation, model label and backend."""
        labels = (operation, model, backend)
        children = self._bound.get(labels)
        if children is None:
            children = self._bound[labels] = Children(
                duration=self._duration.labels(*labels, ""),
                first_token=self._first_token.labels(*labels),
                per_token=self._per_token.labels(*labels),
                input_tokens=self._tokens.labels(*labels, "input"),
                output_tokens=self._tokens.labels(*labels, "output"),
                overhead=self._overhead.labels(*labels),
                in_flight=self._in_flight.labels(*labels),
                disconnects=self._disconnects.labels(*labels),
                stream_errors=self._stream_errors.labels(*labels),
            )
        return children

    def failed(self, operation: str, model: str, backend: str, error_type: str) -> Histogram:
        """The duration series of requests that ended with that error code."""
        return _child(self._errors, self._duration, (operation, model, backend, error_type))

    def phase(self, operation: str, model: str, backend: str, phase: str) -> Histogram:
        """The seconds that engines say they spent in one phase: load, prompt or generate."""
        return _child(self._spent, self._phases, (operation, model, backend, phase))

    def attempt(self, backend: str, outcome: str) -> Counter:
        """The counter of one outcome: `ok` or the error's code."""
        return _child(self._outcomes, self._attempts, (backend, outcome))

    def fallback(self, model: str, backend: str, reason: str) -> Counter:
        """The counter of how often this backend was given up for the next target, by the failure's outcome."""
        return _child(self._given_up, self._fallbacks, (model, backend, reason))

    def refused(self, reason: str) -> None:
        """Count a refusal with this error code."""
        _child(self._refusals, self._rejected, (reason,)).inc()

    def lag(self) -> Histogram:
        """How late the event loop of a relay is."""
        return self._lag.labels("relay")


async def watch_event_loop(observe: Callable[[float], None], every_s: float = LAG_EVERY_S) -> None:
    """Tell again and again how late this event loop comes to what is due, in seconds, until cancelled."""
    while True:
        due = time.perf_counter() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, time.perf_counter() - due))


def _child(bound: dict[Labels, Series], parent: Series, labels: Labels) -> Series:
    """The series of these labels, looked up in prometheus_client once."""
    child = bound.get(labels)
    if child is None:
        child = bound[labels] = parent.labels(*labels)
    return child


def _phases(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        "modelport_engine_phase_seconds",
        "What an engine says it spent on one request, by phase (load, prompt, generate). Ollama says it.",
        (*_REQUEST, "phase"),
        buckets=_SECONDS,
        registry=registry,
    )


def _outcomes(registry: CollectorRegistry) -> tuple[Counter, Counter, Counter]:
    attempts = Counter(
        "modelport_attempts_total",
        "Requests sent to an engine, or refused by it before it took them, by outcome.",
        ("modelport_backend", "outcome"),
        registry=registry,
    )
    fallbacks = Counter(
        "modelport_fallbacks_total",
        "Targets that were given up for the next one, by why.",
        ("gen_ai_request_model", "modelport_backend", "reason"),
        registry=registry,
    )
    rejected = Counter(
        "modelport_rejected_requests_total",
        "Requests that were refused before a backend was chosen, by error code.",
        ("reason",),
        registry=registry,
    )
    return attempts, fallbacks, rejected


def _ends(registry: CollectorRegistry) -> tuple[Counter, Counter]:
    stream_errors = Counter(
        "modelport_stream_errors_total",
        "Answers that failed after their first byte: one error event, and the connection was cut.",
        _REQUEST,
        registry=registry,
    )
    disconnects = Counter(
        "modelport_client_disconnects_total",
        "Clients that left before the end of their answer.",
        _REQUEST,
        registry=registry,
    )
    return stream_errors, disconnects


def _lag(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        LAG_NAME,
        LAG_HELP,
        ("process",),
        buckets=LAG_BOUNDS,
        registry=registry,
    )
