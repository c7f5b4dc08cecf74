"""What is still to be asked, and of whom first."""

from __future__ import annotations

from app.comparison.model_answer import ModelAnswer
from app.comparison.running.asks import Ask, chat_body, limited, remaining, seed_of
from app.comparison.running.run_record import DrawnWith
from tests.unit.comparison.running.runs import questions

TWO = questions(2)
MODELS = ("base", "tuned")


def names(asks: list[Ask]) -> list[str]:
    return [f"{each.question.id} {each.model} {each.repeat}" for each in asks]


def test_each_question_goes_to_all_models_and_repeats_come_last() -> None:
    assert names(remaining(TWO, MODELS, 1, [])) == [
        *("q0 base 0", "q0 tuned 0", "q1 base 0", "q1 tuned 0"),
        *("q0 base 1", "q0 tuned 1", "q1 base 1", "q1 tuned 1"),
    ]


def test_models_that_do_not_fit_together_are_asked_one_after_the_other() -> None:
    asks = remaining(TWO, MODELS, 1, [], one_by_one=True)

    assert [each.model for each in asks] == ["base"] * 4 + ["tuned"] * 4


def test_nothing_is_asked_twice_but_what_failed() -> None:
    known = [
        ModelAnswer("q0", "base", error="broke off"),
        ModelAnswer("q0", "base", text="1"),
        ModelAnswer("q1", "base", error="broke off"),
        ModelAnswer("q0", "tuned", text=""),
    ]

    assert names(remaining(TWO, MODELS, 0, known)) == ["q1 base 0", "q1 tuned 0"]


def test_all_that_an_answer_is_drawn_with_is_said() -> None:
    drawn = DrawnWith(temperature=0.7, max_tokens=9, seed=3)

    assert chat_body(Ask(TWO[0], "base", 2), drawn) == {
        "model": "base",
        "messages": [{"role": "user", "content": "What is 0 + 1?"}],
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 9,
        "seed": seed_of(3, TWO[0].id, 2),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_k": 0,
        "min_p": 0,
        "repetition_penalty": 1,
        "repeat_penalty": 1,
    }
    assert "top_k" not in chat_body(Ask(TWO[0], "base", 2), drawn, only_openai=True)


def test_each_question_and_repeat_has_a_seed_of_its_own_and_all_models_have_the_same() -> None:
    asked = [Ask(question, model, repeat) for question in questions(50) for model in MODELS for repeat in range(3)]

    seeds = {(ask.question.id, ask.repeat, chat_body(ask, DrawnWith(seed=3))["seed"]) for ask in asked}

    assert len(seeds) == len({seed for _, _, seed in seeds}) == 150
    assert all(0 <= seed < 2**31 for _, _, seed in seeds)
    assert seed_of(3, "q1", 0) == seed_of(3, "q1", 0) != seed_of(4, "q1", 0)


def test_a_limit_draws_evenly_and_keeps_the_order() -> None:
    asked = [*questions(20, "large"), *[each for each in questions(30, "small") if int(each.id[1:]) >= 25]]

    few = limited(asked, 6, seed=1)

    assert [each.category for each in few] == ["large"] * 3 + ["small"] * 3
    assert few == [each for each in asked if each in few] == limited(asked, 6, seed=1)
    assert limited(asked, None, 0) == limited(asked, 99, 0) == asked
