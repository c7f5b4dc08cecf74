"""The arithmetic of the benchmark: medians, spreads, and comparisons made round by round."""

from __future__ import annotations

from dataclasses import replace

from bench.figures import Round, Spread, rows
from bench.page import markdown

BARE = Round(0, 0, 0, 200_000, 0.010, 0.020, 0, 0, 0)
NGINX = Round(10, 20, 0, 50_000, 0.110, 0.220, 5_000_000, 0, 0)
OURS = Round(100, 40, 1, 6_000, 0.310, 0.520, 40_000_000, 60_000_000, 0)


def test_a_spread_is_the_median_and_how_far_the_rounds_went() -> None:
    assert Spread.of([3.0, 1.0, 1_000.0]).text(1) == "3.0 (1.0–1,000.0)"


def test_comparisons_are_made_within_a_round() -> None:
    """A slow round of everybody is no difference between them."""
    slow = [replace(each, cpu_per_request_us=each.cpu_per_request_us * 3) for each in (NGINX, OURS)]

    table = rows({"no proxy": [BARE] * 2, "nginx": [NGINX, slow[0]], "modelport": [OURS, slow[1]]})

    assert ("× nginx", "–", "1.0 (1.0–1.0)", "10.0 (10.0–10.0)") in table
    assert ("added to no proxy", "–", "0.100 (0.100–0.100)", "0.300 (0.300–0.300)") in table


def test_without_nginx_there_are_no_ratios() -> None:
    table = rows({"no proxy": [BARE], "modelport": [OURS]})

    assert [row for row in table if row[0] == "× nginx"] == [("× nginx", "–", "–")] * 2
    assert ("CPU-µs per request", "–", "100.0 (100.0–100.0)") in table


def test_failures_are_added_up_and_shown() -> None:
    table = rows({"no proxy": [BARE] * 2, "modelport": [OURS, replace(OURS, failures=3)]})

    assert table[-1] == ("failures", "0", "3")


def test_the_page_holds_the_table_the_method_and_the_notes() -> None:
    settings = {"count": 20_000, "single": 3_000, "connections": 32, "answer": 666}

    page = markdown({"no proxy": [BARE], "modelport": [OURS]}, settings, ["nginx is not installed."])

    assert "| | no proxy | modelport |\n|---|---|---|\n" in page
    assert "20,000 chat requests with answers of 666 bytes" in page
    assert "nginx is not installed." in page
    assert "The supervisor beside it: 1.0" in page
