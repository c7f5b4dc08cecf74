"""The folder of a run: which one it is, and what a killed command leaves."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest

from app.comparison.running.line_file import LineFile
from app.comparison.running.run_folder import RunFolder, chosen, named, run_id
from app.comparison.running.run_record import DrawnWith, RunProblem
from tests.unit.comparison.running.runs import order, questions, record

NOW = datetime.datetime(2026, 11, 27, 14, 15, tzinfo=datetime.UTC)
ASKED = questions(3)
ORDER = order(ASKED)


def begun(folder: RunFolder) -> RunFolder:
    with folder.held():
        folder.begin(record(ORDER, folder.path.name), ASKED)
    return folder


def test_what_began_is_read_again(tmp_path: Path) -> None:
    folder = begun(RunFolder(tmp_path / "run"))

    assert (folder.record().order, folder.questions()) == (ORDER, ASKED)


def test_a_run_that_is_not_finished_goes_on_in_its_folder(tmp_path: Path) -> None:
    first = begun(chosen(tmp_path, ORDER, NOW))

    assert chosen(tmp_path, ORDER, NOW).path == first.path


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_run_that_has_ended_does_not_go_on(tmp_path: Path, state: str) -> None:
    first = begun(chosen(tmp_path, ORDER, NOW))
    first.write(msgspec.convert({**msgspec.to_builtins(first.record()), "state": state}, type(first.record())))

    assert chosen(tmp_path, ORDER, NOW).path.name == f"{first.path.name}-2"


def test_answers_that_are_there_are_weighed_otherwise_in_their_folder(tmp_path: Path) -> None:
    first = begun(chosen(tmp_path, ORDER, NOW))
    first.write(msgspec.structs.replace(first.record(), state="finished"))

    for change in ({"judge": "judge"}, {"primary": "chrf"}, {"likelihood": False}):
        other = msgspec.structs.replace(ORDER, **change)
        assert chosen(tmp_path, other, NOW).path == named(first.path, other).path == first.path


def test_a_run_that_cannot_go_on_is_not_weighed_otherwise(tmp_path: Path) -> None:
    first = begun(chosen(tmp_path, ORDER, NOW))
    first.write(msgspec.structs.replace(first.record(), state="stopped"))

    assert chosen(tmp_path, msgspec.structs.replace(ORDER, primary="chrf"), NOW).path != first.path


def test_another_order_has_a_folder_of_its_own(tmp_path: Path) -> None:
    first = begun(chosen(tmp_path, ORDER, NOW))

    assert chosen(tmp_path, order(questions(4)), NOW).path != first.path


def test_what_a_command_left_that_was_killed_at_its_start_is_removed(tmp_path: Path) -> None:
    leftover = RunFolder(tmp_path / "20261127-100000-base-vs-tuned")
    leftover.path.mkdir()
    for name in ("lock", "questions.jsonl", ".questions.jsonl.4711.new", ".run.json.4711.new"):
        (leftover.path / name).write_text("half")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")

    chosen(tmp_path, ORDER, NOW)

    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_a_folder_in_which_another_command_works_is_refused_and_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.held():
        with pytest.raises(RunProblem, match=r"another command works on the comparison"), folder.held():
            pass
        chosen(tmp_path, ORDER, NOW)

        assert folder.path.exists()


def test_a_command_that_is_refused_at_its_start_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunProblem), folder.held():
        raise RunProblem("the models cannot be compared")

    assert list(tmp_path.iterdir()) == []


def test_a_named_folder_goes_on_with_the_same_order_only(tmp_path: Path) -> None:
    begun(RunFolder(tmp_path / "run"))
    warmer = msgspec.structs.replace(ORDER, sampling=DrawnWith(temperature=0.7))

    assert named(tmp_path / "run", ORDER).is_run
    with pytest.raises(RunProblem, match=r"holds another comparison .temperature: 0.0 there, 0.7 now."):
        named(tmp_path / "run", warmer)
    with pytest.raises(RunProblem, match=r"the questions of questions.jsonl have changed since"):
        named(tmp_path / "run", msgspec.structs.replace(ORDER, digest="0"))
    with pytest.raises(RunProblem, match=r"models: base, tuned there, base, other now"):
        named(tmp_path / "run", msgspec.structs.replace(ORDER, models=("base", "other")))


def test_questions_answers_and_reports_are_their_owners_alone_in_a_folder_that_all_may_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = begun(RunFolder(tmp_path))
    folder.write_file("report.html", "<!doctype html>")
    for name in ("answers.jsonl", "judgements.jsonl", "votes.jsonl"):
        with LineFile(tmp_path / name, str) as file:
            file.append("a line")

    assert {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == dict.fromkeys(
        ("run.json", "questions.jsonl", "answers.jsonl", "judgements.jsonl", "votes.jsonl", "report.html", "lock"),
        0o600,
    )


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")

    with pytest.raises(RunProblem, match=r"holds other files .thesis.tex, …."):
        named(tmp_path, ORDER)


def test_a_spoilt_record_is_one_sentence(tmp_path: Path) -> None:
    folder = begun(RunFolder(tmp_path / "run"))
    (folder.path / "run.json").write_text("{")

    with pytest.raises(RunProblem, match=r"run.json is not that of a comparison"):
        named(folder.path, ORDER)


def test_an_id_says_when_and_what_in_plain_letters() -> None:
    assert run_id(("base", "ollama/qwen:7b"), NOW) == "20261127-141500-base-vs-ollama-qwen-7b"
    assert run_id(("模型", "b"), NOW, 1) == "20261127-141500-vs-b-2"
