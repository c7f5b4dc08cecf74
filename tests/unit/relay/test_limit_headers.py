"""What answers say of a key's limits (app/relay/limits/limit_headers.py)."""

from __future__ import annotations

import pytest

from app.relay.limits.limit_headers import NAMES, anthropic, duration, openai


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, b"0s"), (0.1, b"1s"), (59, b"59s"), (60, b"1m0s"), (360, b"6m0s"), (3600, b"1h0m0s"), (3725, b"1h2m5s")],
)
def test_a_duration_is_written_as_openai_does(seconds: float, said: bytes) -> None:
    assert duration(seconds) == said


def test_openais_lines_round_the_reset_up() -> None:
    assert openai((600, 599), None, 0.1) == (
        b"x-ratelimit-limit-requests: 600\r\nx-ratelimit-remaining-requests: 599\r\nx-ratelimit-reset-requests: 1s\r\n"
    )


def test_anthropics_lines_have_a_time() -> None:
    assert anthropic(None, (60_000, 0), 60.0, 1_700_000_000.5) == (
        b"anthropic-ratelimit-tokens-limit: 60000\r\nanthropic-ratelimit-tokens-remaining: 0\r\n"
        b"anthropic-ratelimit-tokens-reset: 2023-11-14T22:14:21Z\r\n"
    )


def test_every_name_is_written_by_one_of_them() -> None:
    lines = openai((1, 1), (1, 1), 1.0) + anthropic((1, 1), (1, 1), 1.0, 0.0)

    assert {line.partition(b":")[0].decode() for line in lines.split(b"\r\n") if line} == set(NAMES)
