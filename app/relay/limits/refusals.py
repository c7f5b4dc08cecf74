"""What a client is told whose key has no more of something. Pure.

Statuses, codes and types are OpenAI's: its SDKs wait as long as they are told and ask again, but not where the account
itself is used up.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from app.errors import Problem, retry_after
from app.relay.limits.known_refusals import Refusal
from app.table import Budget, KeyLimits

UNKNOWN_S: Final = 1.0
# OpenAI's SDKs wait for less than a minute or not at all. A window that began to fill a moment ago is free again in
# little more: who comes then is told the rest.
_LONGEST_S: Final = 59.9
# Where so little is left until there is enough, it is what running requests give back, or the period's end.
HELD_S: Final = 10.0
_PER: Final = {"day": "a day", "week": "a week", "month": "a month"}
_WHAT: Final = {"requests": "requests per minute (RPM)", "tokens": "tokens per minute (TPM)"}


def refused(key: str, limits: KeyLimits, refusal: Refusal, now: float, unix: float) -> Problem:
    """429 for this refusal. `now`: on the clock of the refusal; `unix`: the same in Unix seconds."""
    left_s = max(0.0, refusal.until - now)
    reason = f" {refusal.reason}" if refusal.reason else ""
    match refusal.limit:
        case "budget":
            return _used_up(key, limits.budget, left_s, unix, reason)
        case "parallel":
            message = (
                f"The key '{key}' has {limits.max_parallel} requests running at the same time, and may have no more."
                f"{reason}"
            )
            return Problem(429, "rate_limit_exceeded", message, type_="requests", headers=_again(left_s))
        case limit:
            most = limits.rpm if limit == "requests" else limits.tpm
            wanted = f", this request {refusal.amount:.0f}" if limit == "tokens" else ""
            message = (
                f"Rate limit reached for the key '{key}': {_WHAT[limit]}, limit {most}{wanted}. "
                f"Please try again in {max(1, math.ceil(left_s))}s.{reason}"
            )
            return Problem(429, "rate_limit_exceeded", message, type_=limit, headers=_again(left_s))


def too_many_tokens(key: str, tpm: int, tokens: float) -> Problem:
    """429 for a request that the whole limit is too small for: it never comes good, so it is not to be sent again."""
    message = (
        f"This request is too large for the key '{key}': {_WHAT['tokens']}, limit {tpm}, requested {tokens:.0f} "
        "(the prompt and the longest answer). Send less, or lower 'max_tokens'."
    )
    return _final(Problem(429, "rate_limit_exceeded", message, type_="tokens"), None)


def larger_than_budget(key: str, budget: Budget, amount: float) -> Problem:
    """The same for a key's whole budget."""
    message = (
        f"This request is too large for the key '{key}': it may cost {_said(amount, budget)}, and the whole budget is "
        f"{_said(budget.amount, budget)} {_PER[budget.per]}. Send less, or lower 'max_tokens'."
    )
    return _final(Problem(429, "insufficient_quota", message, type_="insufficient_quota"), None)


def unknown() -> Problem:
    """503 where it does not become known in time what a key may spend."""
    message = "It is not known at the moment what this key may still use; send the request again."
    headers = {**retry_after(UNKNOWN_S), "x-should-retry": "true"}
    return Problem(503, "limits_unknown", message, headers=headers)


def _used_up(key: str, budget: Budget | None, left_s: float, unix: float, reason: str) -> Problem:
    assert budget is not None
    if left_s <= HELD_S:
        message = (
            f"What is left of the budget of the key '{key}' ({_said(budget.amount, budget)} {_PER[budget.per]}) is set "
            f"aside for requests that run. Please try again in {max(1, math.ceil(left_s))}s.{reason}"
        )
        return Problem(429, "insufficient_quota", message, type_="insufficient_quota", headers=_again(left_s))
    until = datetime.fromtimestamp(unix + left_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    message = (
        f"The key '{key}' has used up its budget of {_said(budget.amount, budget)} {_PER[budget.per]}. "
        f"Please try again after {until}.{reason}"
    )
    return _final(Problem(429, "insufficient_quota", message, type_="insufficient_quota"), left_s)


def _said(amount: float, budget: Budget) -> str:
    return f"{amount:.0f} tokens" if budget.unit == "tokens" else f"{amount:.6g}"


def _again(left_s: float) -> dict[str, str]:
    return {**retry_after(min(left_s, _LONGEST_S)), "x-should-retry": "true"}


def _final(problem: Problem, left_s: float | None) -> Problem:
    """Not to be sent again by itself. `Retry-After` is the true one, however long; none where it is of no use."""
    advice = {} if left_s is None else {"retry-after": str(max(1, math.ceil(left_s)))}
    problem.headers = {**advice, "x-should-retry": "false"}
    return problem
