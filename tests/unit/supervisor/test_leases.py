"""What the relays hold, added up."""

from __future__ import annotations

import pytest

from app.supervisor.relays.leases import Leases


def test_leases_are_added_up_over_relays_and_told_apart_by_start() -> None:
    leases = Leases()
    leases.joined(1)
    leases.joined(2)

    leases.counted(1, [("gpu", 3, 2), ("gpu", 0, 1)])
    leases.counted(2, [("gpu", 3, 5), ("demo", 1, 4)])

    assert leases.held("gpu", 3) == 7
    assert leases.held("gpu", 0) == 1
    assert leases.held("gpu", 4) == 0
    assert leases.of("gpu") == 8
    assert leases.total() == 12


def test_a_count_replaces_the_one_before_and_what_is_not_named_stays() -> None:
    leases = Leases()
    leases.joined(1)
    leases.counted(1, [("gpu", 3, 2), ("demo", 1, 1)])

    leases.counted(1, [("gpu", 3, 0)])

    assert leases.held("gpu", 3) == 0
    assert leases.held("demo", 1) == 1


def test_a_relay_that_left_holds_nothing_and_delays_nothing() -> None:
    leases = Leases()
    leases.joined(1)
    leases.joined(2)
    leases.counted(2, [("gpu", 1, 9)])
    leases.applied(1, 5)

    leases.left(2)

    assert leases.held("gpu", 1) == 0
    assert leases.is_applied(5)


def test_a_table_is_applied_when_the_slowest_relay_has_it() -> None:
    leases = Leases()
    assert leases.is_applied(7)
    leases.joined(1)
    leases.joined(2)

    leases.applied(1, 7)
    assert not leases.is_applied(7)
    assert leases.has_applied(1, 7)
    assert not leases.has_applied(2, 7)

    leases.applied(2, 8)
    assert leases.is_applied(7)
    assert not leases.is_applied(8)


def test_a_relay_that_is_new_delays_what_others_have_applied() -> None:
    leases = Leases()
    leases.joined(1)
    leases.applied(1, 7)

    leases.joined(2)

    assert not leases.is_applied(7)


def test_a_negative_count_is_refused() -> None:
    leases = Leases()
    leases.joined(1)

    with pytest.raises(ValueError, match="-1 leases of gpu#3"):
        leases.counted(1, [("gpu", 3, -1)])


def test_it_is_known_that_a_start_has_served_however_short_the_request_was() -> None:
    leases = Leases()
    leases.joined(1)

    leases.counted(1, [("gpu", 0, 1), ("gpu", 4, 2)])
    assert not leases.has_returned("gpu", 4)
    leases.counted(1, [("gpu", 4, 1)], [("gpu", 4)])
    assert leases.has_returned("gpu", 4)
    assert not leases.has_returned("gpu", 5)

    leases.counted(1, [("gpu", 5, 0), ("gpu", 4, 0)], [("gpu", 5), ("gpu", 4)])
    assert leases.has_returned("gpu", 5), "it came and went between two reports"
    leases.counted(1, [("gpu", 6, 1)], [("gpu", 6)])
    assert leases.has_returned("gpu", 6), "another came at once"
