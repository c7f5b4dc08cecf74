"""A base and what was tuned from it, side by side: what the tuning costs, and what it changed in how it answers.

`modelport_pair_info` says which public names a pair has and which of them is the base; everything else is joined to it.
A name is in a pair once, so one pair is shown at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observe.dashboards import panels
from tests.observe.dashboards.panels import Column, Query, curves, rows
from tests.observe.dashboards.series import (
    ANSWERED,
    BACKEND,
    COUNTED,
    DURATION,
    FAILED,
    FIRST_TOKEN,
    GATEWAYS,
    MODEL,
    PER_TOKEN,
    RATE,
    TOKENS,
    by,
    rate,
    ratio,
    share,
)

ROLE: Final = f"role, {MODEL}"
# Of two models that few people ask, the last minutes are chance.
WINDOW: Final = "30m"
EACH: Final = f"{{{{role}}}}: {{{{{MODEL}}}}}"


def pairs() -> Dashboard:
    """The dashboard."""
    return panels.page(
        "pairs",
        "Fine-tune pairs",
        "Base against tuned: latency, tokens and errors of the models of one pair, as their users see them",
        ("instance", "pair"),
        {"Side by side": _summary(), "Latency": _latency(), "Answers": _answers(), "Tuned against base": _against()},
    )


def _of_pair(expression: str, role: str = "") -> str:
    """The series of the pair's models (of one role), with their roles. `expression` has the labels instance, MODEL."""
    only = f',role="{role}"' if role else ""
    # The info series of one gateway is the same however often it is scraped: max makes one of them.
    pair = by(f"instance, {MODEL}, role", f'modelport_pair_info{{{GATEWAYS},pair="$pair"{only}}}', "max")
    return f"{expression} * on (instance, {MODEL}) group_left (role) {pair}"


def _rate(series: str, where: str = "", over: str = RATE, labels: str = "", role: str = "") -> str:
    kept = f"instance, {MODEL}{labels}"
    return _of_pair(by(kept, rate(series, f"{GATEWAYS},{where}" if where else GATEWAYS, over)), role)


def _count(where: str = "", over: str = RATE) -> str:
    return by(ROLE, _rate(f"{DURATION}_count", where, over))


def _quantile(part: float, series: str, over: str = RATE, role: str = "") -> str:
    where = ANSWERED if series == DURATION else ""
    buckets = by(f"le, {ROLE}", _rate(f"{series}_bucket", where, over, ", le", role))
    return f"histogram_quantile({part}, {buckets}) >= 0"


def _mean(series: str, where: str = "", over: str = RATE, role: str = "") -> str:
    total, count = (by(ROLE, _rate(f"{series}_{part}", where, over, role=role)) for part in ("sum", "count"))
    return ratio(total, count)


def _failed(over: str = RATE) -> str:
    return share(_count(FAILED, over), _count(COUNTED, over))


def _tokens(kind: str, over: str = RATE, role: str = "") -> str:
    return _mean(TOKENS, f'gen_ai_token_type="{kind}"', over, role)


def _summary() -> list[panels.Panels]:
    over = "$__range"
    requests = f"increase({DURATION}_count{{{GATEWAYS}}}[$__range])"
    return [
        rows(
            "Over the time that is shown",
            "Each model of the pair; output tokens a second are those of one stream. What the tuning changed in the "
            "answers themselves says `modelport compare` (docs/compare.md)",
            {"role": "role", MODEL: "model"},
            Column("requests", f"round({by(ROLE, _of_pair(by(f'instance, {MODEL}', requests)))})", panels.COUNT),
            Column("failed", _failed(over), panels.RATIO, {0.01: "yellow", 0.05: "red"}),
            Column("first token, p50", _quantile(0.5, FIRST_TOKEN, over), panels.SECONDS),
            Column("first token, p95", _quantile(0.95, FIRST_TOKEN, over), panels.SECONDS),
            Column("whole answer, p50", _quantile(0.5, DURATION, over), panels.SECONDS),
            Column("output tokens/s", f"1 / ({_mean(PER_TOKEN, over=over)} > 0)", panels.TOKENS_PER_SECOND),
            Column("tokens of a prompt", _tokens("input", over), panels.COUNT),
            Column("tokens of an answer", _tokens("output", over), panels.COUNT),
            width=16,
            height=7,
        ),
        rows(
            "Certificates",
            "What was found out about the models of the pair, held against what they were trained on (docs/parity.md)",
            {"role": "role", MODEL: "model", BACKEND: "backend", "verdict": "verdict"},
            Column(
                "holds now",
                by(
                    f"{ROLE}, {BACKEND}, verdict",
                    _of_pair(f"(modelport_certificate{{{GATEWAYS}}} == 1)"),
                    "max",
                ),
                "bool_yes_no",
            ),
            width=8,
            height=7,
        ),
    ]


def _latency() -> list[panels.Panels]:
    return [
        curves(
            f"{title}, {name}",
            says,
            panels.SECONDS,
            Query(_quantile(part, series), EACH),
        )
        for part, name in ((0.5, "median"), (0.95, "95th percentile"))
        for title, says, series in (
            ("First token", "From the request's headers to the first token of streamed answers", FIRST_TOKEN),
            ("Between tokens", "The mean time between two tokens of one stream", PER_TOKEN),
            (
                "Whole answer",
                "From the request's headers to the end of the answer; without those that failed",
                DURATION,
            ),
        )
    ]


def _answers() -> list[panels.Panels]:
    return [
        curves(
            "Requests",
            "Requests that ended in each second",
            panels.PER_SECOND,
            Query(_count(), EACH),
        ),
        curves(
            "Failed share",
            "The share of requests that failed, streams that broke after their first byte included",
            panels.RATIO,
            Query(_failed(), EACH),
            levels={0.01: "yellow", 0.05: "red"},
            highest=1,
        ),
        curves(
            "Streams that broke",
            "Answers in each second that failed after their first byte",
            panels.COUNT_PER_SECOND,
            Query(by(ROLE, _rate("modelport_stream_errors_total")), EACH),
        ),
        curves(
            "Tokens of an answer",
            "The mean length of answers: a tuned model that rambles, or stops too early, is seen here. Where a client "
            "left, what had come until then counts",
            panels.COUNT,
            Query(_tokens("output"), EACH),
        ),
        curves(
            "Tokens of a prompt",
            "The mean length of prompts. Where the same is asked of both, a difference is one of their templates",
            panels.COUNT,
            Query(_tokens("input"), EACH),
        ),
        curves(
            "Output tokens",
            "Tokens that were written in each second",
            panels.TOKENS_PER_SECOND,
            Query(by(ROLE, _rate(f"{TOKENS}_sum", 'gen_ai_token_type="output"')), EACH),
        ),
    ]


def _against() -> list[panels.Panels]:
    def relative(of_role: Callable[[str], str]) -> str:
        return f"{of_role('tuned')} / on () group_left () ({of_role('base')} > 0)"

    return [
        curves(
            title,
            f"{says} of the last half hour: what each tuned model has, as a share of its base's. 100 %: the same",
            panels.RATIO,
            Query(relative(of_role), f"{{{{{MODEL}}}}}"),
            levels={1.5: "yellow"},
        )
        for title, says, of_role in (
            (
                "First token",
                "The median time to the first token",
                lambda role: f"({_quantile(0.5, FIRST_TOKEN, WINDOW, role)})",
            ),
            (
                "Between tokens",
                "The mean time between two tokens",
                lambda role: f"({_mean(PER_TOKEN, '', WINDOW, role)})",
            ),
            ("Tokens of an answer", "The mean length of answers", lambda role: f"({_tokens('output', WINDOW, role)})"),
        )
    ]
