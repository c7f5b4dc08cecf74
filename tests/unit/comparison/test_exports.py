"""Questions in the formats of other programs: what is in the files, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from app.comparison.exports.export import EXPORTS, exported, write_export
from app.comparison.formats.files import parse_questions, read_questions
from app.comparison.question import Question
from tests import ROOT

QUESTIONS = read_questions(ROOT / "tests/recorded/questions/easy_dataset.json").questions


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def records(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().splitlines()]


def test_evalscope_gets_open_questions_choices_and_choices_of_several() -> None:
    export = exported(QUESTIONS, "evalscope", "Easy Dataset")

    assert sorted(export.files) == [
        "README.md",
        "mcq/easy_dataset_multiple_val.jsonl",
        "mcq/easy_dataset_val.jsonl",
        "qa/easy_dataset.jsonl",
    ]
    assert (export.questions, export.left_out) == (7, 0)
    assert records(export.files["mcq/easy_dataset_val.jsonl"])[0] == {
        "id": "1",
        "category": "地理",
        "question": "长江是亚洲最长的河流。",
        "A": "正确",
        "B": "错误",
        "answer": "A",
    }
    assert records(export.files["mcq/easy_dataset_multiple_val.jsonl"])[0]["answer"] == ["A", "C"]


def test_what_evalscope_gets_is_read_back_as_the_same_questions() -> None:
    files = exported(QUESTIONS, "evalscope", "q").files
    back = [
        question
        for path, data in files.items()
        if path.endswith(".jsonl")
        for question in parse_questions(path, data).questions
    ]

    assert [question for question in QUESTIONS if question.form != "true_false" and question not in back] == []


def test_the_commands_for_evalscope_have_arguments_that_are_json() -> None:
    written = exported(QUESTIONS, "evalscope", "q").files["README.md"].decode()
    arguments = [json.loads(line.split("'")[1]) for line in written.splitlines() if "--dataset-args" in line]

    assert arguments == [
        {"general_qa": {"local_path": "qa", "subset_list": ["q"]}},
        {"general_mcq": {"local_path": "mcq", "subset_list": ["q"]}},
        {
            "general_mcq": {
                "local_path": "mcq",
                "subset_list": ["q_multiple"],
                "extra_params": {"multiple_correct": True},
            }
        },
    ]


def test_lm_eval_gets_a_task_for_each_form_with_its_questions() -> None:
    files = exported(QUESTIONS, "lm-eval", "网络 Q1").files
    tasks = {path: YAML(typ="safe").load(data.decode()) for path, data in files.items() if path.endswith(".yaml")}

    assert sorted(tasks) == ["q1_choice.yaml", "q1_multiple.yaml", "q1_open.yaml"]
    assert {task["tag"] for task in tasks.values()} == {"q1"}
    assert [task["output_type"] for _, task in sorted(tasks.items())] == [
        "multiple_choice",
        "generate_until",
        "generate_until",
    ]
    assert [task["dataset_kwargs"]["data_files"]["test"] in files for task in tasks.values()] == [True] * 3
    assert tasks["q1_open.yaml"]["doc_to_text"] == "{{prompt}}"
    assert tasks["q1_open.yaml"]["doc_to_target"] == "{{target}}"
    choices = records(files["q1_choice.jsonl"])
    assert [(each["choices"][each["gold"]]) for each in choices] == ["正确", "false", "B", "A"]
    assert choices[2]["prompt"].endswith("D. ARP\n\n只回答正确选项的字母。\n答案：")
    assert records(files["q1_multiple.jsonl"])[0]["target"] == "AC"


def test_a_conversation_becomes_one_text_where_there_is_room_for_one_only() -> None:
    messages = (
        {"role": "system", "content": "Be brief."},
        user("Hi"),
        {"role": "assistant", "content": "Hello!"},
        user([{"type": "text", "text": "Which?"}]),
    )
    question = Question("1", messages, "A", ("x", "y"), "choice")

    (record,) = records(exported([question], "evalscope", "q").files["mcq/q_val.jsonl"])

    assert record["question"] == "Be brief.\n\nUser: Hi\n\nAssistant: Hello!\n\nUser: Which?"


@pytest.mark.parametrize(
    ("program", "question", "why"),
    [
        (
            "evalscope",
            Question("7", (user("q"),), None, ("x", "y"), "choice"),
            "it has no answer, which general_mcq needs",
        ),
        (
            "evalscope",
            Question("7", (user("q"),), "A", tuple("abcdefghijk"), "choice"),
            "it has 11 options, and general_mcq reads 10",
        ),
        ("evalscope", Question("7", (user([{"type": "image_url"}]),), "x"), "it has an image"),
        ("lm-eval", Question("7", (user([{"type": "image_url"}]),), "x"), "it has an image"),
        ("lm-eval", Question("7", (user("q"),)), "it has no answer to hold an output against"),
    ],
)
def test_what_the_other_program_cannot_say_is_left_out_and_told(program: str, question: Question, why: str) -> None:
    export = exported([question, QUESTIONS[5]], program, "q")

    assert (export.questions, export.left_out, export.first_left_out) == (1, 1, f"question 7: {why}")


def test_nothing_is_written_where_nothing_is_left() -> None:
    assert exported([Question("1", (user("q"),))], "lm-eval", "q").files == {}


@pytest.mark.parametrize("program", EXPORTS)
def test_files_are_written_into_a_folder_that_is_made(program: str, tmp_path: Path) -> None:
    export = exported(QUESTIONS, program, "Q")

    write_export(export, tmp_path / "a/b")
    write_export(export, tmp_path / "a/b")

    written = {f"{path.relative_to(tmp_path / 'a/b')}": path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in written.items()} == export.files
