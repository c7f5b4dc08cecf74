"""Whatever a file holds, it is read or refused in one sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from app.comparison.formats.files import FORMATS, QuestionFileError, parse_questions
from app.comparison.model_answer import ModelAnswer
from app.comparison.question import Question, prompt
from app.comparison.scores.measures import MEASURES
from app.comparison.scores.score import score
from tests import ROOT

RECORDED = sorted((ROOT / "tests/recorded/questions").iterdir())
MEMBERS = (
    *(
        "question",
        "messages",
        "answer",
        "options",
        "choices",
        "form",
        "category",
        "tags",
        "id",
        "system",
        "A",
        "B",
        "C",
    ),
    *("query", "response", "instruction", "input", "output", "history", "conversations", "correctAnswer"),
    *("questionType", "chosen", "from", "value", "role", "content", "text", "type"),
)
WORDS = (
    "",
    " ",
    "A",
    "AC",
    "true",
    "✅",
    '["A"]',
    "[",
    "user",
    "human",
    "gpt",
    "choice",
    "single_choice",
    "system",
    "\ud800",
)


def value(chance: random.Random, depth: int = 3) -> Any:
    """Anything that JSON can say, most of it out of place."""
    kind = chance.randrange(7 if depth else 4)
    if kind < 2:
        return chance.choice(WORDS)
    if kind < 4:
        return chance.choice((None, True, False, 0, 1, -1.5, float("nan"), "text", "长江"))
    if kind < 6:
        return [value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return members(chance, depth - 1)


def members(chance: random.Random, depth: int = 3) -> dict[str, Any]:
    return {chance.choice(MEMBERS): value(chance, depth) for _ in range(chance.randrange(7))}


def read(name: str, data: bytes, form: str | None = None) -> tuple[Question, ...]:
    """The questions, each of which can be sent, has an id of its own and a category that is a text; none where the file
    is refused.
    """
    try:
        questions = parse_questions(name, data, format=form).questions
    except QuestionFileError as exc:
        return () if "\n" not in str(exc) else pytest.fail(f"more than a sentence: {exc}")
    assert len({question.id for question in questions}) == len(questions)
    for question in questions:
        assert prompt(question)[-1]["role"] == "user"
        assert question.category is None or question.category.strip()
        assert question.form != "choice" or (
            len(question.options) >= 2 and set(question.answer or "") <= set("ABCDEFGH")
        )
        assert question.form != "true_false" or question.answer in (None, "true", "false")
    return questions


SOUND: dict[str, dict[str, Any]] = {
    "easy-dataset": {"question": "q", "questionType": "single_choice", "options": '["x","y"]', "correctAnswer": "A"},
    "general_mcq": {"question": "q", "A": "x", "B": "y", "C": "z", "answer": "B"},
    "general_qa": {"messages": [{"role": "user", "content": "q"}], "response": "x"},
    "alpaca": {"instruction": "q", "input": "r", "output": "x", "history": [["a", "b"]]},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x"}]},
    "questions": {"question": "q", "options": ["x", "y"], "answer": "A", "form": "choice", "tags": ["k"]},
    "messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant"}]},
}


def disturbed(sound: Any, chance: random.Random) -> Any:
    """The same with some of it replaced by anything."""
    if chance.random() < 0.07:
        return value(chance)
    if isinstance(sound, dict):
        return {key: disturbed(inner, chance) for key, inner in sound.items()} | members(chance, 1)
    return [disturbed(inner, chance) for inner in sound] if isinstance(sound, list) else sound


@pytest.mark.parametrize("form", FORMATS)
def test_records_of_any_shape(form: str) -> None:
    chance = random.Random(7)
    counts = [
        len(read("f.json", json.dumps([disturbed(SOUND[form], chance)]).encode(), chance.choice((form, None))))
        for _ in range(1000)
    ]

    assert 0 < sum(counts) < 1000


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_files_that_were_damaged(path: Path) -> None:
    data = path.read_bytes()
    chance = random.Random(5)
    counts = []
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randrange(0, 20)] = chance.randbytes(chance.randrange(0, 3))
        counts.append(len(read(path.name, bytes(damaged))))

    assert 0 in counts
    assert max(counts) > 0


def test_bytes_of_any_kind() -> None:
    chance = random.Random(11)

    for name in ("f.json", "f.csv", "f.txt"):
        assert len([read(name, chance.randbytes(chance.randrange(60))) for _ in range(200)]) == 200


@pytest.mark.parametrize(
    "question",
    [
        Question("1", ({"role": "user", "content": "q"},), "长江 is long"),
        Question("1", ({"role": "user", "content": "q"},), "…"),
        Question("1", ({"role": "user", "content": "q"},), "B", ("Ulm", "…", ""), "choice"),
        Question("1", ({"role": "user", "content": "q"},), "AC", ("长", "长江", "C++"), "choice"),
        Question("1", ({"role": "user", "content": "q"},), "true", (), "true_false"),
    ],
)
def test_answers_of_any_kind_have_figures_within_their_bounds(question: Question) -> None:
    chance = random.Random(13)
    pieces = (
        "长",
        "江",
        "A",
        "B.",
        " ",
        "\n",
        "C++",
        "…",
        "answer is ",
        "答案",
        "：",
        "</think>",
        "<think>",
        "not",
        "true",
        "\x00",
    )

    for _ in range(300):
        text = "".join(chance.choice(pieces) for _ in range(chance.randrange(12)))
        scores = score(question, ModelAnswer("1", "m", text=text))

        for name, figure in scores.items():
            if figure is not None:
                assert 0 <= figure <= (100.0001 if name == "chrf" else 200 if name == "length" else 1)
                assert not MEASURES[name].is_right_or_wrong or figure in (0.0, 1.0)
