"""Points in time as people give them: how long ago, a day, the beginning of the month. Pure."""

from __future__ import annotations

import datetime
import re
from typing import Final

DAY_S: Final = 86_400
FORMS: Final = "30d, 12h, 2026-11-01, 2026-11-01T18:00+01:00, today, week, month, or Unix seconds"
_UNITS: Final = {"d": DAY_S, "h": 3600, "m": 60, "s": 1}
# Of what can be written: 0001-01-01 to 9999-12-31, UTC.
_FIRST: Final = -62_135_596_800.0
_LAST: Final = 253_402_300_799.0
_AGO = re.compile(r"(\d{1,9})([dhms]?)\Z")


def moment(text: str, now: float) -> float:
    """Unix seconds. ValueError for what is no point in time; the message says which forms there are.

    Whole days ago begin at midnight, UTC, as do days, weeks (on Monday) and months. A number of up to nine digits is so
    many seconds ago.
    """
    text = text.strip()
    if (seconds := _moment(text, now)) is None or not _FIRST <= seconds <= _LAST:
        raise ValueError(f"'{text[:40]}' is no point in time: give {FORMS}")
    return seconds


def _moment(text: str, now: float) -> float | None:
    midnight = now // DAY_S * DAY_S
    today = datetime.datetime.fromtimestamp(midnight, datetime.UTC)
    match text:
        case "today":
            return midnight
        case "week":
            return midnight - today.weekday() * DAY_S
        case "month":
            return midnight - (today.day - 1) * DAY_S
    if ago := _AGO.match(text):
        seconds = int(ago[1]) * _UNITS[ago[2] or "s"]
        return midnight - seconds if seconds and seconds % DAY_S == 0 else now - seconds
    if re.fullmatch(r"\d{10,11}(\.\d+)?", text):
        return float(text)
    try:
        given = datetime.datetime.fromisoformat(text)
        return (given if given.tzinfo is not None else given.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def written(seconds: float) -> str:
    """The point in time, in UTC; of midnight only the day."""
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return time.strftime("%Y-%m-%d" if seconds % DAY_S == 0 else "%Y-%m-%dT%H:%M:%SZ")
