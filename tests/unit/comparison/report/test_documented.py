"""docs/compare.md names each member of report.json."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from app.comparison.analysis import findings
from app.comparison.report import contents

PAGE = (Path(__file__).parents[4] / "docs" / "compare.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("### report.json")[2].partition("\n## ")[0]
VALUES = [
    *(findings.Average, findings.NoiseFloor, findings.Contrast, findings.ModelFindings, findings.AnswerChange),
    *(findings.Judging, findings.Findings, contents.ComparedModel, contents.ControlLine, contents.RunFacts),
    *(contents.ShownMeasure, contents.ShownAnswer, contents.ShownQuestion, contents.ComparisonReport),
]


def written(name: str) -> bool:
    return re.search(rf"`{name}`", SECTION) is not None


@pytest.mark.parametrize("value", VALUES)
def test_each_member_is_told(value: type) -> None:
    assert [field.name for field in fields(value) if not written(field.name)] == []


@pytest.mark.parametrize("word", [*get_args(findings.Outcome), *get_args(findings.Ground)])
def test_each_word_of_a_verdict_is_told(word: str) -> None:
    assert written(word)
