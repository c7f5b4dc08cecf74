"""How often requests go to one more target while such tries fail."""

from __future__ import annotations

from app.relay.balancing.retry_budget import FLOOR, RetryBudget


def test_tries_that_are_answered_cost_nothing() -> None:
    budget = RetryBudget(0.2, 0.0)

    for _ in range(1000):
        assert budget.allows(0.0)
        budget.answered()


def test_while_everything_fails_there_are_a_few_at_once_and_then_one_each_second() -> None:
    budget, tried = RetryBudget(0.2, 0.0), 0

    for at in range(6000):  # 100 requests each second for a minute, with four more targets each
        for _ in range(4):
            if budget.allows(at / 100):
                tried += 1
                budget.failed()

    assert 59 + FLOOR <= tried <= 60 + FLOOR


def test_requests_that_are_answered_give_their_share_back() -> None:
    budget, tried = RetryBudget(0.2, 0.0), 0

    for _ in range(1000):
        budget.answered()
        if budget.allows(0.0):
            tried += 1
            budget.failed()

    assert 200 <= tried <= 200 + FLOOR


def test_what_was_not_used_for_long_is_no_more_than_the_floor() -> None:
    budget, tried = RetryBudget(0.2, 0.0), 0

    while budget.allows(1e6):
        tried += 1
        budget.failed()

    assert tried == FLOOR
