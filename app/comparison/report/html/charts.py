"""Charts of a report as SVG. Positions are in per cent of the width, so a chart fits a phone without its marks getting
smaller. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.comparison.analysis.findings import Contrast
from app.comparison.report.html.markup import Markup, tag

_MIDDLE = "14"  # pixels from the top: where the marks are, in a plot of 28 pixels
_MARGIN = 0.06  # of the width of the scale, on both sides


class Scale:
    """A common scale for some contrasts: their intervals, their noise floors and 0 are on it."""

    def __init__(self, contrasts: Sequence[Contrast]) -> None:
        ends = [value for each in contrasts for value in (each.low, each.high, each.difference) if value is not None]
        ends += [sign * each.noise_floor for each in contrasts if each.noise_floor is not None for sign in (-1, 1)]
        low, high = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
        reach = (high - low) or 1.0
        self._low, self._reach = low - _MARGIN * reach, reach * (1 + 2 * _MARGIN)

    def place(self, value: float) -> float:
        """Where on the width, from 0 to 1."""
        return (value - self._low) / self._reach

    def at(self, value: float) -> str:
        """The same for an attribute."""
        return f"{self.place(value) * 100:.2f}%"

    def ticks(self) -> list[float]:
        """A few round values within the scale."""
        rough = self._reach / 7
        unit = 10.0 ** math.floor(math.log10(rough))
        distance = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first, last = math.ceil(self._low / distance), math.floor((self._low + self._reach) / distance)
        return [number * distance for number in range(first, last + 1)]


def interval_plot(contrast: Contrast, scale: Scale, label: str) -> Markup:
    """One difference: the noise floor as a band, 0 as a line, the interval and the difference."""
    marks = []
    if contrast.noise_floor:
        begin, end = scale.place(-contrast.noise_floor), scale.place(contrast.noise_floor)
        marks.append(_band(begin, end, "2", "24", "noise"))
    marks.append(_stroke(scale.at(0.0), scale.at(0.0), "0", "28", "zero"))
    if contrast.low is not None and contrast.high is not None:
        marks.append(_stroke(scale.at(contrast.low), scale.at(contrast.high), _MIDDLE, _MIDDLE, "span"))
    if contrast.difference is not None:
        marks.append(tag("circle", cx=scale.at(contrast.difference), cy=_MIDDLE, r="5", class_=contrast.outcome))
    return _svg("plot", label, *marks)


def axis(scale: Scale, labels: Sequence[str]) -> Markup:
    """The scale under the plots, a label for each of its ticks."""
    marks = []
    for value, label in zip(scale.ticks(), labels, strict=True):
        marks.append(_stroke(scale.at(value), scale.at(value), "0", "5", "tick"))
        marks.append(tag("text", label, x=scale.at(value), y="18", text_anchor="middle"))
    return _svg("plot axis", "", *marks)


def shares_bar(wins: int, ties: int, losses: int, label: str) -> Markup:
    """Wins, ties and losses as parts of one bar."""
    total = max(1, wins + ties + losses)
    parts, begin = [], 0.0
    for count, kind in ((wins, "better"), (ties, "same"), (losses, "worse")):
        end = begin + count / total
        parts.append(_band(begin, end, "6", "16", kind))
        begin = end
    return _svg("plot", label, *parts)


def _svg(kind: str, label: str, *marks: Markup) -> Markup:
    if not label:
        return tag("svg", *marks, class_=kind, aria_hidden="true", focusable="false")
    return tag("svg", *marks, class_=kind, role="img", aria_label=label)


def _band(begin: float, end: float, top: str, height: str, kind: str) -> Markup:
    width = max(0.0, end - begin)
    return tag("rect", x=f"{begin * 100:.2f}%", width=f"{width * 100:.2f}%", y=top, height=height, class_=kind)


def _stroke(x1: str, x2: str, y1: str, y2: str, kind: str) -> Markup:
    return tag("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=kind)
