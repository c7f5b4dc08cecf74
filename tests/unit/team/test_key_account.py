"""All limits of one key at one gateway (app/supervisor/team/limits/key_account.py)."""

from __future__ import annotations

import pytest

from app.ipc import AllowanceWanted, Amounts, Spent
from app.supervisor.team.limits.key_account import KeyAccount, Waiter
from app.table import Budget, KeyLimits

NOW = 1_700_000_000.0
TOKENS = KeyLimits(rpm=600, budget=Budget(10_000, "tokens", "month"))


def running(budget: float) -> KeyAccount:
    """A key one of whose requests runs, for which so much was set aside."""
    account = KeyAccount("k1")
    account.follow(TOKENS, NOW)
    for ledger in account.ledgers.values():
        ledger.agreed(NOW)
        ledger.held = ledger.limit
    asked = AllowanceWanted(1, "k1", Amounts(requests=1, budget=budget))
    assert account.grant(Waiter(1, asked.seq, asked.needs, asked.wants, repr), NOW) is not None
    account.note(1, Spent("k1", Amounts(requests=1, budget=budget)), NOW)
    return account


@pytest.mark.parametrize(
    "between", [KeyLimits(rpm=600), KeyLimits(rpm=600, budget=Budget(20.0, "money", "month"))], ids=["none", "money"]
)
@pytest.mark.parametrize("is_recorded", [True, False])
def test_what_was_set_aside_of_a_budget_is_not_kept_of_the_next_one(between: KeyLimits, is_recorded: bool) -> None:
    account = running(5000.0)
    account.is_recorded = is_recorded

    account.follow(between, NOW + 1)
    account.note(1, Spent("k1", settled=((0.0, Amounts(budget=-5000.0)),)), NOW + 2)
    account.follow(TOKENS, NOW + 3)
    account.linger(0.0, NOW + 10, is_recorded=True)

    assert account.ledgers["budget"].lingering == 0


def test_what_is_set_aside_is_held_until_it_ends() -> None:
    account = running(5000.0)

    account.linger(0.0, NOW + 10, is_recorded=True)

    assert account.ledgers["budget"].lingering == 5000
