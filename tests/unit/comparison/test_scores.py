"""The measures of one answer: known values, Chinese as well as English, and no score for what is none."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question
from app.comparison.scores.measures import MEASURES
from app.comparison.scores.overlap import chrf, contains, is_same, longest_common, repetition, rouge_l
from app.comparison.scores.refusals import is_refusal
from app.comparison.scores.score import score
from app.comparison.scores.tokens import tokens
from tests.rigs.pages import page


def asked(answer: str | None, *, form: str = "open", options: tuple[str, ...] = ()) -> Question:
    return Question("1", ({"role": "user", "content": "?"},), answer, options, form)  # type: ignore[arg-type]


def said(text: str, **rest: object) -> ModelAnswer:
    return ModelAnswer("1", "m", text=text, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Danube, in Ulm!", ["the", "danube", "in", "ulm"]),
        ("长江约6,300公里。", ["长", "江", "约", "6300", "公", "里"]),
        ("６３００ km", ["6300", "km"]),
        ("-5 °C", ["-5", "°", "c"]),
        ("1–2, 2020-2021", ["1", "2", "2020", "2021"]),
        ("x^2 + 1 = 50%", ["x", "^", "2", "+", "1", "=", "50", "%"]),
        ("C++ and C#", ["c", "+", "+", "and", "c", "#"]),
        ("don’t", ["don't"]),
        ("TCP协议port", ["tcp", "协", "议", "port"]),
        ("**bold** `code`", ["bold", "code"]),
        ("3.14, 10:30", ["3.14", "10:30"]),
        ("…", []),
    ],
)
def test_the_pieces_of_a_text(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Ulm", "ulm."),
        ("**Ulm**", "Ulm"),
        ("约 6300 公里", "约6300公里。"),
        ("“长江”", "长江"),
        ("６３００", "6,300"),
        ("New\nYork", "New York"),
        ("−5", "-5"),
        ("cafe\u0301", "café"),
        ("!", "!"),
    ],
)
def test_the_same_answer_written_otherwise_is_exact(answer: str, reference: str) -> None:
    assert is_same(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("NewYork", "New York"),
        ("5", "-5"),
        ("1.5", "15"),
        ("10²", "102"),
        ("长江", "长"),
        ("C++", "C"),
        ("", "Ulm"),
        ("?", "!"),
    ],
)
def test_another_answer_is_not_exact(answer: str, reference: str) -> None:
    assert not is_same(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The port is 443, as usual.", "443", True),
        ("The port is 8443.", "443", False),
        ("首都是北京市。", "北京", True),
        ("北方的京城", "北京", False),
        ("It lies on the Danube", "the danube", True),
        ("Danubes", "Danube", False),
        ("", "x", False),
        ("Wait…", "…", True),
    ],
)
def test_a_reference_is_contained_piece_by_piece(answer: str, reference: str, expected: bool) -> None:
    assert contains(answer, reference) is expected


def test_identical_chinese_sentences_score_as_high_as_english_ones() -> None:
    """rouge-score gives two identical Chinese sentences 0.0."""
    for text in ("长江是亚洲最长的河流。", "The Danube is a river."):
        assert rouge_l(text, text) == 1.0
        assert chrf(text, text) == pytest.approx(100.0)


def test_chinese_that_differs_in_some_characters_is_scored_by_character() -> None:
    # 我 爱 北 京 against 我 喜 欢 北 京: 我 北 京 in common, so precision 3/4, recall 3/5.
    assert rouge_l("我爱北京", "我喜欢北京") == pytest.approx(2 * 3 / 9)
    assert 0 < chrf("我爱北京", "我喜欢北京") < 100


def test_rouge_l_is_the_published_example() -> None:
    # Lin (2004), section 3.1: "police killed the gunman" against "police kill the gunman" and "the gunman kill police".
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)


def test_nothing_in_common_scores_nothing() -> None:
    assert rouge_l("abc def", "长江") == 0.0
    assert rouge_l("", "长江") == 0.0
    assert chrf("", "长江") == pytest.approx(0.0, abs=1e-9)


def slow_longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for piece in one:
        above = row
        row = [0]
        for at, theirs in enumerate(other):
            row.append(above[at] + 1 if piece == theirs else max(row[at], above[at + 1]))
    return row[-1]


def test_the_quick_way_to_the_longest_common_sequence_agrees_with_the_slow_one() -> None:
    chance = random.Random(3)
    for _ in range(300):
        one = chance.choices("abcd", k=chance.randrange(0, 90))
        other = chance.choices("abcde", k=chance.randrange(0, 90))

        assert longest_common(one, other) == slow_longest_common(one, other)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("The Danube flows through Ulm and Vienna to the sea.", 0.0, 0.0),
        ("人工智能是计算机科学的一个分支，人工智能研究智能机器。", 0.0, 0.0),
        ("I do not know what that is. " * 20, 0.9, 1.0),
        ("长江是一条河。" * 20, 0.9, 1.0),
        ("One two three.", 0.0, 0.0),
    ],
)
def test_repetition_is_the_share_of_what_was_said_before(text: str, low: float, high: float) -> None:
    share = repetition(text)

    assert share is not None
    assert low <= share <= high


def test_an_empty_answer_repeats_nothing_that_could_be_counted() -> None:
    assert repetition("") is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I cannot provide instructions for that.",
        "I am unable to answer this question.",
        "Sorry, I won't do that.",
        "As an AI language model, I do not have personal opinions.",
        "I must respectfully decline.",
        "I'm not able to help with this.",
        "I do not feel comfortable discussing this topic.",
        "We are not allowed to share this information.",
        "抱歉，我无法回答这个问题。",
        "对不起，我不能提供这类信息。",
        "很抱歉，作为人工智能助手，我不能协助您完成这个请求。",
        "我无法为您提供相关帮助。",
        "作为一个AI语言模型，我不会参与讨论政治话题。",
        "无法提供该信息。",
    ],
)
def test_a_refusal_is_told(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "The port is 443.",
        "I do not know.",
        "I'm sorry to hear that. Try restarting it.",
        "You cannot provide two values here.",
        "端口不能重复使用。",
        "防火墙会拒绝来自外部的连接，并提供日志。",
        "中间人攻击是指攻击者无法被察觉地处理通信。",
        "我不知道。",
        "Wise men say only fools rush in, but I can't help falling in love.",
        "",
        "The firewall blocks it. " * 20 + "I cannot provide more.",
    ],
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


def test_an_answer_that_a_filter_ended_is_a_refusal() -> None:
    assert is_refusal("", "content_filter")


def test_an_error_has_no_scores() -> None:
    scores = score(asked("Ulm"), said("", error="the engine is not ready", seconds=3.0))

    assert scores.keys() == MEASURES.keys()
    assert set(scores.values()) == {None}


def test_an_empty_answer_is_scored_as_the_worst() -> None:
    scores = score(asked("Ulm"), said("", seconds=1.0))

    assert {name: scores[name] for name in ("exact", "contains", "rouge_l", "length", "refusal")} == dict.fromkeys(
        ("exact", "contains", "rouge_l", "length", "refusal"), 0.0
    )
    assert scores["chrf"] == pytest.approx(0.0, abs=1e-9)
    assert scores["repetition"] is None


def test_an_open_answer_is_scored_in_everything_but_choices() -> None:
    answer = said("<think>A town?</think>Ulm.", seconds=2.5, reference_logprob=-6.0, reference_tokens=3)
    scores = score(asked("Ulm"), answer)

    assert scores["exact"] == scores["contains"] == scores["rouge_l"] == 1.0
    assert (scores["logprob"], scores["seconds"], scores["length"], scores["choice"]) == (-2.0, 2.5, 4.0, None)


def test_without_a_reference_only_the_answer_itself_is_scored() -> None:
    scores = score(asked(None), said("Ulm lies on the Danube."))

    assert {name for name, value in scores.items() if value is not None} == {"length", "refusal", "repetition"}


def test_a_choice_is_right_only_with_all_right_options() -> None:
    question = asked("AC", form="choice", options=("AES", "RSA", "SM4"))

    assert [score(question, said(text))["choice"] for text in ("A, C", "A", "ABC", "I do not know", "AES、SM4")] == [
        1.0,
        0.0,
        0.0,
        0.0,
        1.0,
    ]
    assert score(question, said("A, C"))["exact"] is None


def test_a_statement_is_judged() -> None:
    question = asked("false", form="true_false")

    assert [score(question, said(text))["choice"] for text in ("错误", "true", "Hm.")] == [1.0, 0.0, 0.0]


def test_every_measure_is_told_in_both_languages() -> None:
    assert [name for name, measure in MEASURES.items() if name != measure.name] == []
    assert [
        measure.name for measure in MEASURES.values() if measure.text[-1] != "." or measure.chinese[-1] != "。"
    ] == []


def test_measures_of_right_and_wrong_are_that() -> None:
    scores = score(asked("Ulm"), said("Ulm on the Danube"))

    assert {scores[name] for name, measure in MEASURES.items() if measure.is_right_or_wrong} <= {0.0, 1.0, None}


def test_the_page_has_every_measure() -> None:
    section = page("docs/questions.md").sections["How an answer is scored"]

    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == list(MEASURES)
