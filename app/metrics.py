"""Every Prometheus series of the data path, named once. Labels come from the configuration, never from a client.

Names follow OpenTelemetry's semantic conventions for generative AI where they have one. The relays keep them in memory
that the supervisor reads (app/shared_counters.py) and adds up (app/supervisor/metrics/relay_counters.py). Each series
has its heading in docs/metrics.md (a test holds it).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.errors import TABLE
from app.shared_counters import Counter, Family, Gauge, Histogram, Labelled, SharedCounters
from app.table import Table

_REQUEST: Final = ("gen_ai_operation_name", "gen_ai_request_model", "modelport_backend")
_MODEL: Final = "gen_ai_request_model"
_BACKEND: Final = "modelport_backend"
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
LAG_EVERY_S: Final = 0.5
# What an attempt ends with: `ok`, or what app/errors.py's `outcome` says.
OUTCOMES: Final = ("ok", "engine_rejected", *dict.fromkeys(code for _, code, _ in TABLE.values()))
# Refusals that alerts ask for, and wrong keys: one of them has to be seen, too.
ALARMING: Final = ("internal_error", "too_many_bytes", "too_many_connections", "invalid_api_key")
PLACED_BY: Final = ("least_busy", "prefix", "session", "hash", "overflow")
CONTINUED_AS: Final = ("continued", "refused", "failed")
LIMITS: Final = ("rpm", "tpm", "max_parallel", "budget")  # of a key, as the configuration calls them
MOST_KEYS: Final = 200  # that have series of their own
OTHER_KEYS: Final = "other"  # in place of a name, for all others together

DURATION: Final = Family(
    "histogram",
    "gen_ai_server_request_duration_seconds",
    "From the last byte of the request's headers to the end of the answer.",
    (*_REQUEST, "error_type"),
    _SECONDS,
)
FIRST_TOKEN: Final = Family(
    "histogram",
    "gen_ai_server_time_to_first_token_seconds",
    "From the last byte of the request's headers to the first token of a streamed answer.",
    _REQUEST,
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
)
PER_TOKEN: Final = Family(
    "histogram",
    "gen_ai_server_time_per_output_token_seconds",
    "Mean time between the tokens of one streamed answer, after the first.",
    _REQUEST,
    (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56),
)
TOKENS: Final = Family(
    "histogram",
    "gen_ai_client_token_usage",
    "Tokens of one request, by gen_ai_token_type (input, output).",
    (*_REQUEST, "gen_ai_token_type"),
    (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0),
)
PHASES: Final = Family(
    "histogram",
    "modelport_engine_phase_seconds",
    "What an engine says it spent on one request, by phase (load, prompt, generate). Ollama says it.",
    (*_REQUEST, "phase"),
    _SECONDS,
)
OVERHEAD: Final = Family(
    "histogram",
    "modelport_overhead_seconds",
    "The gateway's own part: from a request's last header byte until it goes to a first engine, without waits.",
    _REQUEST,
    (0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.1, 0.5, 2.0),
)
IN_FLIGHT: Final = Family(
    "gauge",
    "modelport_in_flight",
    "Requests between their last header byte and the end of their answer.",
    _REQUEST,
)
ATTEMPTS: Final = Family(
    "counter",
    "modelport_attempts_total",
    "Requests sent to an engine, or refused by it before it took them, by outcome.",
    (_BACKEND, "outcome"),
)
FALLBACKS: Final = Family(
    "counter",
    "modelport_fallbacks_total",
    "Targets that were given up for the next one, by why.",
    (_MODEL, _BACKEND, "reason"),
)
REJECTED: Final = Family(
    "counter",
    "modelport_rejected_requests_total",
    "Requests that were refused before a backend was chosen, by error code.",
    ("reason",),
)
STREAM_ERRORS: Final = Family(
    "counter",
    "modelport_stream_errors_total",
    "Answers that failed after their first byte: one error event, and the connection was cut.",
    _REQUEST,
)
DISCONNECTS: Final = Family(
    "counter",
    "modelport_client_disconnects_total",
    "Clients that left before the end of their answer.",
    _REQUEST,
)
LAG: Final = Family(  # the supervisor's own is in the same family
    "histogram",
    "modelport_event_loop_lag_seconds",
    "How late an event loop came to what was due, looked at twice a second.",
    ("process",),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
RETRIES_DENIED: Final = Family(
    "counter",
    "modelport_retries_denied_total",
    "Requests that were not tried at another target, because too many such tries had failed.",
    (_MODEL,),
)
PLACEMENTS: Final = Family(
    "counter",
    "modelport_placements_total",
    "Requests by why they went to this of several equal engines.",
    (_MODEL, "by"),
)
CONTINUED: Final = Family(
    "counter",
    "modelport_continued_streams_total",
    "Streams that broke and were to go on at another engine, by what became of it.",
    (_MODEL, "outcome"),
)
LIMITED: Final = Family(
    "counter",
    "modelport_limited_total",
    "Requests that a key's own limits refused, by limit: rpm, tpm, max_parallel, budget.",
    ("key", "limit"),
)
FAMILIES: Final = (
    *(DURATION, FIRST_TOKEN, PER_TOKEN, TOKENS, PHASES, OVERHEAD, IN_FLIGHT),
    *(ATTEMPTS, FALLBACKS, REJECTED, STREAM_ERRORS, DISCONNECTS, LAG),
    *(RETRIES_DENIED, PLACEMENTS, CONTINUED, LIMITED),
)


class Children(msgspec.Struct, frozen=True):
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
    """The data path's series. What is asked for begins at 0 and stays."""

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self._duration = counters.histograms(DURATION)
        self._first_token = counters.histograms(FIRST_TOKEN)
        self._per_token = counters.histograms(PER_TOKEN)
        self._tokens = counters.histograms(TOKENS)
        self._phases = counters.histograms(PHASES)
        self._overhead = counters.histograms(OVERHEAD)
        self._in_flight = counters.gauges(IN_FLIGHT)
        self._attempts = counters.counters(ATTEMPTS)
        self._fallbacks = counters.counters(FALLBACKS)
        self._rejected = counters.counters(REJECTED)
        self._stream_errors = counters.counters(STREAM_ERRORS)
        self._disconnects = counters.counters(DISCONNECTS)
        self._lag = counters.histograms(LAG)["relay",]
        self._retries_denied = counters.counters(RETRIES_DENIED)
        self._placements = counters.counters(PLACEMENTS)
        self._continued = counters.counters(CONTINUED)
        self._limited = counters.counters(LIMITED)
        self._limited_keys: set[str] = set()  # those with series of their own
        self._bound: dict[tuple[str, str, str], Children] = {}
        _begin(self._rejected, (), ALARMING)

    def follow(self, table: Table) -> None:
        """Begin at 0 what may be counted of these backends and models, as far as its labels are known and few:
        Prometheus does not see the growth of a series that begins with its first event.
        """
        for backend in table.backends:
            _begin(self._attempts, (backend,), OUTCOMES)
        for model in table.models.values():
            if len(model.targets) > 1:
                _begin(self._placements, (model.name,), PLACED_BY)
            if len(model.targets) > 1 or model.fallbacks:
                _ = self._retries_denied[model.name,]
            if model.continues_streams:
                _begin(self._continued, (model.name,), CONTINUED_AS)
        for key in table.keys:
            if key.limits is not None and (key.name in self._limited_keys or len(self._limited_keys) < MOST_KEYS):
                self._limited_keys.add(key.name)
                _begin(self._limited, (key.name,), [each for each in LIMITS if getattr(key.limits, each) is not None])

    def of(self, operation: str, model: str, backend: str) -> Children:
        """The bound series of one operation, model label and backend."""
        labels = (operation, model, backend)
        children = self._bound.get(labels)
        if children is None:
            children = self._bound[labels] = Children(
                duration=self._duration[*labels, ""],
                first_token=self._first_token[labels],
                per_token=self._per_token[labels],
                input_tokens=self._tokens[*labels, "input"],
                output_tokens=self._tokens[*labels, "output"],
                overhead=self._overhead[labels],
                in_flight=self._in_flight[labels],
                disconnects=self._disconnects[labels],
                stream_errors=self._stream_errors[labels],
            )
        return children

    def failed(self, operation: str, model: str, backend: str, error_type: str) -> Histogram:
        """The duration series of requests that ended with that error code."""
        return self._duration[operation, model, backend, error_type]

    def phase(self, operation: str, model: str, backend: str, phase: str) -> Histogram:
        """The seconds that engines say they spent in one phase: load, prompt or generate."""
        return self._phases[operation, model, backend, phase]

    def attempt(self, backend: str, outcome: str) -> Counter:
        """The counter of one outcome: `ok` or the error's code."""
        return self._attempts[backend, outcome]

    def fallback(self, model: str, backend: str, reason: str) -> Counter:
        """The counter of how often this backend was given up for the next target, by the failure's outcome."""
        return self._fallbacks[model, backend, reason]

    def refused(self, reason: str) -> None:
        """Count a refusal with this error code."""
        self._rejected[reason,].inc()

    def retry_denied(self, model: str) -> Counter:
        """The counter of requests that were not tried at another target, by the model's label."""
        return self._retries_denied[model,]

    def placement(self, model: str, by: str) -> Counter:
        """The counter of requests that were placed by one of PLACED_BY."""
        return self._placements[model, by]

    def continued(self, model: str, outcome: str) -> Counter:
        """The counter of streams that were to go on at another engine, by one of CONTINUED_AS."""
        return self._continued[model, outcome]

    def limited(self, key: str, limit: str) -> Counter:
        """The counter of requests that one of LIMITS refused, by the key's name. Of the keys that the tables had the
        first MOST_KEYS have their own; the rest is OTHER_KEYS.
        """
        return self._limited[key if key in self._limited_keys else OTHER_KEYS, limit]

    def late(self, seconds: float) -> None:
        """Count how late the event loop of this relay is. Called twice a second, it is also where series that there was
        no memory for are tried again.
        """
        self._lag.observe(seconds)
        self._counters.settle()


def _begin(family: Labelled[Counter], labels: tuple[str, ...], last: Iterable[str]) -> None:
    """Have the family's series with each of these values for its last label."""
    for value in last:
        _ = family[*labels, value]


async def watch_event_loop(observe: Callable[[float], None], every_s: float = LAG_EVERY_S) -> None:
    """Tell again and again how late this event loop comes to what is due, in seconds, until cancelled."""
    while True:
        due = time.perf_counter() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, time.perf_counter() - due))
