"""What was measured of one file, and what it comes to beside the unquantised one. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.quant_report.windows import Window, runs
from app.statistics.intervals import Interval, blocks, bootstrap, mean, share


@dataclass(frozen=True, slots=True)
class Speed:
    """How the embedded engine serves the file: tokens per second of prompt and of answer, and the memory of its process
    with the model in it.
    """

    prompt_per_s: float
    generated_per_s: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Scores:
    """One value for each predicted token, in the windows' order. `nll`: negative log probability in nats; `kl` in nats
    and `same`: against the reference, empty for the reference itself. `seen`: the share of tokens whose `nll` is exact,
    1 where all logits are known.
    """

    nll: tuple[float, ...]
    kl: tuple[float, ...] = ()
    same: tuple[bool, ...] = ()
    seen: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is measured of one file, as it is remembered. `exact`: from all logits; None where the library's logits
    did not agree with the engine's log probabilities, or were not asked for. `approximate`: from `top_logprobs`, lower
    bounds; None where not asked for. `difference`: the largest one in the self-test, in nats; None: there was none.
    """

    speed: Speed
    exact: Scores | None = None
    approximate: Scores | None = None
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a model predicts the text. The last three are against the reference; None for the reference itself.
    `is_exact`: from all logits; else perplexities and divergence are lower bounds, and `seen` is the share of tokens
    among the likeliest.
    """

    is_exact: bool
    perplexity: Estimate
    seen: float = 1.0
    perplexity_ratio: Estimate | None = None
    kl: Estimate | None = None
    same_top: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One file of the report. `bits_per_weight`: of its tensors, without the header. `beside`: the figures by
    `top_logprobs` where `quality` is by all logits and both were asked for. `difference`: see Measured.
    """

    name: str
    path: str
    size_bytes: int
    bits_per_weight: float
    speed: Speed
    quality: Quality
    beside: Quality | None = None
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`name`: the file to serve, None: stay with the unquantised one. `text`: that, and why, in a sentence or two."""

    name: str | None
    text: str


@dataclass(frozen=True, slots=True)
class QuantReport:
    """Everything about one model; the first row is the reference. `tokens`: how many were predicted; `window`,
    `stride`, `context` in tokens; `within`: the loss of perplexity that is allowed (0.02: 2 %); `chart`: the name of a
    PNG file beside the report, None where there is none; `notes`: what else is to be known, a sentence each.
    """

    model: str
    text_name: str
    text_kind: str
    tokens: int
    passages: int
    window: int
    stride: int
    context: int
    threads: int
    machine: str
    engine: str
    within: float
    rows: tuple[Row, ...]
    recommendation: Recommendation
    notes: tuple[str, ...] = ()
    chart: str | None = None


def quality(scores: Scores, reference: Scores | None, cut: Sequence[Window], *, is_exact: bool) -> Quality:
    """The figures with their intervals; those of the ratio are paired: the same blocks of text are drawn for both."""
    perplexity = _bootstrapped(scores.nll, cut, math.exp)
    if reference is None:
        return Quality(is_exact, perplexity, scores.seen)
    loss = [own - other for own, other in zip(scores.nll, reference.nll, strict=True)]
    same = blocks(runs(cut, [float(each) for each in scores.same]))
    return Quality(
        is_exact,
        perplexity,
        scores.seen,
        _bootstrapped(loss, cut, math.exp),
        _bootstrapped(scores.kl, cut, float),
        _estimate(mean(same), share(same)),
    )


def _bootstrapped(values: Sequence[float], cut: Sequence[Window], figure: Callable[[float], float]) -> Estimate:
    sample = blocks(runs(cut, values))
    return _estimate(figure(mean(sample)), bootstrap(sample, figure))


def _estimate(value: float, interval: Interval) -> Estimate:
    return Estimate(value, interval.low, interval.high)
