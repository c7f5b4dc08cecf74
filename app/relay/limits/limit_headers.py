"""What every answer to a limited key says of its limits: OpenAI's headers, and Anthropic's on its routes. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final, TypeAlias

NAMES: Final = tuple(
    name
    for what in ("requests", "tokens")
    for part in ("limit", "remaining", "reset")
    for name in (f"x-ratelimit-{part}-{what}", f"anthropic-ratelimit-{what}-{part}")
)


_SHORT: Final = (*(b"%ds" % seconds for seconds in range(60)), b"1m0s")


# All of a limit, and what is left of it now.
LimitNow: TypeAlias = tuple[int, int]


def openai(requests: LimitNow | None, tokens: LimitNow | None, reset_s: float) -> bytes:
    """The header lines as OpenAI has them; None: there is no such limit. `reset_s`: until all of it is there again."""
    reset = duration(reset_s)
    if requests is not None and tokens is not None:  # in one go: it is done for every answer
        return (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
            b"x-ratelimit-reset-requests: %b\r\nx-ratelimit-limit-tokens: %d\r\n"
            b"x-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %b\r\n" % (*requests, reset, *tokens, reset)
        )
    if requests is not None:
        return (
            b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\n"
            b"x-ratelimit-reset-requests: %b\r\n" % (*requests, reset)
        )
    if tokens is not None:
        return (
            b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\n"
            b"x-ratelimit-reset-tokens: %b\r\n" % (*tokens, reset)
        )
    return b""


def anthropic(requests: LimitNow | None, tokens: LimitNow | None, reset_s: float, unix: float) -> bytes:
    """The same as Anthropic has them: the reset is a time, of RFC 3339. `unix`: now, in Unix seconds."""
    reset = datetime.fromtimestamp(math.ceil(unix + reset_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    lines = b""
    for what, now in ((b"requests", requests), (b"tokens", tokens)):
        if now is not None:
            lines += (
                b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
                b"anthropic-ratelimit-%b-reset: %b\r\n" % (what, now[0], what, now[1], what, reset)
            )
    return lines


def duration(seconds: float) -> bytes:
    """As OpenAI writes it, rounded up: `0s`, `59s`, `1m0s`, `1h0m0s`."""
    whole = math.ceil(seconds)
    if whole <= 60:
        return _SHORT[whole]
    if whole < 3600:
        return b"%dm%ds" % (whole // 60, whole % 60)
    return b"%dh%dm%ds" % (whole // 3600, whole // 60 % 60, whole % 60)
