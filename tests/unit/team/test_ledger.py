"""One limit of one key: what it takes in, what is left of it, and what a gateway may do by itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.supervisor.team.limits.ledger import VALID_S, Ledger
from app.supervisor.team.limits.spans import Calendar, Rolling, WhileItRuns

NOW = 1_700_000_000.0


def rolling(limit: float = 600.0, *, is_known: bool = True) -> Ledger:
    ledger = Ledger("requests", limit, Rolling(), NOW)
    if is_known:
        ledger.agreed(NOW)
    return ledger


def spend(ledger: Ledger, amount: float, at: float) -> None:
    ledger.held += amount
    ledger.hand_out(amount)
    ledger.spend(amount, at)


def test_what_was_spent_counts_for_a_minute_from_the_end_of_its_slot() -> None:
    ledger = rolling()
    spend(ledger, 10, NOW + 0.2)

    assert ledger.spent(NOW + 60.4) == 10
    assert ledger.spent(NOW + 60.6) == 0
    assert ledger.room(NOW + 1, 1) == 590


def test_nothing_more_is_given_out_than_a_limit_that_became_less() -> None:
    ledger = Ledger("parallel", 5, WhileItRuns(), NOW)
    ledger.held = 5.0
    ledger.hand_out(5)

    ledger.limit = 2.0
    ledger.take_back(2)

    assert ledger.pool <= 0
    ledger.take_back(2)
    assert ledger.pool == 1


def test_what_others_spent_and_hold_is_not_there() -> None:
    ledger = rolling()
    ledger.others = {"b": {Rolling().slot(NOW): 100.0}}
    ledger.others_held = {"b": 20.0}

    assert ledger.room(NOW + 1, 2) == 480


def test_a_request_that_came_to_less_gives_the_rest_back_to_the_slots_from_its_own_on() -> None:
    ledger = rolling(60_000)
    granted = Rolling().slot(NOW)
    spend(ledger, 600, NOW + 1.2)

    ledger.settle(granted, -500, NOW + 3)

    assert ledger.spent(NOW + 4) == 100


def test_a_request_that_came_to_more_counts_as_more() -> None:
    ledger = rolling()
    spend(ledger, 600, NOW)
    ledger.settle(Rolling().slot(NOW), 50, NOW + 1)

    assert ledger.spent(NOW + 2) == 650


def test_a_correction_that_comes_late_or_names_a_slot_of_the_future_is_kept_within_what_counts() -> None:
    ledger = rolling()
    spend(ledger, 100, NOW)
    ledger.settle(Rolling().slot(NOW + 500), -40, NOW + 1)
    ledger.settle(0, -40, NOW + 1)

    assert ledger.spent(NOW + 2) == 60
    assert all(slot <= Rolling().slot(NOW + 1) for slot in ledger.own)


def test_a_wait_ends_when_as_much_is_free_as_is_needed() -> None:
    ledger = rolling(100)
    spend(ledger, 60, NOW)
    spend(ledger, 40, NOW + 30)

    assert ledger.wait_s(10, NOW + 40, 1, ()) == pytest.approx(20.5)
    assert ledger.wait_s(80, NOW + 40, 1, ()) == pytest.approx(50.5)
    assert ledger.wait_s(101, NOW + 40, 1, ()) == float("inf")


def test_a_wait_does_not_end_before_the_earliest_time() -> None:
    ledger = rolling(100)

    assert ledger.wait_s(10, NOW, 3, None, NOW + 3) == 3


def test_what_is_not_known_yet_counts_as_used_for_a_minute() -> None:
    ledger = rolling(is_known=False)

    assert ledger.lone_room(NOW + 59, 3) == 0
    assert ledger.lone_room(NOW + 61, 3) == 200


def test_alone_a_gateway_has_its_share_of_what_was_left() -> None:
    ledger = rolling()
    spend(ledger, 150, NOW)
    ledger.others = {"b": {Rolling().slot(NOW): 150.0}}
    ledger.agreed(NOW + 1)

    assert ledger.lone_room(NOW + 5, 3) == 100
    assert ledger.lone_room(NOW + 61, 3) == 200


def test_alone_a_gateway_spends_no_more_than_its_share_in_a_window() -> None:
    ledger = rolling()
    spend(ledger, 200, NOW + 5)

    assert ledger.lone_room(NOW + 64, 3) == 0
    assert ledger.lone_room(NOW + 66, 3) == 200


def test_alone_what_was_held_before_is_not_given_twice() -> None:
    ledger = rolling()
    ledger.held = 30
    ledger.agreed(NOW)

    assert ledger.lone_room(NOW + 5, 3) == 190
    ledger.hand_out(30)
    ledger.spend(30, NOW + 6)
    assert ledger.lone_room(NOW + 7, 3) == 190


def test_for_a_silent_gateway_just_that_is_kept_which_it_may_spend_alone() -> None:
    mine, silent = rolling(), rolling()
    for ledger in (mine, silent):
        ledger.others = {"c": {Rolling().slot(NOW): 300.0}}
        ledger.agreed(NOW + 1)

    alone = silent.lone_room(NOW + 5, 3)

    assert alone == 100
    assert mine.room(NOW + 5, 3, [("b", NOW + 1)]) == 300 - alone
    assert mine.room(NOW + 61, 3, [("b", NOW + 1)]) == 600 - silent.lone_room(NOW + 61, 3)


def test_places_are_shared_out_while_a_gateway_is_alone_one_at_least() -> None:
    ledger = Ledger("parallel", 8, WhileItRuns(), NOW)
    ledger.agreed(NOW)
    assert ledger.lone_room(NOW, 3) == 2
    ledger.held = 5
    assert ledger.lone_room(NOW, 3) == 0
    ledger.held, ledger.limit = 0, 2
    assert ledger.lone_room(NOW, 3) == 1


def test_nothing_is_held_in_advance_where_nobody_asks() -> None:
    ledger = rolling()
    spend(ledger, 3, NOW)

    assert ledger.ahead(NOW) == 10
    assert ledger.ahead(NOW + 1) == 10
    assert ledger.ahead(NOW + 10) == 0


def test_a_burst_has_as_much_in_advance_as_was_used_in_the_last_second() -> None:
    ledger = rolling()
    spend(ledger, 80, NOW)

    assert ledger.ahead(NOW + 0.5) == 80


def test_where_not_all_that_wait_can_be_served_nothing_is_held_in_advance() -> None:
    ledger = rolling()
    spend(ledger, 590, NOW)

    assert ledger.wish(NOW, 5, True, 1, 10) == 5
    assert ledger.wish(NOW, 5, False, 1, 10) == 10


PERIODS = {
    "day": ("day", "2026-11-28T13:00:00", "2026-11-28T00:00:00", "2026-11-29T00:00:00"),
    "week": ("week", "2026-11-28T13:00:00", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
    "week on a Monday": ("week", "2026-11-23T00:00:00", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
    "month": ("month", "2026-11-28T13:00:00", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
    "December": ("month", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    "a leap year's February": ("month", "2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
}


@pytest.mark.parametrize(("per", "at", "begin", "end"), PERIODS.values(), ids=PERIODS)
def test_a_budget_is_of_the_calendar_in_utc(per: str, at: str, begin: str, end: str) -> None:
    span = Calendar(per)  # type: ignore[arg-type]
    slot = span.slot(unix(at))

    assert slot == unix(begin)
    assert span.ends(slot) == unix(end)


def unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_budget_is_what_records_say_and_what_is_still_to_be_recorded() -> None:
    ledger = Ledger("tokens/month", 1000, Calendar("month"), NOW)
    ledger.recorded = (Calendar("month").slot(NOW), 600.0)
    ledger.agreed(NOW)
    ledger.held = 100
    ledger.hand_out(100)
    ledger.spend(100, NOW)

    assert ledger.room(NOW, 1) - ledger.held == 300
    ledger.linger(0)
    assert ledger.held == 0
    assert ledger.pool == 0


def test_a_budget_is_whole_again_when_its_period_is_over() -> None:
    ledger = Ledger("tokens/day", 1000, Calendar("day"), NOW)
    ledger.recorded = (Calendar("day").slot(NOW), 1000.0)
    ledger.agreed(NOW)

    assert ledger.room(NOW, 1) == 0
    wait = ledger.wait_s(1, NOW, 1, ())
    assert ledger.room(NOW + wait, 1) == 1000


def test_what_is_only_held_of_a_budget_is_not_refused_until_its_period_is_over() -> None:
    """Requests set aside more than they use. Who was told to come in a month would be, although most of it is left."""
    ledger = Ledger("tokens/month", 1000, Calendar("month"), NOW)
    ledger.recorded = (Calendar("month").slot(NOW), 600.0)
    ledger.agreed(NOW)
    spend(ledger, 390, NOW)

    assert ledger.wait_s(50, NOW, 1, ()) == VALID_S
    assert ledger.wait_s(401, NOW, 1, ()) > 3600


def test_what_was_spent_before_the_clock_was_set_back_counts_for_a_minute_from_now() -> None:
    ledger = rolling(100)
    spend(ledger, 60, NOW)
    ledger.others = {"b": {Rolling().slot(NOW): 30.0}}
    back = NOW - 3600

    ledger.forget(back)

    assert ledger.spent(back) == 90
    assert ledger.spent(back + 61) == 0
    assert ledger.reset_s(back) < 61
    assert ledger.unsaid == {Rolling().slot(NOW), Rolling().slot(back)}


def test_a_clock_that_was_set_back_ends_what_is_drawn_in_advance() -> None:
    ledger = rolling(600)
    spend(ledger, 60, NOW)

    assert ledger.ahead(NOW) > 0
    assert ledger.ahead(NOW - 3600) == 0
