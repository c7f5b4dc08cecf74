"""Figures as they are read: shares in per cent, their differences in points, everything else in its unit. Pure."""

from __future__ import annotations

from app.comparison.report.words import WORDS, Language

_MINUS = "−"


def figure(value: float | None, unit: str, language: Language) -> str:
    """A value of a measure: "62.0 %", "41.3", "−1.234 nats per token"; nothing for None."""
    if value is None:
        return ""
    if not unit:
        return f"{_number(value * 100, 1)} %"
    return f"{_number(value, _digits(value, unit))} {_unit(unit, language)}"


def move(before: float | None, after: float | None, unit: str, language: Language) -> str:
    """From one value to another, the unit said once: "41.2 → 60.5 %"."""
    if before is None or after is None:
        return ""
    digits = _digits(max(before, after, key=abs), unit)
    scale, name = (1, _unit(unit, language)) if unit else (100, "%")
    return f"{_number(before * scale, digits)} → {_number(after * scale, digits)} {name}"


def step(value: float | None, unit: str, language: Language) -> str:
    """A difference of two values, with its sign: "+22.0 points"."""
    return "" if value is None else f"{bare_step(value, unit)} {_unit(unit, language)}"


def bare_step(value: float | None, unit: str) -> str:
    """The same without its unit."""
    if value is None:
        return ""
    scaled = value if unit else value * 100
    text = _number(scaled, _digits(value, unit))
    return text if text.startswith(_MINUS) or not float(text) else f"+{text}"


def size(value: float | None, unit: str, language: Language) -> str:
    """A difference without a direction: "15.4 points"."""
    return "" if value is None else f"{bare_size(value, unit)} {_unit(unit, language)}"


def bare_size(value: float | None, unit: str) -> str:
    """The same without its unit."""
    return "" if value is None else _number(value if unit else value * 100, _digits(value, unit))


def span(low: float | None, high: float | None, unit: str) -> str:
    """An interval of a difference: "+10.0 … +34.0"."""
    return "" if low is None or high is None else f"{bare_step(low, unit)} … {bare_step(high, unit)}"


def probability(p: float | None) -> str:
    """A p value: never said to be 0."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _digits(value: float, unit: str) -> int:
    """Digits behind the point: one for per cents and points, none for characters, more for what is small."""
    if unit == "characters":
        return 0
    if unit in ("", "points"):
        return 1
    return 2 if abs(value) >= 10 else 3


def _number(value: float, digits: int) -> str:
    rounded = f"{value:.{digits}f}"
    if not float(rounded):
        return rounded.removeprefix("-")
    return rounded.replace("-", _MINUS)


def _unit(unit: str, language: Language) -> str:
    if not unit:
        return "points" if language == "en" else "个百分点"
    return WORDS[language].get(unit, unit)
