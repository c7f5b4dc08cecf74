"""One of three replicas fails and is well again. After how many requests it is ejected is measured, not asserted, by
`python -m tests.journeys.ejecting`."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.ejecting import report, run


async def test_a_replica_that_fails_is_passed_over_and_is_back_when_it_is_well(tmp_path: Path) -> None:
    outcome = await run(tmp_path, "fails", ill_s=1.0, well_s=0.5)

    ill_at, out_at, well_at, back_at = outcome.times
    while_out = [call for call in outcome.calls if out_at <= call.began < well_at]
    assert ill_at < out_at < well_at < back_at
    assert while_out
    assert all(call.is_answered for call in while_out)
    assert all(call.is_answered for call in outcome.calls if call.began >= back_at)
    assert "ejected after" in report("fails", outcome)
