"""The first page: what users get. Rate, errors, latency, tokens and how full it is, for each model."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observe.dashboards import panels
from tests.observe.dashboards.panels import Column, Query, curves, figure, rows, states
from tests.observe.dashboards.series import (
    ANSWERED,
    BACKEND,
    BACKENDS,
    DURATION,
    FIRST_TOKEN,
    GATEWAYS,
    MODEL,
    PER_TOKEN,
    REQUESTS,
    TOKENS,
    by,
    failures,
    mean,
    quantile,
    rate,
    ratio,
    share,
)

EACH_MODEL = f"{{{{{MODEL}}}}}"
EACH_BACKEND = f"{{{{{BACKEND}}}}}"
LATE: panels.Levels = {2: "yellow", 10: "red"}
WRONG: panels.Levels = {0.01: "yellow", 0.05: "red"}
OUTPUT = f'{REQUESTS},gen_ai_token_type="output"'
WHOLE = f"{REQUESTS},{ANSWERED}"
INPUT = f'{REQUESTS},gen_ai_token_type="input"'


def overview() -> Dashboard:
    """The dashboard."""
    return panels.page(
        "overview",
        "Overview",
        "What users get: rate, errors, latency, tokens and saturation of each model",
        ("instance", "model", "backend"),
        {
            "Now": _now(),
            "Alerts and objectives": _objectives(),
            "Traffic": _traffic(),
            "Errors": _errors(),
            "Latency": _latency(),
            "Tokens": _tokens(),
            "Saturation": _saturation(),
        },
    )


def _now() -> list[panels.Panels]:
    started = by("", f'modelport_backend_state{{{BACKENDS},state=~"starting|ready|sleeping|failed"}} == 1', "count")
    ready = by("", f'modelport_backend_state{{{BACKENDS},state=~"ready|sleeping"}} == 1', "count")
    return [
        figure(
            "Requests",
            "Model requests that ended in each second, whatever their end",
            panels.PER_SECOND,
            by("", rate(f"{DURATION}_count", REQUESTS)),
        ),
        figure(
            "Failed",
            "The share of requests that failed: those that no engine took, those that an engine failed at, and streams "
            "that broke after their first byte. Refusals of wrong requests by the engine are not among them",
            panels.RATIO,
            failures(REQUESTS, ""),
            levels=WRONG,
            empty="no requests",
        ),
        figure(
            "First token, 95th percentile",
            "19 of 20 streamed answers began within this time",
            panels.SECONDS,
            quantile(0.95, FIRST_TOKEN, REQUESTS),
            levels=LATE,
            empty="no streams",
        ),
        figure(
            "Output tokens",
            "Tokens that the models wrote in each second, counted when their answers end",
            panels.TOKENS_PER_SECOND,
            by("", rate(f"{TOKENS}_sum", OUTPUT)),
        ),
        figure(
            "In flight",
            "Requests that are being answered or wait",
            panels.COUNT,
            by("", f"modelport_in_flight{{{REQUESTS}}}"),
        ),
        figure(
            "Engines that serve",
            "The share of the engines that are wanted (ready or asleep, of those that are not stopped)",
            panels.RATIO,
            share(ready, started),
            levels={0: "red", 0.999: "green"},
            empty="none is started",
        ),
        rows(
            "Models",
            "Each model over the time that is shown. Output tokens a second are those of one stream",
            {MODEL: "model"},
            Column(
                "requests", f"round({by(MODEL, f'increase({DURATION}_count{{{REQUESTS}}}[$__range])')})", panels.COUNT
            ),
            Column("failed", failures(REQUESTS, MODEL, "$__range"), panels.RATIO, WRONG),
            Column(
                "first token, p50",
                quantile(0.5, FIRST_TOKEN, REQUESTS, MODEL, "$__range"),
                panels.SECONDS,
                LATE,
            ),
            Column(
                "first token, p95",
                quantile(0.95, FIRST_TOKEN, REQUESTS, MODEL, "$__range"),
                panels.SECONDS,
                LATE,
            ),
            Column("whole answer, p95", quantile(0.95, DURATION, WHOLE, MODEL, "$__range"), panels.SECONDS),
            Column(
                "output tokens/s", f"1 / ({mean(PER_TOKEN, REQUESTS, MODEL, '$__range')} > 0)", panels.TOKENS_PER_SECOND
            ),
            Column("input tokens", f"round({by(MODEL, f'increase({TOKENS}_sum{{{INPUT}}}[$__range])')})", panels.COUNT),
            Column(
                "output tokens", f"round({by(MODEL, f'increase({TOKENS}_sum{{{OUTPUT}}}[$__range])')})", panels.COUNT
            ),
        ),
    ]


def _objectives() -> list[panels.Panels]:
    alert = 'ALERTS{{alertname=~"Modelport.*",alertstate="{}"}} * {}'

    def burns(what: str, objective: str) -> list[Query]:
        return [
            Query(
                f'job_model:{what}_per_requests:ratio_rate{window}{{{MODEL}=~"$model"}} '
                f"/ on () group_left () (1 - modelport:{objective}_objective:ratio)",
                f"{EACH_MODEL}, {window}",
            )
            for window in ("1h", "6h")
        ]

    return [
        states(
            "Alerts",
            "What docker/prometheus/rules.yml has to say: pending, or firing. docs/alerts.md says what to do. No data: "
            "nothing is wrong (or Prometheus has no rules)",
            Query(
                by("alertname", f"{alert.format('pending', 1)} or {alert.format('firing', 2)}", "max"), "{{alertname}}"
            ),
            {1: ("pending", "yellow"), 2: ("firing", "red")},
        ),
        *(
            curves(
                title,
                f"The burn rate: how many times as many {says} as the objective allows. At 1 the error budget of 30 "
                "days lasts for 30, at 14.4 for two (docs/alerts.md). The objectives are in "
                "docker/prometheus/rules.yml, for all gateways together",
                panels.COUNT,
                *burns(what, objective),
                levels={1: "yellow", 14.4: "red"},
            )
            for title, says, what, objective in (
                (
                    "Failures against the objective",
                    "requests fail",
                    "request_failures",
                    "availability",
                ),
                ("Slow first tokens", "first tokens come late", "slow_first_tokens", "first_token"),
                ("Slow answers", "answers take too long", "slow_requests", "duration"),
            )
        ),
    ]


def _traffic() -> list[panels.Panels]:
    return [
        curves(
            "Requests by model",
            "Model requests that ended in each second, by the public name that was asked for",
            panels.PER_SECOND,
            Query(by(MODEL, rate(f"{DURATION}_count", REQUESTS)), EACH_MODEL),
            is_stacked=True,
        ),
        curves(
            "Requests by backend",
            "The same by the engine that answered, or was tried last",
            panels.PER_SECOND,
            Query(by(BACKEND, rate(f"{DURATION}_count", REQUESTS)), EACH_BACKEND),
            is_stacked=True,
        ),
        curves(
            "Requests by operation",
            "The same by what was asked for: chat, embeddings, rerank, …",
            panels.PER_SECOND,
            Query(by("gen_ai_operation_name", rate(f"{DURATION}_count", REQUESTS)), "{{gen_ai_operation_name}}"),
            is_stacked=True,
        ),
    ]


def _errors() -> list[panels.Panels]:
    return [
        curves(
            "Failed share by model",
            "The share of requests that failed, streams that broke after their first byte included",
            panels.RATIO,
            Query(failures(REQUESTS, MODEL), EACH_MODEL),
            levels=WRONG,
            highest=1,
        ),
        curves(
            "Errors by code",
            "Failed requests in each second by error code; docs/errors.md says what each means. engine_rejected: the "
            "engine refused what the client wrote",
            panels.PER_SECOND,
            Query(by("error_type", rate(f"{DURATION}_count", f'{REQUESTS},error_type!=""')), "{{error_type}}"),
            is_stacked=True,
        ),
        curves(
            "Refused before a model was chosen",
            "Requests in each second that never reached a model (wrong key, unknown model, too large), by error code. "
            "They are in no other panel",
            panels.PER_SECOND,
            Query(f"{by('reason', rate('modelport_rejected_requests_total', GATEWAYS))} > 0", "{{reason}}"),
            is_stacked=True,
        ),
        curves(
            "Streams that broke",
            "Answers in each second that failed after their first byte, so that no status could say so",
            panels.COUNT_PER_SECOND,
            Query(by(MODEL, rate("modelport_stream_errors_total", REQUESTS)), EACH_MODEL),
            width=12,
        ),
        curves(
            "Clients that left",
            "Clients in each second that closed their connection before the end of their answer. Many of them: they "
            "wait for too long",
            panels.COUNT_PER_SECOND,
            Query(by(MODEL, rate("modelport_client_disconnects_total", REQUESTS)), EACH_MODEL),
            width=12,
        ),
    ]


def _spread(series: str, where: str = REQUESTS) -> list[Query]:
    return [Query(quantile(share, series, where), name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


def _latency() -> list[panels.Panels]:
    first, between, whole = (
        "From the request's headers to the first token of streamed answers",
        "The mean time between two tokens of one stream: what reading it feels like",
        "From the request's headers to the end of the answer, streamed or not; without those that failed",
    )
    return [
        curves("First token", first, panels.SECONDS, *_spread(FIRST_TOKEN), levels=LATE),
        curves("Between tokens", between, panels.SECONDS, *_spread(PER_TOKEN)),
        curves("Whole answer", whole, panels.SECONDS, *_spread(DURATION, WHOLE)),
        *(
            curves(
                f"{title} by model, 95th percentile",
                says,
                panels.SECONDS,
                Query(quantile(0.95, series, where, MODEL), EACH_MODEL),
            )
            for title, says, series, where in (
                ("First token", first, FIRST_TOKEN, REQUESTS),
                ("Between tokens", between, PER_TOKEN, REQUESTS),
                ("Whole answer", whole, DURATION, WHOLE),
            )
        ),
    ]


def _tokens() -> list[panels.Panels]:
    return [
        curves(
            "Output tokens by model",
            "Tokens that were written in each second, counted when answers end",
            panels.TOKENS_PER_SECOND,
            Query(by(MODEL, rate(f"{TOKENS}_sum", OUTPUT)), EACH_MODEL),
            is_stacked=True,
        ),
        curves(
            "Input tokens by model",
            "Tokens of prompts in each second, as the engines count them",
            panels.TOKENS_PER_SECOND,
            Query(by(MODEL, rate(f"{TOKENS}_sum", INPUT)), EACH_MODEL),
            is_stacked=True,
        ),
        curves(
            "Tokens of one request",
            "The mean length of prompts and answers",
            panels.COUNT,
            Query(mean(TOKENS, REQUESTS, "gen_ai_token_type"), "{{gen_ai_token_type}}"),
        ),
    ]


def _saturation() -> list[panels.Panels]:
    waiting = f"modelport_backend_waiting{{{BACKENDS}}}"
    limit = f"modelport_backend_waiting_limit{{{BACKENDS}}}"
    return [
        curves(
            "In flight by model",
            "Requests that are being answered or wait",
            panels.COUNT,
            Query(by(MODEL, f"modelport_in_flight{{{REQUESTS}}}"), EACH_MODEL),
            is_stacked=True,
        ),
        curves(
            "Waiting by backend",
            "Requests that wait for a place at an engine, or for its start",
            panels.COUNT,
            Query(by(BACKEND, waiting), EACH_BACKEND),
            is_stacked=True,
        ),
        curves(
            "How full the queues are",
            "Waiting requests as a share of those that may wait; at 100 % further ones are refused (429)",
            panels.RATIO,
            Query(ratio(by(BACKEND, waiting), by(BACKEND, limit)), EACH_BACKEND),
            levels={0.8: "red"},
            highest=1,
        ),
        curves(
            "Wait for a place, 95th percentile",
            "How long 19 of 20 requests waited at most for a place at an engine that takes only so many, by priority",
            panels.SECONDS,
            Query(
                quantile(0.95, "modelport_queue_wait_seconds", BACKENDS, f"{BACKEND}, priority"),
                f"{EACH_BACKEND} ({{{{priority}}}})",
            ),
            levels=LATE,
            width=12,
        ),
        curves(
            "Refused a place",
            "Requests in each second that were sent away at once. full: as many wait already as may; late: it would "
            "have had no place in its time",
            panels.PER_SECOND,
            Query(
                by(f"{BACKEND}, reason", rate("modelport_queue_refused_total", BACKENDS)),
                f"{EACH_BACKEND} ({{{{reason}}}})",
            ),
            is_stacked=True,
            width=12,
        ),
    ]
