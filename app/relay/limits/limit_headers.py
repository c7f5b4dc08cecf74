"""What every answer to a limited key says of its limits: OpenAI's headers, and Anthropic's on its routes. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias

NAMES: Final = tuple(
    name
    for what in ("requests", "tokens")
    for part in ("limit", "remaining", "reset")
    for name in (f"x-ratelimit-{part}-{what}", f"anthropic-ratelimit-{what}-{part}")
)


class LimitNow(NamedTuple):
    """One limit at this moment: all of it, what is left, and in how many seconds all of it is there again."""

    limit: int
    remaining: int
    reset_s: float


Lines: TypeAlias = Callable[[bytes, LimitNow, float], bytes]


def openai(what: bytes, limit: LimitNow, _unix: float) -> bytes:
    """The header lines of `requests` or `tokens` as OpenAI has them."""
    return b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n" % (
        *(what, limit.limit, what, limit.remaining),
        *(what, duration(math.ceil(limit.reset_s))),
    )


def anthropic(what: bytes, limit: LimitNow, unix: float) -> bytes:
    """The same as Anthropic has them: the reset is a time, of RFC 3339."""
    reset = datetime.fromtimestamp(math.ceil(unix + limit.reset_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    return (
        b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
        b"anthropic-ratelimit-%b-reset: %b\r\n" % (what, limit.limit, what, limit.remaining, what, reset)
    )


def duration(seconds: int) -> bytes:
    """As OpenAI writes it: `0s`, `59s`, `1m0s`, `1h0m0s`."""
    if seconds < 60:
        return b"%ds" % seconds
    if seconds < 3600:
        return b"%dm%ds" % (seconds // 60, seconds % 60)
    return b"%dh%dm%ds" % (seconds // 3600, seconds // 60 % 60, seconds % 60)
