"""The gateway itself: what it adds to a request, what it refuses, and how its processes are."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observe.dashboards import panels
from tests.observe.dashboards.panels import Column, Query, curves, figure, rows, states
from tests.observe.dashboards.series import (
    BACKEND,
    BACKENDS,
    DURATION,
    GATEWAYS,
    MODEL,
    REQUESTS,
    by,
    quantile,
    rate,
    ratio,
    start_seconds,
)

PROCESS: Final = "{{process}} ({{instance}})"
OF_PROCESS: Final = "instance, process"
ASKED: Final = f'{GATEWAYS},{MODEL}=~"$model"'


def gateway() -> Dashboard:
    """The dashboard."""
    return panels.page(
        "gateway",
        "Gateway",
        "The gateway itself: its own part of the time, what it refuses and tries again, its processes",
        ("instance", "model", "backend"),
        {
            "Now": _now(),
            "What it adds": _overhead(),
            "What becomes of requests": _requests(),
            "Replicas": _replicas(),
            "Processes": _processes(),
            "Engines' lives": _lives(),
        },
    )


def _now() -> list[panels.Panels]:
    return [
        figure(
            "Overhead, 99th percentile",
            "The gateway's own part, from a request's headers until an engine is asked, without waits",
            panels.SECONDS,
            quantile(0.99, "modelport_overhead_seconds", REQUESTS),
            levels={0.01: "yellow", 0.1: "red"},
            empty="no requests",
        ),
        figure(
            "Event-loop lag, 99th percentile",
            "How late the relays come to what is due. Above 0.1 s every stream stutters",
            panels.SECONDS,
            quantile(0.99, "modelport_event_loop_lag_seconds", f'{GATEWAYS},process="relay"'),
            levels={0.05: "yellow", 0.1: "red"},
        ),
        figure(
            "Open files",
            "Of the process that is nearest to its limit: the share of the files and connections that it may have open",
            panels.RATIO,
            f"max({ratio(f'modelport_open_files{{{GATEWAYS}}}', f'modelport_open_files_limit{{{GATEWAYS}}}')})",
            levels={0.8: "yellow", 0.9: "red"},
        ),
        figure(
            "Memory",
            "Resident memory of the supervisor and the relays, without the engines",
            panels.BYTES,
            by("", f"modelport_resident_memory_bytes{{{GATEWAYS}}}"),
        ),
        figure(
            "Relays",
            "Processes that carry the traffic",
            panels.COUNT,
            by("", f'modelport_open_files{{{GATEWAYS},process=~"relay.*"}}', "count"),
            levels={0: "red", 1: "green"},
            empty="none",
        ),
        figure(
            "State folder",
            "full: nothing can be written into the state folder (docs/operate.md#when-the-disk-is-full)",
            "bool_yes_no",
            by("", f"modelport_state_folder_full{{{GATEWAYS}}}", "max"),
            levels={1: "red"},
        ),
        rows(
            "Versions",
            "What runs where",
            {"instance": "gateway", "version": "version"},
            Column("answers", by("instance, version", f"modelport_build_info{{{GATEWAYS}}}", "max"), "bool_yes_no"),
            height=5,
        ),
    ]


def _overhead() -> list[panels.Panels]:
    return [
        curves(
            "Overhead",
            "The gateway's own part of a request, without the time the client took to send its body and without waits",
            panels.SECONDS,
            *(
                Query(quantile(part, "modelport_overhead_seconds", REQUESTS), name)
                for part, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
            levels={0.01: "yellow"},
        ),
        curves(
            "Event-loop lag, 99th percentile",
            "How late the supervisor and the relays come to what is due",
            panels.SECONDS,
            Query(
                quantile(0.99, "modelport_event_loop_lag_seconds", GATEWAYS, OF_PROCESS),
                PROCESS,
            ),
            levels={0.1: "red"},
        ),
        curves(
            "Time of a scrape",
            "How long the gateway took to say its metrics, as Prometheus measured",
            panels.SECONDS,
            Query(
                by(
                    "instance, job",
                    f"scrape_duration_seconds{{{GATEWAYS}}} and on (instance) modelport_build_info{{{GATEWAYS}}}",
                    "max",
                ),
                "{{job}} ({{instance}})",
            ),
            levels={1: "yellow"},
        ),
    ]


def _requests() -> list[panels.Panels]:
    return [
        curves(
            "Refused before a model was chosen",
            "Requests in each second by error code (docs/errors.md): wrong key, unknown model, too large, not JSON",
            panels.PER_SECOND,
            Query(f"{by('reason', rate('modelport_rejected_requests_total', GATEWAYS))} > 0", "{{reason}}"),
            is_stacked=True,
        ),
        curves(
            "Attempts by outcome",
            "What came of what was sent to engines, in each second",
            panels.PER_SECOND,
            Query(f"{by('outcome', rate('modelport_attempts_total', BACKENDS))} > 0", "{{outcome}}"),
            is_stacked=True,
        ),
        curves(
            "Attempts for one request",
            "1: each request went to one engine. More: fallbacks, or engines that were asked again for less",
            panels.COUNT,
            Query(
                ratio(
                    by("", rate("modelport_attempts_total", BACKENDS)),
                    by("", rate(f"{DURATION}_count", BACKENDS)),
                ),
                "attempts",
            ),
        ),
        curves(
            "Fallbacks",
            "Targets in each second that were given up for the next one, and why",
            panels.PER_SECOND,
            Query(
                by(f"{MODEL}, {BACKEND}, reason", rate("modelport_fallbacks_total", REQUESTS)),
                f"{{{{{MODEL}}}}}: {{{{{BACKEND}}}}} ({{{{reason}}}})",
            ),
            is_stacked=True,
        ),
        curves(
            "Streams that broke",
            "Answers in each second that failed after their first byte, by backend",
            panels.COUNT_PER_SECOND,
            Query(by(BACKEND, rate("modelport_stream_errors_total", REQUESTS)), f"{{{{{BACKEND}}}}}"),
        ),
        curves(
            "Clients that left",
            "Clients in each second that closed their connection before the end of their answer",
            panels.COUNT_PER_SECOND,
            Query(by(BACKEND, rate("modelport_client_disconnects_total", REQUESTS)), f"{{{{{BACKEND}}}}}"),
        ),
    ]


def _replicas() -> list[panels.Panels]:
    return [
        curves(
            "Why a replica was chosen",
            "Requests in each second for models with several equal engines, by what decided where they go. Many "
            "overflow: those that have the conversations are too busy",
            panels.PER_SECOND,
            Query(by("by", rate("modelport_placements_total", ASKED)), "{{by}}"),
            is_stacked=True,
        ),
        states(
            "Ejected",
            "When an engine got no requests because those before had failed, or were much slower than at its siblings",
            Query(by(BACKEND, f"modelport_backend_ejected{{{BACKENDS}}}", "max"), f"{{{{{BACKEND}}}}}"),
            {0: ("in use", "green"), 1: ("ejected", "red")},
            width=16,
        ),
        curves(
            "Ejections",
            "How often an engine was ejected in the last 15 minutes, and why",
            panels.COUNT,
            Query(
                by(f"{BACKEND}, reason", f"increase(modelport_ejections_total{{{BACKENDS}}}[15m])"),
                f"{{{{{BACKEND}}}}} ({{{{reason}}}})",
            ),
        ),
        curves(
            "Retries that were denied",
            "Requests in each second that failed at one engine and went to no other, because too many had",
            panels.PER_SECOND,
            Query(by(MODEL, rate("modelport_retries_denied_total", ASKED)), f"{{{{{MODEL}}}}}"),
        ),
        curves(
            "Broken streams that were to go on",
            "Streams in each second of models with `continue_streams`, by what became of them",
            panels.COUNT_PER_SECOND,
            Query(by("outcome", rate("modelport_continued_streams_total", ASKED)), "{{outcome}}"),
            is_stacked=True,
        ),
    ]


def _processes() -> list[panels.Panels]:
    return [
        curves(
            "CPU",
            "Cores that each process keeps busy. A relay at 1 is at its end: raise `server.relays`",
            panels.COUNT,
            Query(by(OF_PROCESS, rate("modelport_cpu_seconds_total", GATEWAYS)), PROCESS),
            levels={0.9: "red"},
            width=6,
        ),
        curves(
            "Memory",
            "Resident memory of each process",
            panels.BYTES,
            Query(by(OF_PROCESS, f"modelport_resident_memory_bytes{{{GATEWAYS}}}"), PROCESS),
            width=6,
        ),
        curves(
            "Open files",
            "The share of the files and connections that each process may have open",
            panels.RATIO,
            Query(
                ratio(
                    by(OF_PROCESS, f"modelport_open_files{{{GATEWAYS}}}"),
                    by(OF_PROCESS, f"modelport_open_files_limit{{{GATEWAYS}}}"),
                ),
                PROCESS,
            ),
            levels={0.9: "red"},
            highest=1,
            width=6,
        ),
        curves(
            "Running for",
            "Since each process was started. A curve that falls to the ground: it has died, and another has its place",
            panels.SECONDS,
            Query(f"time() - {by(OF_PROCESS, f'modelport_process_start_time_seconds{{{GATEWAYS}}}', 'max')}", PROCESS),
            width=6,
        ),
    ]


def _lives() -> list[panels.Panels]:
    each = f"{{{{{BACKEND}}}}}"
    return [
        curves(
            "Starts again",
            "Starts in the last 15 minutes after an engine had ended unasked",
            panels.COUNT,
            Query(by(BACKEND, f"increase(modelport_backend_restarts_total{{{BACKENDS}}}[15m])"), each),
            levels={3: "red"},
        ),
        curves(
            "Swaps",
            "How often an engine made room for another one in the last 15 minutes",
            panels.COUNT,
            Query(by(BACKEND, f"increase(modelport_backend_swaps_total{{{BACKENDS}}}[15m])"), each),
            levels={30: "red"},
        ),
        curves(
            "Seconds to start and to wake",
            "How long starts (how: start) and ends of a sleep (how: wake) took, the mean since the gateway's start",
            panels.SECONDS,
            Query(start_seconds(), f"{each}: {{{{how}}}}"),
        ),
    ]
