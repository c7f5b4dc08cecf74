"""How a Go program writes JSON, times and durations, and its errors for JSON that it cannot read."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|ms|s|m|h))+\Z")
FOREVER_S = 292 * 365.25 * 86400


def dumps(value: object) -> bytes:
    """JSON with `<`, `>` and `&` escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode()


def time_of(seconds: float) -> str:
    """A Unix time as RFC 3339 with nanoseconds."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


def duration_s(value: Any) -> float:
    """`keep_alive`: a number of seconds, or a duration; below zero for ever. ValueError with Go's text."""
    if isinstance(value, int | float):
        return FOREVER_S if value < 0 else float(value)
    text = str(value)
    if text.startswith("-") and _DURATION.match(text[1:]):
        return FOREVER_S
    if not _DURATION.match(text):
        raise ValueError(f'time: invalid duration "{text}"')
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|ms|s|m|h)", text))


def type_name(value: Any) -> str:
    """What Go calls a JSON value."""
    match value:
        case str():
            return "string"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case list():
            return "array"
    return "object"


def mismatch(value: Any, place: str, wanted: str) -> str:
    """Go's error for a value of the wrong type."""
    return f"json: cannot unmarshal {type_name(value)} into Go struct field {place} of type {wanted}"
