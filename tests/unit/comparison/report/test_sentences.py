"""The outcome in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.comparison.analysis.findings import Contrast, Findings, Judging
from app.comparison.report.contents import ComparisonReport
from app.comparison.report.sentences import headline, outcome
from tests.unit.comparison.report.samples import OVERALL, report

NONE = replace(OVERALL, outcome="no_difference", difference=0.02, mean=0.52, low=-0.06, high=0.1, detectable=0.154)
CASES: dict[str, tuple[Contrast, str, str]] = {
    "better": (
        OVERALL,
        "tuned is better than base: contains the reference 70.0 % against 50.0 %, a difference of +20.0 points (95 % "
        "interval +8.0 … +32.0) over 50 questions.",
        "tuned 优于 base：包含参考答案 70.0 % 对 50.0 %，差异 +20.0 个百分点（95% 区间 +8.0 … +32.0），共 50 题。",
    ),
    "worse": (replace(OVERALL, outcome="worse"), "tuned is worse than base", "tuned 劣于 base"),
    "changed": (replace(OVERALL, outcome="changed"), "tuned differs from base", "tuned 不同于 base"),
    "none": (
        replace(NONE, ground="interval"),
        "No difference seen, tuned against base: contains the reference 52.0 % against 50.0 %, a difference of +2.0 "
        "points (95 % interval −6.0 … +10.0) over 50 questions. So many questions could have shown 15.4 points or "
        "more.",
        "这么多题目能检出不小于 15.4 个百分点的差异。",
    ),
    "chance": (replace(NONE, ground="p_value", p_adjusted=0.125), "(p = 0.125)", "（p = 0.125）"),
    "noise": (replace(NONE, ground="noise"), "inside the noise floor of 4.0 points", "噪声基线 4.0 个百分点之内"),
    "too few": (
        replace(OVERALL, outcome="too_few", questions=3),
        "tuned against base: too few questions to say. 3 have a score of both; 6 are needed.",
        "至少需要 6 道",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_outcome_is_a_sentence_in_both_languages(case: str) -> None:
    contrast, english, chinese = CASES[case]

    assert english in outcome(contrast, "", "en")
    assert chinese in outcome(contrast, "", "zh")


def lines(findings: Findings, made: ComparisonReport, language: str = "en") -> str:
    return "\n".join(headline(made.run, findings, {"contains": ""})[language])


@pytest.mark.parametrize(
    ("language", "said"), [("en", "1 of 50 answers is an error; its question is not"), ("zh", "50 个回答中有 1 个错误")]
)
def test_errors_are_said(language: str, said: str) -> None:
    made = report()

    assert said in lines(made.findings, made, language)


def test_categories_are_told_by_how_they_came_out() -> None:
    made = report()
    rows = (replace(OVERALL, category="facts"), replace(NONE, category="sums"), replace(NONE, category=""))

    said = lines(replace(made.findings, categories=rows), made)

    assert "tuned by category: better: facts (+20.0 points); no difference seen: sums, (no category)." in said


def test_a_run_without_repeats_says_that_its_noise_is_not_known() -> None:
    made = report()

    assert "The noise floor was not measured" in lines(replace(made.findings, noise=()), made)
    assert "The noise floor was not measured" not in lines(made.findings, made)


def test_a_run_that_has_not_ended_says_so() -> None:
    made = report()

    assert "has not ended" in lines(made.findings, replace(made, run=replace(made.run, is_whole=False)))


JUDGING = Judging("judge", "tuned", "base", 40, 0, 0.9, 0.8, 0.95, 0.5, True, 20, 10, 10, 0.62, 0.5, 0.74, "better")


def test_what_a_judge_said_is_told_with_its_agreement() -> None:
    made = report()

    for language, said in (("en", "tuned wins 62 % against base"), ("zh", "胜率 62 %")):
        assert said in lines(replace(made.findings, judging=(JUDGING,)), made, language)


def test_a_judge_that_contradicts_itself_is_useless_and_no_result_is_told() -> None:
    made = report()
    useless = replace(JUDGING, agreement=0.0, first_share=1.0, is_useful=False)

    for language, said in (("en", "useless"), ("zh", "无效")):
        told = lines(replace(made.findings, judging=(useless,)), made, language)
        assert said in told
        assert "62 %" not in told


def test_a_judge_of_whom_nothing_could_be_read_has_no_share_of_nothing() -> None:
    made = report()
    mute = replace(JUDGING, pairs=0, errors=40, agreement=0.0, is_useful=False)

    for language, said in (("en", "has given no result"), ("zh", "没有给出任何可读的成对判断")):
        told = lines(replace(made.findings, judging=(mute,)), made, language)
        assert said in told
        assert "0 %" not in told.partition(said)[2].partition("\n")[0]
