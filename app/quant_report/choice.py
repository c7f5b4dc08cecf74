"""Which file to serve: the smallest one that costs no more than is allowed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.quant_report.figures import Recommendation, Row


def recommend(candidates: Sequence[Row], reference: Row, within: float) -> Recommendation:
    """The smallest candidate whose perplexity is at most `within` (0.02: 2 %) above the reference's, and which is
    smaller than the reference.

    The figure itself counts; where its interval reaches further, the text says so.
    """
    limit = f"{within * 100:.3g} %"
    good = [each for each in candidates if _loss(each) <= within and each.size_bytes < reference.size_bytes]
    if not good:
        least = min(candidates, key=_loss, default=None)
        nearest = f"; the nearest is {least.name} with {_percent(_loss(least))}" if least is not None else ""
        return Recommendation(
            None, f"Serve {reference.name}: no smaller file is within {limit} of its perplexity{nearest}."
        )
    best = min(good, key=lambda each: (each.size_bytes, _loss(each)))
    ratio = best.quality.perplexity_ratio
    assert ratio is not None
    loss = _percent(_loss(best))
    text = f"Serve {best.name}: the smallest file within {limit} of {reference.name}'s perplexity ({loss})."
    if not best.quality.is_exact:
        text += " These figures are approximate: they come of the likeliest tokens only."
    elif ratio.high - 1 > within:
        text += f" The text leaves it open: it may be {_percent(ratio.high - 1)}; a longer --eval tells more."
    return Recommendation(best.name, text)


def _loss(candidate: Row) -> float:
    ratio = candidate.quality.perplexity_ratio
    return ratio.value - 1 if ratio is not None else 0.0


def _percent(part: float) -> str:
    return f"{part * 100:+.2f} %"
