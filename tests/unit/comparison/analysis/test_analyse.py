"""From answers to findings: what is a verdict, and what is none."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from app.comparison.analysis.analyse import analyse
from app.comparison.analysis.contrasts import Rivals, contrast, judged
from app.comparison.analysis.findings import Contrast, Findings
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.measures import MEASURES
from tests.unit.comparison.analysis.made import answers, drawn, questions

MODELS = ("base", "tuned")


def found_in(asked: list[Question], given: list[ModelAnswer], models: tuple[str, ...] = MODELS) -> Findings:
    return analyse(asked, given, models=models, primary="contains")


def only(contrasts: tuple[Contrast, ...]) -> Contrast:
    assert len(contrasts) == 1
    return contrasts[0]


def test_a_clear_gain_is_a_verdict() -> None:
    asked = questions(40)
    right = [number % 2 == 0 for number in range(40)]
    given = [
        *answers(asked, "base", right),
        *answers(asked, "base", right, repeat=1),
        *answers(asked, "tuned", [True] * 40),
        *answers(asked, "tuned", [True] * 40, repeat=1),
    ]

    overall = only(found_in(asked, given).overall)

    assert (overall.outcome, overall.ground) == ("better", "shown")
    assert (overall.first_mean, overall.mean, overall.difference) == (0.5, 1.0, 0.5)
    assert (overall.wins, overall.ties, overall.losses) == (20, 20, 0)
    assert overall.test == "mcnemar"
    assert overall.p == pytest.approx(2 / 2**20)
    assert overall.noise_floor == 0.0
    assert overall.low is not None
    assert overall.high is not None
    assert 0.3 < overall.low < 0.5 < overall.high < 0.7


def test_a_difference_inside_the_noise_floor_is_no_change() -> None:
    """Both differ from themselves on every other question: what looks like a gain may as well be chance."""
    asked = questions(40)
    base = [number % 2 == 0 for number in range(40)]
    given = [
        *answers(asked, "base", base),
        *answers(asked, "base", [not each for each in base], repeat=1),
        *answers(asked, "tuned", [each or number % 5 in (1, 3) for number, each in enumerate(base)]),
    ]

    overall = only(found_in(asked, given).overall)

    assert overall.low is not None
    assert overall.low > 0
    assert (overall.outcome, overall.ground) == ("no_difference", "noise")
    assert overall.noise_floor == pytest.approx(1.96 * (1 / 40) ** 0.5)
    assert overall.detectable == overall.noise_floor


def test_without_repeats_there_is_no_noise_floor_and_still_a_verdict() -> None:
    asked = questions(20)

    findings = found_in(asked, [*answers(asked, "base", [False] * 20), *answers(asked, "tuned", [True] * 20)])

    assert findings.noise == ()
    assert only(findings.overall).noise_floor is None
    assert only(findings.overall).outcome == "better"


def test_four_gains_and_no_loss_are_no_verdict_although_the_interval_excludes_0() -> None:
    """By chance, all four would favour one of the models in one of eight runs."""
    asked = questions(20)
    given = [*answers(asked, "base", [False] * 20), *answers(asked, "tuned", [number < 4 for number in range(20)])]

    overall = only(found_in(asked, given).overall)

    assert overall.low is not None
    assert overall.low > 0
    assert (overall.outcome, overall.ground, overall.p) == ("no_difference", "p_value", 0.125)
    assert overall.detectable == pytest.approx(0.367, abs=0.01)


def test_a_few_questions_are_too_few() -> None:
    asked = questions(5)

    overall = only(
        found_in(asked, [*answers(asked, "base", [False] * 5), *answers(asked, "tuned", [True] * 5)]).overall
    )

    assert (overall.outcome, overall.ground, overall.p) == ("too_few", "too_few", None)
    assert overall.difference == 1.0


def test_an_error_is_counted_apart_and_is_no_wrong_answer() -> None:
    asked = questions(12)
    given = [*answers(asked, "base", [True] * 12), *answers(asked, "tuned", [True] * 12)]
    given[15] = replace(given[15], text="", error="the engine disconnected")
    given[16] = replace(given[16], text="", error="the engine disconnected")

    findings = found_in(asked, given)

    base, tuned = findings.models
    assert (base.asked, base.errors, tuned.asked, tuned.errors) == (12, 0, 12, 2)
    assert tuned.error_texts == (("the engine disconnected", 2),)
    assert tuned.averages["contains"].mean == 1.0
    assert only(findings.overall).questions == 10
    assert only(findings.overall).difference == 0.0


def test_each_category_has_its_row_and_p_values_are_corrected_for_all_of_them() -> None:
    asked = questions(60, ("facts", "sums", None))
    given = [
        *answers(asked, "base", [False] * 60),
        *answers(asked, "tuned", [number % 3 == 0 and number < 24 for number in range(60)]),
    ]

    findings = found_in(asked, given)

    facts, sums, rest = findings.categories
    assert [each.category for each in findings.categories] == ["facts", "sums", ""]
    assert facts.p == pytest.approx(2 / 2**8)
    assert facts.p_adjusted == pytest.approx(3 * 2 / 2**8)
    assert facts.outcome == "better"
    assert (sums.outcome, rest.outcome) == ("no_difference", "no_difference")
    alone = only(found_in(asked[1::3], given).overall)
    assert (alone.questions, alone.difference) == (sums.questions, sums.difference)
    assert sums.detectable is not None
    assert alone.detectable is not None
    assert sums.detectable > alone.detectable  # one of three tests has to show more


def test_one_category_is_no_table() -> None:
    asked = questions(12, ("facts",))

    assert found_in(asked, answers(asked, "base", [True] * 12)).categories == ()


def test_more_models_are_each_held_against_the_first() -> None:
    asked = questions(30)
    chance = random.Random(4)
    given = [
        *answers(asked, "base", drawn(chance, [0.5] * 30)),
        *answers(asked, "one", drawn(chance, [0.5] * 30)),
        *answers(asked, "two", [True] * 30),
    ]

    one, two = found_in(asked, given, ("base", "one", "two")).overall

    assert [(each.model, each.against) for each in (one, two)] == [("one", "base"), ("two", "base")]
    assert one.p is not None
    assert two.p is not None
    assert two.p_adjusted == pytest.approx(2 * two.p)
    assert one.outcome == "no_difference"
    assert two.outcome == "better"


def test_the_largest_changes_take_turns_of_gains_and_losses() -> None:
    asked = questions(30)
    given = [
        *answers(asked, "base", [number >= 20 for number in range(30)]),
        *answers(asked, "tuned", [number < 20 for number in range(30)]),
    ]

    changes = found_in(asked, given).changes

    assert len(changes) == 10
    assert [change.score - change.first_score for change in changes] == [1.0, -1.0] * 5


def test_of_a_measure_without_a_better_direction_a_difference_is_a_change() -> None:
    asked = questions(20)
    given = [
        *(ModelAnswer(each.id, "base", text="Yes.") for each in asked),
        *(ModelAnswer(each.id, "tuned", text="Yes, certainly, and more.") for each in asked),
    ]

    findings = analyse(asked, given, models=MODELS, primary="length")

    overall = only(findings.overall)
    assert (overall.outcome, overall.test, overall.wins) == ("changed", "sign_flip", 20)
    assert overall.detectable is None  # all differences are the same: nothing is known of their spread


def test_of_a_measure_where_less_is_better_less_wins() -> None:
    base, tuned = ({f"q{number}": value for number in range(8)} for value in (0.9, 0.1))

    row = only(judged([contrast(Rivals("base", "tuned", base, tuned, ()), MEASURES["repetition"])], MEASURES))

    assert row.difference == pytest.approx(-0.8)
    assert (row.outcome, row.wins, row.losses) == ("better", 8, 0)


def test_a_run_that_has_no_answers_yet_has_findings_without_figures() -> None:
    findings = found_in(questions(3), [])

    overall = only(findings.overall)
    assert (overall.questions, overall.difference, overall.outcome) == (0, None, "too_few")
    assert [model.asked for model in findings.models] == [0, 0]


def test_the_same_answers_and_seed_give_the_same_findings() -> None:
    asked = questions(30)
    chance = random.Random(4)
    given = [*answers(asked, "base", drawn(chance, [0.4] * 30)), *answers(asked, "tuned", drawn(chance, [0.5] * 30))]

    assert found_in(asked, given) == found_in(asked, list(reversed(given)))


@pytest.mark.parametrize(
    ("models", "primary", "said"),
    [
        (("base",), "contains", "two different models at least"),
        (("base", "base"), "contains", "two different models at least"),
        (MODELS, "beauty", "'beauty' is no measure"),
    ],
)
def test_what_cannot_be_analysed_is_said(models: tuple[str, ...], primary: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        analyse(questions(3), [], models=models, primary=primary)
