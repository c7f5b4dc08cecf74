"""Expressions of PromQL that the dashboards are made of. Pure.

Rates are taken over `$__rate_interval`, which Grafana makes out of the panel's width and the interval of scrapes.
A comparison at the end (`>= 0`, `> 0`) takes away what is no number: quantiles and ratios of nothing.
"""

from __future__ import annotations

from typing import Final

RATE: Final = "$__rate_interval"
MODEL: Final = "gen_ai_request_model"
BACKEND: Final = "modelport_backend"

# What the variables at the top of a dashboard leave.
GATEWAYS: Final = 'instance=~"$instance"'
BACKENDS: Final = f'{GATEWAYS},{BACKEND}=~"$backend"'
REQUESTS: Final = f'{GATEWAYS},{MODEL}=~"$model",{BACKEND}=~"$backend"'
ENGINES: Final = f'{GATEWAYS},backend=~"$backend"'  # the label of /metrics/engines

DURATION: Final = "gen_ai_server_request_duration_seconds"
FIRST_TOKEN: Final = "gen_ai_server_time_to_first_token_seconds"
PER_TOKEN: Final = "gen_ai_server_time_per_output_token_seconds"
TOKENS: Final = "gen_ai_client_token_usage"

# Failures are quick, or as slow as a time limit: they would hide how long answers take.
ANSWERED: Final = 'error_type=""'
# As in docker/prometheus/rules.yml. What an engine refused because of what the client wrote could not have been served;
# what generates nothing is quick, often asked, and would hide failures of what matters.
GENERATING: Final = 'gen_ai_operation_name!~".*token.*|load|render"'
COUNTED: Final = f'error_type!="engine_rejected",{GENERATING}'
FAILED: Final = f'error_type!~"|engine_rejected",{GENERATING}'


def rate(series: str, where: str, over: str = RATE) -> str:
    """How much a counter grows in a second."""
    return f"rate({series}{{{where}}}[{over}])"


def by(labels: str, expression: str, how: str = "sum") -> str:
    """One series for each value of these labels; of everything where there are none."""
    return f"{how} by ({labels}) ({expression})" if labels else f"{how}({expression})"


def quantile(share: float, series: str, where: str, labels: str = "", over: str = RATE) -> str:
    """A quantile of a histogram for each value of these labels; none where nothing was counted."""
    kept = f"le, {labels}" if labels else "le"
    return f"histogram_quantile({share}, {by(kept, rate(f'{series}_bucket', where, over))}) >= 0"


def mean(series: str, where: str, labels: str = "", over: str = RATE) -> str:
    """The mean of what a histogram or summary has counted; none where it has counted nothing."""
    return ratio(by(labels, rate(f"{series}_sum", where, over)), by(labels, rate(f"{series}_count", where, over)))


def ratio(part: str, whole: str) -> str:
    """A part of a whole with the same labels; none where the whole is nothing."""
    return f"{part} / ({whole} > 0)"


def share(part: str, whole: str) -> str:
    """The same, and 0 where the whole is there and its part was never counted."""
    return f"({part} or {whole} * 0) / ({whole} > 0)"


def failures(where: str, labels: str, over: str = RATE) -> str:
    """The share of the requests that failed, those that failed after their first byte included."""
    return share(
        by(labels, rate(f"{DURATION}_count", f"{where},{FAILED}", over)),
        by(labels, rate(f"{DURATION}_count", f"{where},{COUNTED}", over)),
    )


def start_seconds() -> str:
    """The mean seconds of the starts and wakes of each backend, since the gateway's start: they are rare, and the first
    is over before the first scrape.
    """
    total, count = (
        by(f"{BACKEND}, how", f"modelport_backend_start_seconds_{part}{{{BACKENDS}}}") for part in ("sum", "count")
    )
    return ratio(total, count)
