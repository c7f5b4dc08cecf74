"""What a real LoRA changed, by the recorded answers of SmolLM2 and of the LoRA on the embedded engine (f16, greedy)."""

from __future__ import annotations

from app.comparison.analysis.analyse import analyse
from app.comparison.analysis.findings import Contrast
from app.comparison.formats.files import read_questions
from app.comparison.model_answer import ModelAnswer
from app.comparison.running.line_file import LineFile
from tests import ROOT

RECORDED = ROOT / "tests/recorded/comparison"


def test_the_taught_category_is_better_and_the_other_is_not_told_apart() -> None:
    questions = read_questions(RECORDED / "taught_and_either_or.jsonl").questions
    answers = LineFile(RECORDED / "taught_and_either_or_answers.jsonl", ModelAnswer).read()

    findings = analyse(questions, answers, models=("base", "tuned"), primary="contains")

    assert (len(questions), len(answers)) == (50, 200)
    rows: dict[str | None, Contrast] = {each.category: each for each in findings.categories}
    taught, other = rows["taught"], rows["either or"]
    assert (taught.first_mean, taught.mean, taught.outcome) == (0.0, 0.96, "better")
    assert taught.low is not None
    assert taught.low > 0.8
    assert (other.first_mean, other.mean, other.outcome, other.ground) == (0.68, 0.56, "no_difference", "interval")
    assert other.low is not None
    assert other.high is not None
    assert other.low < 0 < other.high
    floors = {each.model: each.floor for each in findings.noise if each.measure == "contains"}
    assert floors == {"base": 0.0, "tuned": 0.0}
