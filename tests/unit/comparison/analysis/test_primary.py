"""Which measure decides where nobody has said so."""

from __future__ import annotations

import pytest

from app.comparison.analysis.primary import default_primary
from app.comparison.question import Question

ASK = ({"role": "user", "content": "?"},)
LONG = "It keeps the light burning all night, so that ships that come from the west do not run aground."

CASES = {
    "closed questions": ([Question("1", ASK, "B", ("x", "y"), "choice"), Question("2", ASK, "true")], "choice"),
    "short references": (
        [Question("1", ASK, "Pellingford"), Question("2", ASK, LONG), Question("3", ASK, "12")],
        "contains",
    ),
    "short Chinese references": ([Question("1", ASK, "北京是中国的首都")], "contains"),
    "long references": ([Question("1", ASK, LONG), Question("2", ASK, "12"), Question("3", ASK, LONG)], "chrf"),
    "long Chinese references": ([Question("1", ASK, "它整夜亮着灯，使从西边来的船只不会在礁石上搁浅。" * 2)], "chrf"),
    "no references": ([Question("1", ASK)], "length"),
    "no questions": ([], "length"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_measure_fits_most_of_the_questions(case: str) -> None:
    questions, measure = CASES[case]

    assert default_primary(questions) == measure
