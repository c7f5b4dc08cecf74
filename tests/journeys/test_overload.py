"""A gateway that is asked for four times as much as its engine can do. How soon is measured, and not asserted, by
`python -m tests.journeys.overload`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.journeys.overload import DEMANDS, Load, overload, report


def test_each_request_is_served_whole_or_refused_and_every_key_is_served(tmp_path: Path) -> None:
    load = Load(places=8, first_s=0.1, pace_s=0.02, seconds=3.0, warm_s=1.0)

    outcome = overload(tmp_path, load)

    kinds = Counter((call.status, call.is_whole) for call in outcome.calls)
    assert set(kinds) == {(200, True), (429, False)}
    assert {call.caller for call in outcome.calls if call.is_whole} == set(DEMANDS)
    assert outcome.most <= load.places
    assert len(report(load, outcome)) == 5 + len(DEMANDS)


def test_without_a_limit_the_queue_is_the_engines_own(tmp_path: Path) -> None:
    load = Load(places=4, first_s=0.1, pace_s=0.01, seconds=1.0, warm_s=0.5)

    outcome = overload(tmp_path, load, limited=False)

    assert {call.status for call in outcome.calls} == {200}
    assert outcome.most > load.places
