"""Files of questions: as other programs really write them, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from app.comparison.formats.files import FORMATS, QuestionFile, QuestionFileError, parse_questions, read_questions
from app.comparison.question import Question
from tests import ROOT
from tests.rigs.pages import page

RECORDED = ROOT / "tests/recorded/questions"  # Easy Dataset's own functions wrote these


def parsed(text: str, name: str = "f.jsonl", **rest: Any) -> QuestionFile:
    return parse_questions(name, text.encode(), **rest)


def lines(*records: Any) -> str:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


def only(text: str, name: str = "f.jsonl", **rest: Any) -> Question:
    (question,) = parsed(text, name, **rest).questions
    return question


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("name", ["easy_dataset.json", "easy_dataset.jsonl", "easy_dataset.csv"])
def test_easy_datasets_export_is_read_with_its_quirks(name: str) -> None:
    file = read_questions(RECORDED / name)

    assert (file.name, file.format, file.skipped) == (name, "easy-dataset", 0)
    assert file.questions == (
        Question("1", (user("长江是亚洲最长的河流。"),), "true", (), "true_false", "地理"),
        Question("2", (user("Port 22 is for HTTP, and 80 for SSH."),), "false", (), "true_false", "network"),
        Question("3", (user("下列哪个是传输层协议？"),), "B", ("IP", "TCP", "HTTP", "ARP"), "choice", "网络"),
        Question(
            "4",
            (user('Which one says "hello"?'),),
            "A",
            ("ClientHello, first", "Finished", "Alert"),
            "choice",
            "network",
        ),
        Question("5", (user("下列哪些是对称加密算法？"),), "AC", ("AES", "RSA", "SM4", "ECC"), "choice", "密码"),
        Question("6", (user("What port does HTTPS use?"),), "443"),
        Question(
            "7",
            (user("解释什么是中间人攻击，\n并举例说明。"),),
            "攻击者位于通信双方之间，\n例如“伪造证书”。".replace("“", '"').replace("”", '"'),
        ),
    )


def test_a_file_that_is_to_be_imported_into_easy_dataset_has_no_types() -> None:
    text = json.dumps(
        [
            {"question": "a", "correctAnswer": "❌"},
            {"question": "b", "options": ["x", "y"], "correctAnswer": "B"},
            {"question": "c", "options": "x;y;z", "correctAnswer": "A,C"},
            {"question": "d", "options": "['x', 'y']", "correctAnswer": "y"},
            {"question": "e", "correctAnswer": "text"},
        ]
    )

    assert [(one.form, one.options, one.answer) for one in parsed(text).questions] == [
        ("true_false", (), "false"),
        ("choice", ("x", "y"), "B"),
        ("choice", ("x", "y", "z"), "AC"),
        ("choice", ("x", "y"), "B"),
        ("open", (), "text"),
    ]


def test_evalscopes_questions_are_read() -> None:
    file = parsed(
        lines(
            {"system": "你是一位天文学家", "query": "太阳系中最大的行星是哪颗？", "response": "是木星"},
            {
                "messages": [{"role": "system", "content": "s"}, user("世界上最大的沙漠是哪个？")],
                "response": "撒哈拉沙漠",
            },
            {"query": "How do you do?", "category": "generic"},
        )
    )

    assert file.format == "general_qa"
    assert file.questions == (
        Question(
            "1", ({"role": "system", "content": "你是一位天文学家"}, user("太阳系中最大的行星是哪颗？")), "是木星"
        ),
        Question("2", ({"role": "system", "content": "s"}, user("世界上最大的沙漠是哪个？")), "撒哈拉沙漠"),
        Question("3", (user("How do you do?"),), category="generic"),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.csv", "id,category,question,A,B,C,D,answer\nx7,化学,水的化学式是什么？,H2O,CO2,NaCl,,A\n"),
        ("q.tsv", "id\tcategory\tquestion\tA\tB\tC\tanswer\nx7\t化学\t水的化学式是什么？\tH2O\tCO2\tNaCl\tA\n"),
        ("q.csv", "\ufeffid;category;question;A;B;C;answer\r\nx7;化学;水的化学式是什么？;H2O;CO2;NaCl;A\r\n"),
        (
            "q.jsonl",
            '{"id": "x7", "category": "化学", "question": "水的化学式是什么？", "A": "H2O", "B": "CO2", "C": "NaCl", '
            '"answer": ["A"]}',
        ),
    ],
)
def test_evalscopes_choices_are_read(name: str, text: str) -> None:
    file = parsed(text, name)

    assert file.format == "general_mcq"
    assert file.questions == (
        Question("x7", (user("水的化学式是什么？"),), "A", ("H2O", "CO2", "NaCl"), "choice", "化学"),
    )


def test_alpaca_is_read_as_llamafactory_trains_it() -> None:
    question = only(
        lines(
            {
                "instruction": "Translate.",
                "input": "Hallo",
                "output": "<think>\nGerman.\n</think>\n\nHello",
                "system": "Be brief.",
                "history": [["Hi", "Hello!"]],
                "label": "translation",
            }
        )
    )

    assert question == Question(
        "1",
        (
            {"role": "system", "content": "Be brief."},
            user("Hi"),
            {"role": "assistant", "content": "Hello!"},
            user("Translate.\nHallo"),
        ),
        "Hello",
        category="translation",
    )


def test_sharegpt_asks_the_last_question_with_all_before_it() -> None:
    turns = [("human", "Name a river."), ("gpt", "The Danube."), ("human", "A town on it?"), ("gpt", "Ulm.")]
    question = only(
        json.dumps([{"conversations": [{"from": who, "value": what} for who, what in turns], "system": ""}])
    )

    assert question.messages == (
        user("Name a river."),
        {"role": "assistant", "content": "The Danube."},
        user("A town on it?"),
    )
    assert question.answer == "Ulm."


def test_a_conversation_without_a_last_answer_has_no_reference() -> None:
    assert only(lines({"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")]})).answer is None


def test_a_preference_has_the_chosen_answer_as_its_reference() -> None:
    record = {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "good"}}

    assert only(lines(record)).answer == "good"


def test_a_table_may_have_conversations_as_json() -> None:
    text = 'messages\n"[{""role"":""user"",""content"":""a""},{""role"":""assistant"",""content"":""b""}]"\n'

    assert only(text, "f.csv") == Question("1", (user("a"),), "b")


def test_our_own_format_is_what_a_question_is() -> None:
    questions = (
        Question("a", (user("长江是河流。"),), "true", (), "true_false", "地理"),
        Question("b", ({"role": "system", "content": "s"}, user("q")), "AC", ("x", "y", "z"), "choice"),
        Question("c", (user("q"),), "text", category="k"),
        Question("d", (user("none"),)),
    )

    file = parsed(lines(*map(asdict, questions)))

    assert (file.format, file.questions) == ("questions", questions)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"question": "q", "answer": "x"}, Question("1", (user("q"),), "x")),
        ({"prompt": "q", "completion": "x"}, Question("1", (user("q"),), "x")),
        ({"question": "q", "answer": 443}, Question("1", (user("q"),), "443")),
        ({"question": "q", "answer": True}, Question("1", (user("q"),), "true", (), "true_false")),
        ({"question": "q", "answer": False}, Question("1", (user("q"),), "false", (), "true_false")),
        (
            {"question": "q", "form": "true_false", "answer": "错"},
            Question("1", (user("q"),), "false", (), "true_false"),
        ),
        (
            {"question": "q", "choices": ["A. x", "B. y"], "answer": "y"},
            Question("1", (user("q"),), "B", ("x", "y"), "choice"),
        ),
        ({"question": "q", "options": ["x", "y"]}, Question("1", (user("q"),), None, ("x", "y"), "choice")),
        ({"question": "q", "tags": ["k", "l"]}, Question("1", (user("q"),), category="k")),
    ],
)
def test_the_plainest_records_are_enough(record: dict[str, Any], expected: Question) -> None:
    assert only(lines(record)) == expected


def test_a_list_of_lines_is_a_list_of_questions() -> None:
    file = parsed("What is a port?\n\n什么是端口？\r\n", "f.txt")

    assert [question.messages for question in file.questions] == [(user("What is a port?"),), (user("什么是端口？"),)]


@pytest.mark.parametrize(
    "text", ['{"data": [{"question": "q"}]}', '[{"question": "q"}]', '{"question": "q"}', '\ufeff{"question": "q"}\r\n']
)
def test_json_may_be_a_list_an_object_or_lines(text: str) -> None:
    assert only(text) == Question("1", (user("q"),))


def test_utf_16_is_read_where_it_says_so() -> None:
    assert parse_questions("f", '{"question": "端口？"}'.encode("utf-16")).questions[0].messages == (user("端口？"),)


def test_images_stay_in_the_question() -> None:
    content = [
        {"type": "text", "text": "Red?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]

    assert only(lines({"messages": [{"role": "user", "content": content}]})).messages[0]["content"] == content


def test_each_question_has_an_id_of_its_own() -> None:
    records = ({"id": 2, "question": "a"}, {"question": "b"}, {"id": "2", "question": "c"}, {"id": "", "question": "d"})

    assert [question.id for question in parsed(lines(*records)).questions] == ["2", "2#2", "2#3", "4"]


def test_the_same_question_is_asked_once() -> None:
    file = parsed(lines({"question": "a"}, {"question": "b"}, {"question": "a"}))

    assert (len(file.questions), file.skipped, file.first_skipped) == (2, 1, "line 3: it is the same as line 1")


def test_a_format_can_be_named() -> None:
    record = lines({"question": "q", "query": "p", "answer": "x"})

    assert only(record).messages == only(record, format="general_qa").messages == (user("p"),)
    assert only(record, format="questions").messages == (user("q"),)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ('{"question": ', "line 2: it is not JSON (column 14: Expecting value)"),
        ("[1]", "line 2: it is a list, not an object"),
        ({"question": " "}, "line 2: it has no question"),
        (
            {"question": "q", "options": ["x"], "answer": "A"},
            "line 2: it has too few or too many options (1): 2 to 26 have letters",
        ),
        (
            {"question": "q", "options": ["x", "y"], "answer": "C"},
            "line 2: its answer 'C' is neither a letter from A to B nor one of its options",
        ),
        (
            {"question": "q", "options": ["x", "y"], "answer": 1},
            "line 2: its answer 1 is not a letter: options are named by A, B, …",
        ),
        ({"question": "q", "options": ["x", ""], "answer": "A"}, "line 2: one of its options is empty or not a text"),
        ({"question": "q", "form": "essay"}, "line 2: its form 'essay' is not one of open, choice, true_false"),
        ({"question": "q", "form": "choice"}, "line 2: it is a choice, and its options are not a list"),
        ({"question": "q", "form": "true_false", "answer": "x"}, "line 2: its answer 'x' is neither true nor false"),
        ({"question": "q", "answer": {"a": 1}}, "line 2: its answer {'a': 1} is not a text"),
        ({"question": "\ud800"}, "line 2: it has half of a character in it (a lone surrogate)"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "line 2: nobody asks anything in it"),
        ({"messages": [{"role": "nurse", "content": "a"}]}, "line 2: a turn is from 'nurse', who is not known"),
        (
            {"messages": [user("a"), {"role": "tool", "content": "b"}]},
            "line 2: it has calls of tools, and only texts are compared",
        ),
    ],
)
def test_a_record_that_cannot_be_asked_is_skipped_with_its_line_and_reason(record: Any, why: str) -> None:
    bad = record if isinstance(record, str) else json.dumps(record)

    file = parsed(lines({"question": "a"}) + "\n" + bad + "\n", format="questions")

    assert (len(file.questions), file.skipped, file.first_skipped) == (1, 1, why)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (
            {"question": "q", "questionType": "essay", "correctAnswer": "x"},
            "its questionType 'essay' is not one of true_",
        ),
        (
            {"question": "q", "questionType": "true_false", "correctAnswer": "x"},
            "its correctAnswer 'x' is neither ✅ nor ❌",
        ),
        ({"question": "q", "questionType": "single_choice", "correctAnswer": "A"}, "it has no options"),
        ({"question": "q", "options": "[x", "correctAnswer": "A"}, "its options are not JSON"),
        ({"question": "q", "options": ["x", "y"], "correctAnswer": '["A"'}, "its correctAnswer is not JSON"),
        ({"question": "", "correctAnswer": "A"}, "its question is empty"),
        ({"instruction": "", "output": "x"}, "its instruction is empty"),
        ({"instruction": "x", "history": [["a"]]}, "its history is not a list of pairs of texts"),
        ({"question": "q", "A": "x", "B": "y", "D": "z", "answer": "A"}, "it has an option D, but not all before it"),
        ({"query": ""}, "its query is empty"),
        ({"conversations": "[x"}, "its turns are not JSON"),
        ({"conversations": {"a": 1}}, "its turns are not a list"),
        ({"conversations": ["a"]}, "a turn is not an object"),
    ],
)
def test_a_file_without_any_question_says_why(record: dict[str, Any], why: str) -> None:
    with pytest.raises(
        QuestionFileError, match=r"'f\.jsonl' has no question that can be asked, read as .*: line 1: "
    ) as told:
        parsed(lines(record))

    assert why in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("", "f.json", "'f.json' is empty"),
        ("[1, 2", "f.json", "'f.json' is not JSON: line 1 ends the list too early or lacks a comma"),
        (
            '[\n{"question": "a"},\n{"question": }\n]',
            "f.json",
            "'f.json' is not JSON: line 3 column 14: Expecting value",
        ),
        ("[" * 100_000, "f.json", "'f.json' is not JSON: it is nested too deeply"),
        ('{"question": ', "f.json", "'f.json' is not JSON: column 14: Expecting value"),
        ("[]", "f.json", "'f.json' has no records"),
        ("[5]", "f.json", "'f.json': line 1: it is a number, not an object"),
        ("a,a\n1,2\n", "f.csv", "'f.csv' has two columns of the same name in its head (line 1)"),
        (
            '{"text_a": 1, "text_b": 2}',
            "f.json",
            "'f.json' is in no format known here: line 1 has text_a, text_b; known are Easy Dataset's evaluation "
            "export (question, correctAnswer); EvalScope's choices (question, A, B, …, answer); EvalScope's questions "
            "(query or messages, response); Alpaca (instruction, input, output); ShareGPT (conversations); Modelport's "
            "own (question or messages, answer, options, form, category); OpenAI's conversations (messages)",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_why_in_one_sentence(text: str, name: str, why: str) -> None:
    with pytest.raises(QuestionFileError) as told:
        parsed(text, name)

    assert str(told.value) == why


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    with pytest.raises(QuestionFileError, match=r"'f' is not text in UTF-8 \(line 2\): save it in UTF-8"):
        parse_questions("f", b'{"question": "a"}\n{"question": "\xce\xd2"}')


def test_a_row_with_too_many_cells_is_told_with_its_line() -> None:
    file = parsed('question,answer\n"a\nb",x\nc,d,e\nf,g\n', "f.csv")

    assert [question.answer for question in file.questions] == ["x", "g"]
    assert file.first_skipped == "line 4: it has 3 cells, the head has 2"


def test_an_unknown_format_is_told_with_those_that_are_known() -> None:
    with pytest.raises(QuestionFileError, match=r"format 'x' is not known \(known: easy-dataset, general_mcq, "):
        parsed("{}", format="x")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(QuestionFileError, match="cannot be read: No such file or directory"):
        read_questions(tmp_path / "f.json")
    with pytest.raises(QuestionFileError, match="cannot be read: Is a directory"):
        read_questions(tmp_path)


def test_a_long_answer_fits_into_a_table() -> None:
    assert only(f"question,answer\nq,{'x' * 200_000}\n", "f.csv").answer == "x" * 200_000


def test_the_digest_is_of_the_files_bytes() -> None:
    one, same, other = (
        parsed(text).digest for text in ('{"question": "a"}', '{"question": "a"}', '{"question": "a"} ')
    )

    assert one == same != other
    assert one.startswith("sha256:")


def test_every_format_says_what_it_is() -> None:
    assert [name for name, form in FORMATS.items() if "(" not in form.text] == []


def test_the_page_has_every_format_and_what_its_examples_promise() -> None:
    written = page("docs/questions.md")
    rows = [
        line.split("|")[1].strip(" `") for line in written.sections["Formats"].splitlines() if line.startswith("| `")
    ]
    (example,) = written.blocks("json")

    assert rows == list(FORMATS)
    assert parsed(example).questions == (
        Question("a1", (user("Which port does HTTPS use?"),), "443", category="network"),
        Question("2", (user("下列哪些是对称加密算法？"),), "AC", ("AES", "RSA", "SM4"), "choice", "密码"),
        Question("3", (user("Port 22 is SSH's."),), "true", (), "true_false"),
        Question("4", ({"role": "system", "content": "Be brief."}, user("What is a port?"))),
    )
