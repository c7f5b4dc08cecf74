"""What models are sent for a question."""

from __future__ import annotations

import pytest

from app.comparison.question import Question, is_chinese, prompt, reference_text


def asked(text: str, **rest: object) -> Question:
    return Question("1", ({"role": "user", "content": text},), **rest)  # type: ignore[arg-type]


def test_an_open_question_is_sent_as_it_is() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a port?"})

    assert prompt(Question("1", messages)) == list(messages)


def test_a_choice_is_sent_with_its_options_and_how_to_answer() -> None:
    sent = prompt(asked("Which is a river?", form="choice", options=("Ulm", "Danube"), answer="B"))

    assert sent[-1]["content"] == (
        "Which is a river?\n\nA. Ulm\nB. Danube\n\nAnswer with the letter of the right option only."
    )


def test_a_choice_with_several_right_options_says_so() -> None:
    sent = prompt(asked("哪些是河流？", form="choice", options=("长江", "黄河", "泰山"), answer="AB"))

    assert sent[-1]["content"] == (
        "哪些是河流？\n\nA. 长江\nB. 黄河\nC. 泰山\n\n可能有多个正确选项。只回答所有正确选项的字母。"
    )


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("The Danube is a river.", 'Is this true or false? Answer "true" or "false" only.'),
        ("长江是河流。", "判断对错。只回答“正确”或“错误”。"),
    ],
)
def test_a_statement_is_sent_with_how_to_judge_it(text: str, how: str) -> None:
    assert prompt(asked(text, form="true_false"))[-1]["content"] == f"{text}\n\n{how}"


def test_a_question_with_an_image_keeps_it() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    question = Question(
        "1", ({"role": "user", "content": [{"type": "text", "text": "Is it red?"}, image]},), form="true_false"
    )

    sent = prompt(question)

    assert sent[-1]["content"][:2] == [{"type": "text", "text": "Is it red?"}, image]
    assert sent[-1]["content"][2]["text"].startswith("Is this true or false?")
    assert len(question.messages[0]["content"]) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is a port?", False),
        ("什么是端口？", True),
        ("TCP 端口是什么？", True),
        ("What does the word 端口 mean in a network?", False),
        ("𠮷野家はどこ", True),
        ("", False),
        ("123", False),
    ],
)
def test_chinese_is_told_by_its_characters(text: str, expected: bool) -> None:
    assert is_chinese(text) is expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (asked("长江是河流。", form="true_false", answer="true"), "正确"),
        (asked("长江是山。", form="true_false", answer="false"), "错误"),
        (asked("The Danube is a river.", form="true_false", answer="true"), "true"),
        (asked("q", form="choice", options=("x", "y"), answer="B"), "B"),
        (asked("q", answer="text"), "text"),
        (asked("长江是河流。", form="true_false"), None),
    ],
)
def test_the_reference_answer_is_worded_as_the_model_is_told_to(question: Question, expected: str | None) -> None:
    assert reference_text(question) == expected
