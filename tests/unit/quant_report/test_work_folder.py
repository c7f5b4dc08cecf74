"""The folder that a report is made in: alone, whole files, nothing left behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from app.quant_report.figures import Measured, Scores, Speed
from app.quant_report.work_folder import MadeFiles, Remembered, ReportProblem, locked, scratch, write_file

MEASURED = Measured(Speed(1.0, 2.0, 3), Scores((0.5, 1.5), (0.1, 0.2), (True, False)), None, 0.0001)


def test_two_reports_are_not_made_in_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "out"):  # noqa: SIM117 - the second one is to fail
        with pytest.raises(ReportProblem, match="another report is being made"), locked(tmp_path / "out"):
            pass

    with locked(tmp_path / "out"):
        assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_removed_and_all_else_stays(tmp_path: Path) -> None:
    for name in (".logits-abc", ".measured.json.new", "measured.json", "model-q8_0.gguf"):
        (tmp_path / name).write_text("x")

    with locked(tmp_path):
        assert sorted(each.name for each in tmp_path.iterdir()) == ["measured.json", "model-q8_0.gguf"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(ReportProblem, match="name another with --out"), locked(tmp_path / "file"):
        pass


def test_the_file_for_logits_can_be_used_by_others_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with scratch(tmp_path) as name:
        Path(name).write_bytes(b"logits")
        assert Path(name).read_bytes() == b"logits"
        assert sys.platform != "linux" or list(tmp_path.iterdir()) == []

    assert list(tmp_path.iterdir()) == []
    assert not os.path.exists(name)  # noqa: PTH110


def test_results_are_remembered_and_the_oldest_make_room(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path)
    for index in range(45):
        remembered.put(str(index), MEASURED)

    again = Remembered(tmp_path)

    assert again.get("44") == MEASURED
    assert again.get("4") is None


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text('{"a": {"speed"')

    assert Remembered(tmp_path).get("a") is None


def test_a_file_that_somebody_else_made_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "model-q8_0.gguf"
    file.write_text("theirs")

    with pytest.raises(ReportProblem, match="was not made by a report"), MadeFiles(tmp_path).making(file, "abc"):
        file.write_text("ours")

    assert MadeFiles(tmp_path).source(file) is None
    assert file.read_text() == "theirs"


def test_a_file_is_ours_from_the_moment_on_that_it_is_begun(tmp_path: Path) -> None:
    file = tmp_path / "model-q8_0.gguf"
    with MadeFiles(tmp_path).making(file, "abc"):
        assert MadeFiles(tmp_path).source(file) == "abc"
        file.write_text("ours")

    with MadeFiles(tmp_path).making(file, "def"):
        assert not file.exists()
        file.write_text("ours, anew")
    assert MadeFiles(tmp_path).source(file) == "def"


def test_a_file_that_was_not_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), MadeFiles(tmp_path).making(tmp_path / "model.gguf", "abc"):
        raise ValueError("no")

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.md").mkdir()

    with pytest.raises(ReportProblem, match="cannot be written"):
        write_file(tmp_path / "report.md", b"text")

    assert [each.name for each in tmp_path.iterdir()] == ["report.md"]
