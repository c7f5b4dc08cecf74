"""What `modelport top` shows, made of two looks at the gateway's status and counters. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from app.cli.top_keys import KeyLine, StoreLine, TeamLook, key_lines, store_line

_SUMS: Final = {
    ("gen_ai_server_request_duration_seconds_count", None): "requests",
    ("modelport_in_flight", None): "in_flight",
    ("gen_ai_client_token_usage_sum", "input"): "input_tokens",
    ("gen_ai_client_token_usage_sum", "output"): "output_tokens",
}
_FIRST_TOKEN: Final = "gen_ai_server_time_to_first_token_seconds_bucket"  # noqa: S105
_GPU: Final = {
    "modelport_gpu_memory_used_bytes": "used_bytes",
    "modelport_gpu_memory_total_bytes": "total_bytes",
    "modelport_gpu_utilization_ratio": "busy",
}


@dataclass(frozen=True, slots=True)
class Look:
    """One look: `at` in seconds of a clock that only goes forward; `status`: the answer of `/admin/status`; `sums`: by
    public name what was counted since the gateway's start; `first_tokens`: by public name how many streamed answers had
    their first token within so many seconds; `gpus`: by device its memory in bytes, and how busy it is (0 to 1).
    `team`: keys and the store.
    """

    at: float
    status: Mapping[str, Any]
    sums: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    first_tokens: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    gpus: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    team: TeamLook = field(default_factory=TeamLook)


def look(at: float, status: Mapping[str, Any], metrics: str) -> Look:
    """The look with this answer and this text of `/metrics`; of both, what is not known here is passed over."""
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    firsts: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    gpus: defaultdict[str, dict[str, float]] = defaultdict(dict)
    team = TeamLook()
    for family in text_string_to_metric_families(metrics):
        for name, labels, value, *_ in family.samples:
            model = labels.get("gen_ai_request_model", "")
            if (what := _SUMS.get((name, labels.get("gen_ai_token_type")))) is not None:
                sums[model][what] += value
                if what == "requests" and labels.get("error_type"):
                    sums[model]["errors"] += value
            elif name == _FIRST_TOKEN:
                firsts[model][float(labels["le"])] += value
            elif (what := _GPU.get(name)) is not None:
                gpus[labels.get("device", "")][what] = value
            else:
                team.see(name, labels, value)
    return Look(at, status, sums, firsts, gpus, team)


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One public name. `requests_s` and the tokens are rates over the time between two looks, None where there was only
    one; tokens count when their answer ends. `first_token_s`: the median of that time, else of all answers so far.
    `errors`: how many requests failed since the gateway's start.
    """

    name: str
    state: str
    in_flight: int
    requests_s: float | None
    input_tokens_s: float | None
    output_tokens_s: float | None
    first_token_s: float | None
    errors: int


@dataclass(frozen=True, slots=True)
class BackendLine:
    """One backend. `since_s`: for how long it has had this state; `note`: why it does not serve."""

    name: str
    kind: str
    state: str
    since_s: float
    in_flight: int
    waiting: int
    restarts: int
    devices: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class GpuLine:
    """One GPU; `busy` from 0 to 1, None where the driver does not say it."""

    device: str
    used_gb: float
    total_gb: float
    busy: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that is shown. `window_s`: over how long the rates are, None for one look."""

    version: str
    status: str
    address: str
    uptime_s: float
    window_s: float | None
    in_flight: int
    waiting: int
    requests_s: float | None
    output_tokens_s: float | None
    models: tuple[ModelLine, ...]
    backends: tuple[BackendLine, ...]
    gpus: tuple[GpuLine, ...]
    keys: tuple[KeyLine, ...] = ()
    store: StoreLine | None = None


def overview(now: Look, before: Look | None) -> Overview:
    """What is shown of the gateway now. `before`: an earlier look, for the rates; one of an earlier gateway does not
    count.
    """
    if before is not None and (before.status["pid"] != now.status["pid"] or before.at >= now.at):
        before = None
    health = now.status["health"]
    states = {model["name"]: str(model["state"]) for model in health["models"]}
    # Names that a wildcard stands for have no line in the health, but they are counted.
    others = sorted(name for name, sums in now.sums.items() if name not in states and sums.get("requests"))
    models = tuple(_model(name, states.get(name, ""), now, before) for name in (*states, *others))
    backends = tuple(map(_backend, health["backends"]))
    return Overview(
        version=health["version"],
        status=health["status"],
        address=now.status["address"],
        uptime_s=health["uptime_s"],
        window_s=now.at - before.at if before is not None else None,
        in_flight=now.status["leases"],
        waiting=sum(each.waiting for each in backends),
        requests_s=_total(models, "requests_s"),
        output_tokens_s=_total(models, "output_tokens_s"),
        models=models,
        backends=backends,
        gpus=tuple(_gpu(device, figures) for device, figures in sorted(now.gpus.items())),
        keys=key_lines(now.team, before.team if before is not None else None, now.at - before.at if before else 0.0),
        store=store_line(now.team),
    )


def _total(models: Sequence[ModelLine], what: str) -> float | None:
    rates = [rate for each in models if (rate := getattr(each, what)) is not None]
    return math.fsum(rates) if rates else None


def _model(name: str, state: str, now: Look, before: Look | None) -> ModelLine:
    sums = now.sums.get(name, {})
    return ModelLine(
        name=name,
        state=state,
        in_flight=round(sums.get("in_flight", 0.0)),
        requests_s=_rate("requests", name, now, before),
        input_tokens_s=_rate("input_tokens", name, now, before),
        output_tokens_s=_rate("output_tokens", name, now, before),
        first_token_s=_first_token(name, now, before),
        errors=round(sums.get("errors", 0.0)),
    )


def _rate(what: str, name: str, now: Look, before: Look | None) -> float | None:
    if before is None:
        return None
    counted = now.sums.get(name, {}).get(what, 0.0) - before.sums.get(name, {}).get(what, 0.0)
    return max(0.0, counted) / (now.at - before.at)


def _first_token(name: str, now: Look, before: Look | None) -> float | None:
    all_counts = now.first_tokens.get(name, {})
    earlier = before.first_tokens.get(name, {}) if before is not None else {}
    recent = {bound: count - earlier.get(bound, 0.0) for bound, count in all_counts.items()}
    median = quantile(0.5, recent)
    return median if median is not None else quantile(0.5, all_counts)


def quantile(share: float, counts: Mapping[float, float]) -> float | None:
    """The quantile of a histogram, as Prometheus has it: by its buckets, each of which includes those below it, evenly
    within one. None for an empty one; the largest finite bound for what lies above it.
    """
    total = max(counts.values(), default=0.0)
    if total <= 0:
        return None
    below, lower = 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= share * total:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (share * total - below) / max(count - below, 1e-9)
        below, lower = count, bound
    return lower


def _backend(backend: Mapping[str, Any]) -> BackendLine:
    last = backend["last_failure"]
    return BackendLine(
        name=backend["name"],
        kind=backend["kind"],
        state=backend["state"],
        since_s=backend["since_s"],
        in_flight=backend["in_flight"],
        waiting=backend["waiting"],
        restarts=backend["restarts"],
        devices=tuple(backend["devices"]),
        note=backend["reason"] or (f"last ended: {last['reason']}" if last is not None else ""),
    )


def _gpu(device: str, figures: Mapping[str, float]) -> GpuLine:
    return GpuLine(
        device=device,
        used_gb=figures.get("used_bytes", 0.0) / 1e9,
        total_gb=figures.get("total_bytes", 0.0) / 1e9,
        busy=figures.get("busy"),
    )
