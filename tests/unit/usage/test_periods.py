"""Points in time as people give them."""

from __future__ import annotations

import pytest

from app.usage.periods import DAY_S, moment, written

MIDNIGHT = 1_795_824_000.0  # Saturday, 2026-11-28
NOW = MIDNIGHT + 3661


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("today", MIDNIGHT),
        ("week", MIDNIGHT - 5 * DAY_S),
        ("month", MIDNIGHT - 27 * DAY_S),
        ("7d", MIDNIGHT - 7 * DAY_S),
        ("48h", MIDNIGHT - 2 * DAY_S),
        ("604800", MIDNIGHT - 7 * DAY_S),
        ("12h", NOW - 12 * 3600),
        ("90m", NOW - 5400),
        (" 60 ", NOW - 60),
        ("0s", NOW),
        ("1795824000", MIDNIGHT),
        ("1795824000.5", MIDNIGHT + 0.5),
        ("2026-11-28", MIDNIGHT),
        ("2026-11-28T01:00", MIDNIGHT + 3600),
        ("2026-11-28T01:00+01:00", MIDNIGHT),
        ("2026-11-28T00:00:00Z", MIDNIGHT),
    ],
)
def test_it_is_understood(text: str, seconds: float) -> None:
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday evening",
        "2026-13-01",
        "7x",
        "-5",
        "9" * 40,
        "inf",
        "999999999d",
        "9999-12-31T23:59-01:00",
        "0001-01-01T00:00+01:00",
    ],
)
def test_what_is_none_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="give 30d, 12h"):
        moment(text, NOW)


def test_a_day_is_written_as_a_day() -> None:
    assert (written(MIDNIGHT), written(NOW)) == ("2026-11-28", "2026-11-28T01:01:01Z")
