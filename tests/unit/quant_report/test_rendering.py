"""A report as people see it."""

from __future__ import annotations

import dataclasses

import pytest

from app.quant_report.figures import Estimate, Quality, QuantReport, Recommendation, Row, Speed
from app.quant_report.rendering import (
    QUALITY,
    SIZES,
    bar,
    bars,
    chart_rows,
    facts,
    markdown,
    megabytes,
    qualities,
    sizes,
)

SPEED = Speed(588.4, 90.12, 238_500_000)
FIRST = Row("bf16", "m-bf16.gguf", 270_900_000, 16.0, SPEED, Quality(True, Estimate(17.3, 14.7, 20.3)), None, 0.0001)
BOUNDS = Quality(
    False,
    Estimate(12.5, 11.1, 14.1),
    0.9,
    Estimate(1.05, 1.03, 1.06),
    Estimate(0.05, 0.04, 0.06),
    Estimate(0.85, 0.8, 0.9),
)
EXACT = dataclasses.replace(BOUNDS, is_exact=True, perplexity=Estimate(18.859, 16.0, 22.1), seen=1.0)
SECOND = Row("q4_k_m", "m-q4_k_m.gguf", 105_500_000, 6.17, SPEED, EXACT, BOUNDS, 0.0002)
REPORT = QuantReport(
    model="security",
    text_name="mine.json",
    text_kind="Alpaca, by its chat template",
    tokens=3249,
    passages=12,
    window=512,
    stride=256,
    context=512,
    threads=2,
    machine="a processor",
    engine="2026.10",
    within=0.02,
    rows=(FIRST, SECOND),
    recommendation=Recommendation(None, "Serve bf16: no."),
    notes=("A note.",),
    chart="report.png",
)


def test_sizes_are_beside_what_they_save() -> None:
    assert sizes(REPORT)[1] == ("q4_k_m", "105.5 MB", "38.9%", "6.17", "238.5 MB", "588", "90.1")
    assert all(len(row) == len(SIZES) for row in sizes(REPORT))


def test_each_figure_has_its_interval_and_a_bound_is_marked() -> None:
    first, second, beneath = qualities(REPORT)

    assert first == ("bf16", "17.300 [14.700, 20.300]", "", "", "")
    assert second[2:] == ("+5.00 % [+3.00 %, +6.00 %]", "0.0500 [0.0400, 0.0600]", "85.0 % [80.0 %, 90.0 %]")
    assert beneath[0] == "q4_k_m, by top_logprobs"
    assert [cell[:2] for cell in beneath[1:4]] == ["≥ ", "≈ ", "≥ "]
    assert len(first) == len(QUALITY)


def test_a_page_has_the_advice_first_and_two_whole_tables() -> None:
    page = markdown(REPORT)

    assert page.splitlines()[2] == "Serve bf16: no."
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {len(SIZES) + 1, len(QUALITY) + 1}
    assert "![Size and loss](report.png)" in page
    assert "- A note." in page
    assert "![" not in markdown(dataclasses.replace(REPORT, chart=None))


def test_the_facts_say_where_the_figures_come_from() -> None:
    text = " ".join(facts(REPORT))

    assert "3,249 predicted tokens in 12 passages" in text
    assert "at least 256 before it" in text
    assert "within 0.00020" in text


@pytest.mark.parametrize(("part", "drawn"), [(0, ""), (0.5, "██"), (1, "████"), (2, "████"), (0.28125, "█▏"), (-1, "")])
def test_a_bar_is_drawn_in_eighths(part: float, drawn: str) -> None:
    assert bar(part, 4) == drawn


def test_bars_stand_under_their_headings() -> None:
    head, *lines = bars(REPORT)

    at = head.index("perplexity above bf16's (limit 2 %)")
    assert [line[:6].strip() for line in lines] == ["bf16", "q4_k_m"]
    assert lines[1][at] == "█"
    assert lines[1].endswith("+5.00 %")
    assert lines[0][at:].strip() == "+0.00 %"


def test_a_chart_has_percents_and_the_first_is_the_reference() -> None:
    first, second = chart_rows(REPORT)

    assert (first["loss"], first["same"], first["kl"]) == (0, 100, 0)
    assert second["loss_high"] == pytest.approx(6)
    assert second["size_mb"] == pytest.approx(105.5)


@pytest.mark.parametrize(("size", "words"), [(144_810_848, "144.8 MB"), (15_200_000_000, "15.20 GB")])
def test_sizes_are_in_words(size: int, words: str) -> None:
    assert megabytes(size) == words
