"""A run whose answers are to be weighed otherwise than when it began."""

from __future__ import annotations

import msgspec

from app.comparison.running.compare_run import reordered
from app.comparison.running.run_record import RunOrder
from tests.unit.comparison.running.runs import order, questions, record

ORDER = order(questions(3))
FINISHED = msgspec.structs.replace(record(ORDER), state="finished", finished=1_795_786_900, notes=("seen before",))


def changed(**changes: object) -> RunOrder:
    return msgspec.structs.replace(ORDER, **changes)


def test_another_primary_asks_nothing_and_is_told_until_it_is_the_first_one_again() -> None:
    other = reordered(FINISHED, changed(primary="chrf"))
    third = reordered(other, changed(primary="exact"))
    back = reordered(third, ORDER)

    assert (other.state, other.order.primary, other.declared) == ("finished", "chrf", "contains")
    assert other.notes[0] == "seen before"
    assert "chrf was chosen after the run had begun with contains" in other.notes[1]
    assert len(third.notes) == 2
    assert "exact was chosen after the run had begun with contains" in third.notes[1]
    assert back == FINISHED


def test_a_judge_and_what_was_not_measured_are_asked_and_a_judge_less_is_not() -> None:
    judged = reordered(FINISHED, changed(judge="base"))
    less = reordered(msgspec.structs.replace(judged, state="finished"), ORDER)
    unmeasured = msgspec.structs.replace(FINISHED, order=changed(likelihood=False))

    assert (judged.state, judged.finished) == ("running", None)
    assert "The judge base is one of the compared models" in judged.notes[1]
    assert (less.state, less.notes) == ("finished", FINISHED.notes)
    assert reordered(unmeasured, ORDER).state == "running"
