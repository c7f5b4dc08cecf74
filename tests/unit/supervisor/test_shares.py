"""Whose turn it is, and how long a wait is going to be: the rules alone, with a clock that the test moves."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from app.supervisor.admission.service_times import KEPT, LEAST, ServiceTimes
from app.supervisor.admission.shares import Claimant, FairShares

A, B, C = (Claimant(key, is_batch=False) for key in "abc")
NIGHT, NIGHTLY = (Claimant(key, is_batch=True) for key in ("night", "nightly"))


def shares(**debts: float) -> FairShares:
    made = FairShares()
    for claimant in (A, B, C, NIGHT, NIGHTLY):
        if claimant.key in debts:
            made.charge(claimant, debts[claimant.key])
    return made


def test_time_pays_all_debts_in_equal_parts_and_what_one_does_not_need_is_the_others() -> None:
    owed = shares(a=5.0, b=1.0, c=3.0)

    owed.pay(6.0)

    assert [owed.debt(each) for each in (A, B, C)] == pytest.approx([2.5, 0.0, 0.5])


def test_batches_have_a_tenth_beside_interactive_requests_and_all_of_it_alone() -> None:
    owed = shares(a=50.0, night=50.0, nightly=50.0)
    assert owed.share(A) == pytest.approx(0.9)
    assert owed.share(NIGHT) == pytest.approx(0.05)
    assert owed.share(B) == pytest.approx(0.45), "as it would be once it has a debt"

    owed.pay(20.0)

    assert [owed.debt(each) for each in (A, NIGHT, NIGHTLY)] == pytest.approx([32.0, 49.0, 49.0])
    assert shares(night=1.0).share(NIGHT) == 1.0


def test_a_debt_ends_at_nothing_and_what_was_given_back_is_no_credit() -> None:
    owed = shares(a=2.0)

    owed.charge(A, -3.0)
    owed.pay(100.0)

    assert owed.debt(A) == 0.0
    assert owed.share(A) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_no_more_is_paid_than_there_was_and_none_goes_below_nothing(seed: int) -> None:
    rng = random.Random(seed)
    owed = FairShares()
    everybody = [Claimant(str(n), is_batch=n % 3 == 0) for n in range(8)]
    charged = 0.0
    for _ in range(50):
        amount = rng.random() * 3
        owed.charge(rng.choice(everybody), amount)
        charged += amount
    before = sum(owed.debt(each) for each in everybody)
    assert before == pytest.approx(charged)

    owed.pay(before / 3)

    after = [owed.debt(each) for each in everybody]
    assert sum(after) == pytest.approx(before - before / 3)
    assert min(after) >= 0.0
    shared = [owed.share(each) for each in everybody if owed.debt(each) > 0]
    assert sum(shared) == pytest.approx(1.0)


# -- how long a wait is going to be


def times(*seconds: float) -> ServiceTimes:
    made = ServiceTimes()
    for each in seconds:
        made.note(each)
    return made


def test_of_nothing_nothing_is_foretold_and_of_a_few_requests_little() -> None:
    assert times().places([100.0], 0.001) == math.inf
    few = times(*itertools.repeat(2.0, LEAST - 1))
    assert few.places([0.0] * 4, 2.0) == pytest.approx(8.0), "twice as many as are expected"
    assert few.places([14.0], 2.0) == pytest.approx(1.0), "one that takes long counts while it runs"

    few.note(2.0)

    assert few.places([0.0] * 4, 1.9) == 0.0


@pytest.mark.parametrize(
    ("elapsed", "within_s", "places"),
    [
        ([0.0, 1.0, 1.9], 0.5, 1),
        ([0.0, 1.0, 1.9], 1.0, 2),
        ([0.0, 1.0, 1.9], 0.05, 0),
        ([1.9, 1.9], 0.2, 2),
        ([], 10.0, 0),
    ],
)
def test_requests_that_always_take_two_seconds_end_when_those_are_over(
    elapsed: list[float], within_s: float, places: int
) -> None:
    assert math.floor(times(*itertools.repeat(2.0, 20)).places(elapsed, within_s)) == places


def test_a_place_that_comes_free_early_may_do_so_again() -> None:
    assert times(*itertools.repeat(2.0, 20)).places([1.0], 20.0) > 5.0


def test_one_that_takes_longer_than_any_before_is_taken_to_end_soon() -> None:
    known = times(*itertools.repeat(2.0, 20))

    assert known.places([100.0], 1.0) >= 1.0
    assert known.places([100.0], 0.01) == 0.0


def endings(rng: random.Random, within_s: float) -> int:
    """How many requests end in one place, one after the other."""
    ended = 0
    while (within_s := within_s - rng.expovariate(1.0)) > 0.0:
        ended += 1
    return ended


def test_what_ends_at_any_time_is_foretold_with_caution() -> None:
    rng = random.Random(1)
    kept, enough = 0, []
    for _ in range(50):
        known = times(*(rng.expovariate(1.0) for _ in range(KEPT)))
        elapsed = [rng.random() for _ in range(32)]
        foretold = known.places(elapsed, 0.5)
        ended = [sum(endings(rng, 0.5) for _ in elapsed) for _ in range(20)]
        kept += sum(count >= foretold for count in ended)
        enough.append(foretold / (sum(ended) / len(ended)))

    assert kept > 0.6 * 50 * 20
    assert sum(enough) / len(enough) > 0.6


def test_of_many_that_run_a_part_is_looked_at() -> None:
    known = times(*itertools.repeat(2.0, 20))

    assert known.places([1.5] * 1000, 1.0) == pytest.approx(known.places([1.5] * 64, 1.0) * 1000 / 64, rel=0.05)


def test_only_the_latest_requests_count() -> None:
    known = times(*itertools.repeat(9.0, KEPT), *itertools.repeat(1.0, KEPT))

    assert known.mean_s == pytest.approx(1.0)
    assert repr(known) == f"<ServiceTimes {KEPT} mean_s={known.mean_s}>"
