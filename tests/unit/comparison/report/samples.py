"""A small report of two models, as a run leaves it."""

from __future__ import annotations

from app.comparison.analysis.findings import AnswerChange, Average, Contrast, Findings, ModelFindings, NoiseFloor
from app.comparison.report.contents import (
    ComparedModel,
    ComparisonReport,
    ControlLine,
    RunFacts,
    ShownAnswer,
    ShownMeasure,
    ShownQuestion,
)

OVERALL = Contrast(
    model="tuned",
    against="base",
    measure="contains",
    category=None,
    questions=50,
    first_mean=0.5,
    mean=0.7,
    difference=0.2,
    low=0.08,
    high=0.32,
    test="mcnemar",
    p=0.006,
    p_adjusted=0.006,
    wins=11,
    ties=38,
    losses=1,
    detectable=0.16,
    noise_floor=0.04,
    outcome="better",
    ground="shown",
    is_primary=True,
)


def report(answer: str = "In Pellingford.", other: str = "I do not know.") -> ComparisonReport:
    """The report; the two answers are what the models said to its one shown question."""
    averages = {"contains": Average(0.5, 0.36, 0.64, 50)}
    return ComparisonReport(
        run=RunFacts(
            id="2026-11-27-a",
            date="2026-11-27T12:00:00Z",
            models=(ComparedModel("base", "sha256:1", "vllm 0.32.0"), ComparedModel("tuned")),
            questions_file="questions.jsonl",
            questions_format="jsonl",
            questions=50,
            repeats=1,
            sampling={"temperature": 0.0, "max_tokens": 64},
            seed=0,
            controls=(ControlLine("sampling", "same", "temperature 0 was sent to both"),),
        ),
        findings=Findings(
            primary="contains",
            measures=("contains",),
            models=(ModelFindings("base", 50, 0, (), averages), ModelFindings("tuned", 50, 1, (("timeout", 1),), {})),
            noise=(NoiseFloor("base", "contains", 50, 0.0, -0.03, 0.03, 0.04, 2),),
            overall=(OVERALL,),
            categories=(),
            secondary=(),
            changes=(AnswerChange("q1", "tuned", "base", "contains", 0.0, 1.0),),
            judging=(),
        ),
        measures=(ShownMeasure("contains", "", True, "the answer contains the reference answer"),),
        questions=(
            ShownQuestion(
                "q1",
                "facts",
                "What is the capital of Ostravia?",
                "Pellingford",
                (ShownAnswer("base", other), ShownAnswer("tuned", answer, scores={"contains": 1.0})),
            ),
        ),
        headline={"en": ("tuned is better than base.",), "zh": ("tuned 优于 base。",)},
    )
