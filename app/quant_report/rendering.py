"""A report as tables, as Markdown, and as bars for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.quant_report.figures import Estimate, Quality, QuantReport, Row

SIZES: Final = ("type", "file", "of the first", "bits/weight", "memory", "prompt tok/s", "answer tok/s")
QUALITY: Final = ("type", "perplexity", "against the first", "KL divergence", "same first choice")
_BAR: Final = 40  # characters
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def sizes(report: QuantReport) -> list[tuple[str, ...]]:
    """The cells under SIZES, a row for each file."""
    first = report.rows[0].size_bytes
    return [(row.name, *_sizes(row, first)) for row in report.rows]


def qualities(report: QuantReport) -> list[tuple[str, ...]]:
    """The cells under QUALITY: a row for each file, and one more beneath where `top_logprobs` were asked as well."""
    rows = []
    for row in report.rows:
        rows.append((row.name, *_quality(row.quality)))
        if row.beside is not None:
            rows.append((f"{row.name}, by top_logprobs", *_quality(row.beside)))
    return rows


def markdown(report: QuantReport) -> str:
    """The whole report as a page."""
    lines = [f"# What does quantising {report.model} cost?", "", report.recommendation.text, ""]
    for columns, cells in ((SIZES, sizes(report)), (QUALITY, qualities(report))):
        ruler = ("---", *("---:",) * (len(columns) - 1))
        lines += [*(f"| {' | '.join(row)} |" for row in (columns, ruler, *cells)), ""]
    lines += [*(f"- {line}" for line in facts(report)), ""]
    if report.chart is not None:
        lines += [f"![Size and loss]({report.chart})", ""]
    return "\n".join(lines)


def facts(report: QuantReport) -> list[str]:
    """How the figures came about, a sentence each."""
    more = f" in {report.passages:,} passages" if report.passages > 1 else ""
    lines = [
        f"Text: {report.text_name} ({report.text_kind}), {report.tokens:,} predicted tokens{more}; windows of "
        f"{report.window} tokens, each token predicted once with at least {report.window - report.stride} before it "
        "where its passage has so many.",
        f"Brackets: intervals at 95 %. KL divergence in nats. Speed and memory: {report.threads} threads on "
        f"{report.machine}, llama.cpp of xllamacpp {report.engine}, a context of {report.context} tokens.",
    ]
    tested = [row.difference for row in report.rows if row.difference is not None]
    if tested:
        lines.append(
            "Exact figures are of all logits; these agreed with the engine's own log probabilities within "
            f"{max(tested):.5f}."
        )
    return [*lines, *report.notes]


def bars(report: QuantReport) -> list[str]:
    """Size and loss of each file as two bars, for a terminal."""
    widest = max(len(row.name) for row in report.rows)
    largest = max(row.size_bytes for row in report.rows)
    losses = {row.name: (row.quality.perplexity_ratio or Estimate(1, 1, 1)).value - 1 for row in report.rows}
    worst = max([*losses.values(), report.within]) or 1.0
    limit = f"{report.within * 100:.3g} %"
    lines = [f"{'':{widest}}  {'size':<{_BAR}}  perplexity above {report.rows[0].name}'s (limit {limit})"]
    for row in report.rows:
        loss = losses[row.name]
        size = f"{bar(row.size_bytes / largest, _BAR - 12)} {megabytes(row.size_bytes)}"
        lines.append(f"{row.name:<{widest}}  {size:<{_BAR}}  {bar(loss / worst, _BAR)} {loss * 100:+.2f} %")
    return lines


def bar(part: float, width: int) -> str:
    """A bar of `part` (0 to 1, beyond is cut off) of the width in characters, in eighths."""
    eighths = round(min(1.0, max(0.0, part)) * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def chart_rows(report: QuantReport) -> list[dict[str, Any]]:
    """The rows as the child that draws the chart wants them."""
    return [_chart_row(row) for row in report.rows]


def megabytes(size: float) -> str:
    """A size in words: "144.8 MB", "15.20 GB"."""
    return f"{size / 1e9:.2f} GB" if size >= 1e10 else f"{size / 1e6:.1f} MB"


def _sizes(row: Row, first: int) -> tuple[str, ...]:
    speed = row.speed
    return (
        megabytes(row.size_bytes),
        f"{row.size_bytes / first:.1%}",
        f"{row.bits_per_weight:.2f}",
        megabytes(speed.resident_bytes),
        f"{speed.prompt_per_s:.0f}",
        f"{speed.generated_per_s:.1f}",
    )


def _quality(quality: Quality) -> tuple[str, ...]:
    least = "" if quality.is_exact else "≥ "
    return (
        least + _cell(quality.perplexity, lambda value: f"{value:.3f}"),
        ("≈ " if least and quality.perplexity_ratio is not None else "")
        + _cell(quality.perplexity_ratio, lambda value: f"{(value - 1) * 100:+.2f} %"),
        (least if quality.kl is not None else "") + _cell(quality.kl, lambda value: f"{value:.4f}"),
        _cell(quality.same_top, lambda value: f"{value * 100:.1f} %"),
    )


def _cell(estimate: Estimate | None, text: Callable[[float], str]) -> str:
    if estimate is None:
        return ""
    return f"{text(estimate.value)} [{text(estimate.low)}, {text(estimate.high)}]"


def _chart_row(row: Row) -> dict[str, Any]:
    quality = row.quality
    ratio = quality.perplexity_ratio or Estimate(1, 1, 1)
    same = quality.same_top or Estimate(1, 1, 1)
    return {
        "name": row.name,
        "size_mb": row.size_bytes / 1e6,
        "loss": (ratio.value - 1) * 100,
        "loss_low": (ratio.low - 1) * 100,
        "loss_high": (ratio.high - 1) * 100,
        "same": same.value * 100,
        "same_low": same.low * 100,
        "same_high": same.high * 100,
        "kl": quality.kl.value if quality.kl is not None else 0.0,
    }
