"""The arithmetic of the benchmark: medians, spreads, and comparisons made round by round."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bench.figures import Round, Spread, rows
from bench.limits import BOTH, NEITHER, CountedRound
from bench.limits import section as limits_section
from bench.page import kept, markdown, with_section
from bench.profiled import profiled
from bench.relays import ONE, RelayLoad
from bench.relays import section as relays_section
from bench.subjects import BenchSettings
from bench.watching import NOBODY, WatchedRound, section

BARE = Round(0, 0, 0, 200_000, 0.010, 0.020, 0, 0, 0)
NGINX = Round(10, 20, 0, 50_000, 0.110, 0.220, 5_000_000, 0, 0)
OURS = Round(100, 40, 1, 6_000, 0.310, 0.520, 40_000_000, 60_000_000, 0)


def test_a_spread_is_the_median_and_how_far_the_rounds_went() -> None:
    assert Spread.of([3.0, 1.0, 1_000.0]).text(1) == "3.0 (1.0–1,000.0)"


def test_comparisons_are_made_within_a_round() -> None:
    """A slow round of everybody is no difference between them."""
    slow = [replace(each, cpu_per_request_us=each.cpu_per_request_us * 3) for each in (NGINX, OURS)]

    table = rows({"no proxy": [BARE] * 2, "nginx": [NGINX, slow[0]], "modelport": [OURS, slow[1]]})

    assert ("× nginx", "–", "1.00 (1.00–1.00)", "10.00 (10.00–10.00)") in table
    assert ("added to no proxy", "–", "0.100 (0.100–0.100)", "0.300 (0.300–0.300)") in table


def test_without_nginx_there_are_no_ratios() -> None:
    table = rows({"no proxy": [BARE], "modelport": [OURS]})

    assert [row for row in table if row[0] == "× nginx"] == [("× nginx", "–", "–")] * 2
    assert ("CPU-µs per request", "–", "100.0 (100.0–100.0)") in table


def test_each_subject_is_told_beside_both_of_vllm_routers_ways() -> None:
    router = replace(NGINX, cpu_per_request_us=80)
    measured = {"no proxy": [BARE], "vllm-router": [router], "vllm-router, round robin": [NGINX], "modelport": [OURS]}

    table = rows(measured)

    assert ("× vllm-router", "–", "1.00 (1.00–1.00)", "0.12 (0.12–0.12)", "1.25 (1.25–1.25)") in table
    told = ("× vllm-router, round robin", "–", "8.00 (8.00–8.00)", "1.00 (1.00–1.00)", "10.00 (10.00–10.00)")
    assert told in table


def test_failures_are_added_up_and_shown() -> None:
    table = rows({"no proxy": [BARE] * 2, "modelport": [OURS, replace(OURS, failures=3)]})

    assert table[-1] == ("failures", "0", "3")


def test_a_section_that_another_command_has_written_is_kept() -> None:
    fresh = "# Title\n\nNew.\n\n## Result of 3 rounds\n\nnew\n\n## Machine\n\nnew\n"
    before = "# Title\n\nOld.\n\n## Result of 2 rounds\n\nold\n\n## What watching costs\n\nold\n\n## Machine\n\nold\n"

    page = kept(before, fresh)

    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Result of 3 rounds",
        "## What watching costs",
        "## Machine",
    ]
    assert page.count("new") == 2
    assert with_section(page, "## What watching costs\n\nnew\n").count("old") == 0


def test_what_watching_costs_is_told_beside_nothing_at_all_of_the_same_round() -> None:
    quiet = [WatchedRound(100, 40, 0), WatchedRound(300, 120, 0)]
    counted = [WatchedRound(110, 41, 0), WatchedRound(310, 121, 1)]

    text = section({NOBODY: quiet, "counters (always on)": counted}, 10_000, 32)

    assert f"| {NOBODY} | 200.0 (100.0–300.0) | 80.0 (40.0–120.0) |" in text
    told = "210.0 (110.0–310.0) [+10.0 (+10.0 to +10.0)] | 81.0 (41.0–121.0) [+1.0 (+1.0 to +1.0)]"
    assert f"| counters (always on) | {told} |" in text
    assert "2 rounds, 1 failures" in text


def test_the_page_holds_the_table_the_method_and_the_notes() -> None:
    settings = {"count": 20_000, "single": 3_000, "connections": 32, "answer": 666, "keys": 8}

    page = markdown({"no proxy": [BARE], "modelport": [OURS]}, settings, ["nginx is not installed."])

    assert "| | no proxy | modelport |\n|---|---|---|\n" in page
    assert "20,000 chat requests with answers of 666 bytes" in page
    assert "nginx is not installed." in page
    assert "| CPU-µs of the supervisor per request | – | 1.0 (1.0–1.0) |" in page


def work(seconds: float) -> None:
    """Use so much CPU time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1_000))


@pytest.mark.parametrize("way", ["samples", "calls"])
def test_a_profile_says_which_function_was_at_work(way: str, tmp_path: Path) -> None:
    with profiled(way, tmp_path / "profile"):
        work(0.3)

    told = json.loads((tmp_path / "profile").read_text())
    (calls, _, time_with_calls) = next(figures for name, figures in told.items() if name.endswith(" work"))
    assert calls == (1 if way == "calls" else 0)
    assert time_with_calls > 0


def test_two_relays_are_told_beside_one_of_the_same_run() -> None:
    one = [RelayLoad(200, 4_000, (32,), 0), RelayLoad(400, 2_000, (32,), 0)]
    two = [RelayLoad(210, 6_000, (16, 16), 0), RelayLoad(420, 3_000, (18, 14), 1)]

    text = relays_section({(32, False): {ONE: one, "two relays, one core": two}}, 8_000)

    assert f"| 32 connections, {ONE} | 300.0 (200.0–400.0) per request | – | 3,000 (2,000–4,000) | – | 0 |" in text
    told = "315.0 (210.0–420.0) per request | 1.05 (1.05–1.05) | 4,500 (3,000–6,000) | 53 % (at most 56 %) | 1 |"
    assert f"| 32 connections, two relays, one core | {told}" in text


def test_what_counting_costs_is_told_against_the_same_round_without_it() -> None:
    neither = [CountedRound(80.0, 0.5, 12_000, 0), CountedRound(120.0, 1.5, 8_000, 0)]
    both = [CountedRound(84.0, 10.5, 11_500, 0), CountedRound(126.0, 11.5, 7_500, 1)]

    text = limits_section({NEITHER: neither, BOTH: both}, 4_000, 32)

    assert f"| {NEITHER} | 100.0 (80.0–120.0) | – | – | – | 10,000 (8,000–12,000) | 0 |" in text
    told = "105.0 (84.0–126.0) | 1.050 (1.050–1.050) | +5.0 | +10.0 | 9,500 (7,500–11,500) | 1 |"
    assert f"| {BOTH} | {told}" in text


def test_a_measured_gateway_has_the_settings_that_it_is_measured_with() -> None:
    written = BenchSettings("rpm: 9", "price: {input: 1}", "usage: {records: false}").written(1, 2, ["ab"])

    assert YAML(typ="safe").load(written) == {
        "server": {"host": "127.0.0.1", "port": 1},
        "backends": {"peer": {"kind": "remote", "url": "http://127.0.0.1:2/v1"}},
        "models": {"bench": {"backend": "peer", "model": "bench", "price": {"input": 1}}},
        "usage": {"records": False},
        "keys": [{"name": "client-0", "sha256": "ab", "rpm": 9}],
    }
