"""A report, from questions, answers and findings."""

from __future__ import annotations

from dataclasses import replace

from app.comparison.analysis.analyse import analyse
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.report.build import build
from app.comparison.report.contents import ComparisonReport
from app.comparison.report.stored import as_json, from_json
from tests.unit.comparison.analysis.made import answers, questions
from tests.unit.comparison.report.samples import report


def built(asked: list[Question], given: list[ModelAnswer]) -> ComparisonReport:
    findings = analyse(asked, given, models=("base", "tuned"), primary="contains")
    return build(report().run, findings, asked, given)


def test_a_report_has_the_questions_that_changed_with_both_answers() -> None:
    asked = questions(20)
    given = [*answers(asked, "base", [False] * 20), *answers(asked, "tuned", [number == 3 for number in range(20)])]

    made = built(asked, given)

    assert [question.id for question in made.questions] == ["q3"]
    assert made.questions[0].prompt == "What is number 3?"
    assert [(each.model, each.text) for each in made.questions[0].answers] == [
        ("base", "Nobody knows."),
        ("tuned", "It is Pellingford."),
    ]
    assert made.questions[0].answers[1].scores["contains"] == 1.0
    assert from_json(as_json(made).encode()) == made


def test_its_measures_are_explained_the_primary_one_first() -> None:
    asked = questions(6)

    made = built(asked, [*answers(asked, "base", [True] * 6), *answers(asked, "tuned", [True] * 6)])

    assert made.measures[0].name == "contains"
    assert {each.name for each in made.measures} >= {"contains", "length", "seconds"}
    assert all(each.text and each.chinese for each in made.measures)


def test_a_system_prompt_is_shown_with_who_says_what() -> None:
    asked = questions(8)
    first = asked[0]
    asked[0] = replace(first, messages=({"role": "system", "content": "Be brief."}, *first.messages))
    given = [*answers(asked, "base", [False] * 8), *answers(asked, "tuned", [number == 0 for number in range(8)])]

    assert built(asked, given).questions[0].prompt == "system: Be brief.\n\nuser: What is number 0?"
