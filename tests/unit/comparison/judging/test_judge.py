"""What a judge is asked, how its words are read, and what its judgements are worth."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.comparison.analysis.findings import Judging
from app.comparison.judging.agreement import judged
from app.comparison.judging.judge import Judgement, Said, judge_body, matters, read_verdict
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question

MODELS = ("base", "tuned")
QUESTIONS = [Question(f"q{at}", ({"role": "user", "content": "Why?"},), "Because.") for at in range(40)]
ANSWERS = {
    (each.id, model, 0): ModelAnswer(each.id, model, text=f"{model} says") for each in QUESTIONS for model in MODELS
}

Judge = Callable[[str, str], Said | None]


def opinion(judge: Judge) -> Judging:
    said = [
        Judgement(each.question.id, each.first.model, each.second.model, judge(each.first.model, each.second.model))
        for each in matters(QUESTIONS, MODELS, ANSWERS, [])
    ]
    return judged("judge", MODELS, said)[0]


def test_each_pair_is_shown_in_both_orders_and_asked_for_once() -> None:
    asked = matters(QUESTIONS[:1], MODELS, ANSWERS, [])
    known = [Judgement("q0", "base", "tuned", "tie"), Judgement("q0", "tuned", "base", None, error="broke off")]

    assert [(each.first.model, each.second.model) for each in asked] == [("base", "tuned"), ("tuned", "base")]
    assert matters(QUESTIONS[:1], MODELS, ANSWERS, known) == asked[1:]


def test_failed_answers_are_not_judged() -> None:
    broken = {**ANSWERS, ("q0", "base", 0): ModelAnswer("q0", "base", error="broke off")}

    assert matters(QUESTIONS[:1], MODELS, broken, []) == []


def test_the_judge_sees_question_reference_and_both_answers_without_names() -> None:
    matter = matters(
        QUESTIONS[:1],
        ("m1", "m2"),
        {
            (q, m.replace("base", "m1").replace("tuned", "m2"), 0): ModelAnswer(
                q, m.replace("base", "m1").replace("tuned", "m2"), text="yes" if m == "base" else "no"
            )
            for q, m, _ in ANSWERS
        },
        [],
    )[0]

    body = judge_body("judge", matter, 7)

    assert body["messages"][1]["content"] == (
        "# Question\n\nWhy?\n\n# Reference answer\n\nBecause.\n\n# First answer\n\nyes\n\n# Second answer\n\nno"
    )
    assert (body["model"], body["temperature"], body["seed"]) == ("judge", 0, 7)
    assert "m1" not in str(body["messages"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Verdict: first", "first"),
        ("The second is longer, the first is right.\n**Verdict:** First.", "first"),
        ("verdict - TIE", "tie"),
        ("I think the first is worse. Second", "second"),
        ("Verdict: first\nNo, wait.\nVerdict: second", "second"),
        ("Both are secondary.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read(text: str, said: str | None) -> None:
    assert read_verdict(text) == said


def test_a_judge_that_goes_by_the_answers_is_a_result() -> None:
    preferred = opinion(lambda first, second: "first" if first == "tuned" else "second")

    assert preferred.is_useful
    assert (preferred.outcome, preferred.wins, preferred.agreement) == ("better", 40, 1.0)
    assert preferred.first_share == 0.5


@pytest.mark.parametrize("place", ["first", "second"])
def test_a_judge_that_always_names_the_same_place_is_useless(place: Said) -> None:
    useless = opinion(lambda first, second: place)

    assert not useless.is_useful
    assert (useless.outcome, useless.wins, useless.ties, useless.losses) == ("too_few", 0, 40, 0)
    assert useless.agreement == 0.0
    assert useless.first_share == (1.0 if place == "first" else 0.0)


def test_a_judge_that_tosses_a_coin_is_useless_in_nineteen_of_twenty_cases() -> None:
    chance = random.Random(1)
    coins: list[Said] = ["first", "second"]

    useful = sum(opinion(lambda first, second: chance.choice(coins)).is_useful for _ in range(100))

    assert useful <= 5


def test_a_judge_that_never_decides_is_useless() -> None:
    useless = opinion(lambda first, second: "tie")

    assert not useless.is_useful
    assert (useless.agreement, useless.first_share) == (1.0, None)


def test_what_cannot_be_read_is_counted_apart() -> None:
    silent = opinion(lambda first, second: None)

    assert (silent.pairs, silent.errors, silent.is_useful) == (0, 40, False)
