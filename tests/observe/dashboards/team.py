"""Keys, what they use and what they are refused; the store, and the gateways that share it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observe.dashboards import panels
from tests.observe.dashboards.panels import Column, Query, curves, figure, rows, states
from tests.observe.dashboards.series import GATEWAYS, by, quantile, rate

KEYS: Final = f'{GATEWAYS},key=~"$key"'
KEY: Final = "{{key}}"
GATEWAY: Final = "{{instance}}"
FULL: Final[panels.Levels] = {0.8: "yellow", 1.0: "red"}


def team() -> Dashboard:
    """The dashboard."""
    return panels.page(
        "team",
        "Keys and store",
        "What each key uses, costs and is refused; how the store is that all gateways share",
        ("instance", "key"),
        {
            "Now": _now(),
            "What keys use": _use(),
            "Limits": _limits(),
            "The store": _store(),
        },
    )


def _now() -> list[panels.Panels]:
    return [
        figure(
            "Requests",
            "Requests of the chosen keys in each second, as usage was recorded of them",
            panels.PER_SECOND,
            by("", rate("modelport_key_requests_total", KEYS)),
        ),
        figure(
            "Refused by limits",
            "Requests in each second that a key's own limits refused",
            panels.PER_SECOND,
            by("", rate("modelport_limited_total", KEYS)),
        ),
        figure(
            "Fullest limit",
            "Of all limits of the chosen keys the one that is nearest to its end",
            panels.RATIO,
            by("", f"modelport_key_limit_ratio{{{KEYS}}}", "max"),
            levels=FULL,
            empty="no limits",
        ),
        figure(
            "Store",
            "Whether the store responds, at every gateway that is chosen",
            "bool_yes_no",
            by("", f"modelport_store_up{{{GATEWAYS}}}", "min"),
            levels={0: "red", 1: "green"},
        ),
        figure(
            "Records not in the store",
            "Usage records that wait on a gateway's own disk. They grow while the store does not respond",
            panels.COUNT,
            by("", f"modelport_usage_pending{{{GATEWAYS}}}"),
            levels={100_000: "yellow"},
        ),
        figure(
            "Gateways",
            "How many share the store, as the one says that knows of most",
            panels.COUNT,
            by("", f"modelport_gateways{{{GATEWAYS}}}", "max"),
            empty="nobody knows",
        ),
        rows(
            "Keys",
            "Each key over the time that is shown, at the chosen gateways. Its limit is that of all gateways together",
            {"key": "key"},
            Column("requests", _over_time("modelport_key_requests_total"), panels.COUNT),
            Column(
                "input tokens",
                _over_time("modelport_key_tokens_total", 'gen_ai_token_type="input"'),
                panels.COUNT,
            ),
            Column(
                "output tokens",
                _over_time("modelport_key_tokens_total", 'gen_ai_token_type="output"'),
                panels.COUNT,
            ),
            Column("money", by("key", f"increase(modelport_key_money_total{{{KEYS}}}[$__range])"), "none"),
            Column("fullest limit", by("key", f"modelport_key_limit_ratio{{{KEYS}}}", "max"), panels.RATIO, FULL),
        ),
    ]


def _over_time(series: str, more: str = "") -> str:
    where = f"{KEYS},{more}" if more else KEYS
    return f"round({by('key', f'increase({series}{{{where}}}[$__range])')})"


def _use() -> list[panels.Panels]:
    return [
        curves(
            "Requests by key",
            "Requests in each second, counted when they end",
            panels.PER_SECOND,
            Query(by("key", rate("modelport_key_requests_total", KEYS)), KEY),
            is_stacked=True,
            width=6,
        ),
        *(
            curves(
                f"{kind.capitalize()} tokens by key",
                f"Tokens of {what} in each second, counted when requests end",
                panels.TOKENS_PER_SECOND,
                Query(by("key", rate("modelport_key_tokens_total", f'{KEYS},gen_ai_token_type="{kind}"')), KEY),
                is_stacked=True,
                width=6,
            )
            for kind, what in (("input", "prompts"), ("output", "answers"))
        ),
        curves(
            "Money by key",
            "What an hour costs at this rate, by the prices of the models, in their money",
            "none",
            Query(f"{by('key', rate('modelport_key_money_total', KEYS))} * 3600", KEY),
            is_stacked=True,
            width=6,
        ),
    ]


def _limits() -> list[panels.Panels]:
    return [
        curves(
            "How full limits are",
            "The share of each limit that is used. rpm and tpm look at the last minute, a budget at its day, week or "
            "month",
            panels.RATIO,
            Query(by("key, limit", f"modelport_key_limit_ratio{{{KEYS}}}", "max"), "{{key}}: {{limit}}"),
            levels=FULL,
            width=12,
        ),
        curves(
            "Refused by limits",
            "Requests in each second that got a 429 by their key's own limits, by limit",
            panels.PER_SECOND,
            Query(by("key, limit", rate("modelport_limited_total", KEYS)), "{{key}}: {{limit}}"),
            is_stacked=True,
            width=12,
        ),
    ]


def _store() -> list[panels.Panels]:
    return [
        states(
            "Whether it responds",
            "As each gateway sees it. While it does not, limits are shared out by the number of gateways, and usage "
            "waits on each one's disk",
            Query(by("instance", f"modelport_store_up{{{GATEWAYS}}}", "min"), GATEWAY),
            {0: ("away", "red"), 1: ("responds", "green")},
            width=12,
        ),
        curves(
            "Gateways",
            "How many share the store, as each one knows. They disagree while one has lost the store",
            panels.COUNT,
            Query(by("instance", f"modelport_gateways{{{GATEWAYS}}}", "max"), GATEWAY),
            width=12,
        ),
        curves(
            "Calls",
            "Calls of the store in each second, by what they do. No request waits for one",
            panels.COUNT_PER_SECOND,
            Query(by("operation", rate("modelport_store_seconds_count", GATEWAYS)), "{{operation}}"),
            width=6,
        ),
        curves(
            "Time of a call, 95th percentile",
            "Those that failed or were given up are among them",
            panels.SECONDS,
            Query(quantile(0.95, "modelport_store_seconds", GATEWAYS, "operation"), "{{operation}}"),
            levels={1: "red"},
            width=6,
        ),
        curves(
            "Records not in the store",
            "Usage records that wait on each gateway's disk",
            panels.COUNT,
            Query(by("instance", f"modelport_usage_pending{{{GATEWAYS}}}", "max"), GATEWAY),
            width=6,
        ),
        curves(
            "Records lost",
            "Usage records in the last 15 minutes that could be kept nowhere",
            panels.COUNT,
            Query(by("instance", f"increase(modelport_usage_lost_total{{{GATEWAYS}}}[15m])"), GATEWAY),
            levels={1: "red"},
            width=6,
        ),
    ]
