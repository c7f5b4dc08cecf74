"""The series of keys, usage and the store on the page that Prometheus reads."""

from __future__ import annotations

from app.metrics import MOST_KEYS, OTHER_KEYS
from app.supervisor.metrics.bucket_counts import BucketCounts
from app.supervisor.metrics.snapshot import GatewaySnapshot
from app.supervisor.metrics.team_series import STORE_BOUNDS, KeyCounts, KeyTotals, TeamCounts
from tests.unit.supervisor.test_machine_series import labels, page_of


async def test_what_keys_have_used_is_told_by_their_names() -> None:
    used = {'a "team"': KeyCounts(3, 100, 20, 0.5), "idle": KeyCounts()}

    page = await page_of(GatewaySnapshot(team=TeamCounts(keys=used)))

    assert page["modelport_key_requests_total", labels(key='a "team"')] == 3
    assert page["modelport_key_tokens_total", labels(key='a "team"', gen_ai_token_type="input")] == 100
    assert page["modelport_key_tokens_total", labels(key='a "team"', gen_ai_token_type="output")] == 20
    assert page["modelport_key_money_total", labels(key='a "team"')] == 0.5
    assert page["modelport_key_requests_total", labels(key="idle")] == 0


async def test_the_store_and_the_gateways_that_share_it_are_told() -> None:
    calls = BucketCounts(STORE_BOUNDS)
    calls.observe(0.003)

    page = await page_of(
        GatewaySnapshot(
            team=TeamCounts(is_store_up=False, store_seconds={"draw": calls}, gateways=3, pending=7, lost=1)
        )
    )

    assert page["modelport_store_up", labels()] == 0
    assert page["modelport_store_seconds_bucket", labels(operation="draw", le="0.005")] == 1
    assert page["modelport_store_seconds_bucket", labels(operation="draw", le="0.0025")] == 0
    assert page["modelport_gateways", labels()] == 3
    assert page["modelport_usage_pending", labels()] == 7
    assert page["modelport_usage_lost_total", labels()] == 1


async def test_a_number_of_gateways_that_nobody_knows_is_not_told() -> None:
    page = await page_of(GatewaySnapshot(team=TeamCounts(gateways=None)))

    assert ("modelport_gateways", labels()) not in page


async def test_of_many_keys_the_fullest_of_those_without_series_of_their_own_stands_for_them() -> None:
    shares = [(f"key-{number}", "rpm", number / 1000) for number in range(MOST_KEYS + 50)]

    page = await page_of(GatewaySnapshot(team=TeamCounts(limits=[*shares, ("key-1", "budget", 1.0)])))

    ratios = {name: value for name, value in page.items() if name[0] == "modelport_key_limit_ratio"}
    assert len(ratios) == MOST_KEYS + 2
    assert page["modelport_key_limit_ratio", labels(key=OTHER_KEYS, limit="rpm")] == (MOST_KEYS + 49) / 1000
    assert page["modelport_key_limit_ratio", labels(key="key-1", limit="budget")] == 1


def test_keys_beyond_the_bound_are_counted_together_and_nothing_is_lost() -> None:
    totals = KeyTotals(most=2)
    totals.follow({"a"})
    totals.follow({"x", "y", "z"})

    for name in ("a", "b", "c", "d", "a"):
        totals.add(name, KeyCounts(1, 10, 2, 0.25))

    assert totals.shown() == {
        "a": KeyCounts(2, 20, 4, 0.5),
        "b": KeyCounts(1, 10, 2, 0.25),
        OTHER_KEYS: KeyCounts(2, 20, 4, 0.5),
    }
