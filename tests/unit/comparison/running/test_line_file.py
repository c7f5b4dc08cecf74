"""Files of lines, ended at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.comparison.model_answer import ModelAnswer
from app.comparison.running.line_file import LineFile
from app.comparison.running.run_record import RunProblem

ANSWERS = [ModelAnswer("q1", "base", text="one\ntwo"), ModelAnswer("q2", "base", 1, "二", error=None)]


def written(path: Path) -> bytes:
    with LineFile(path, ModelAnswer) as lines:
        for answer in ANSWERS:
            lines.append(answer)
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(tmp_path / "answers.jsonl")

    assert LineFile(tmp_path / "answers.jsonl", ModelAnswer).read() == ANSWERS


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert LineFile(tmp_path / "answers.jsonl", ModelAnswer).read() == []


def test_wherever_the_last_line_is_cut_it_is_dropped_and_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    whole = written(path)
    first = whole.index(b"\n") + 1

    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with LineFile(path, ModelAnswer) as lines:
            kept = lines.read()
            lines.append(ANSWERS[1])

        assert kept == ANSWERS[: end >= first]
        assert lines.read() == [*kept, ANSWERS[1]]


def test_a_line_longer_than_a_block_is_dropped_whole(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    whole = written(path)
    path.write_bytes(whole + b'{"question": "' + b"x" * 200_000)

    with LineFile(path, ModelAnswer) as lines:
        assert lines.read() == ANSWERS
    assert path.read_bytes() == whole


def test_a_line_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(written(path) + b'{"question": 7}\n')

    with pytest.raises(RunProblem, match=r"answers.jsonl: line 3 is not one of a comparison's"):
        LineFile(path, ModelAnswer).read()


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").mkdir()

    with (
        pytest.raises(RunProblem, match="cannot be used: Is a directory"),
        LineFile(tmp_path / "answers.jsonl", ModelAnswer),
    ):
        pass
