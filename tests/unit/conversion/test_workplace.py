"""Where files are made until they are whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.conversion.errors import ConversionError
from app.conversion.workplace import free_bytes, put_in_place, workplace


def test_what_was_made_has_its_place_and_nothing_else_is_left(tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"

    with workplace(out) as folder:
        (folder / "made").write_text("whole")
        assert not out.exists()
        put_in_place(folder / "made", out)

    assert [each.name for each in tmp_path.iterdir()] == ["model.gguf"]
    assert out.read_text() == "whole"


def test_a_folder_takes_the_place_of_one_that_is_there(tmp_path: Path) -> None:
    out = tmp_path / "merged"
    out.mkdir()
    (out / "old").touch()

    with workplace(out) as folder:
        (folder / "made").mkdir()
        (folder / "made" / "new").touch()
        put_in_place(folder / "made", out)

    assert [each.name for each in out.iterdir()] == ["new"]


def test_a_second_run_for_the_same_file_is_told_to_wait(tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"

    with (
        workplace(out) as folder,
        pytest.raises(ConversionError, match="is being made by another run right now"),
        workplace(out),
    ):
        pytest.fail("both have it")

    assert not folder.exists()


def test_what_a_killed_run_left_is_removed_by_the_next_for_any_file_beside_it(tmp_path: Path) -> None:
    killed = tmp_path / ".modelport-model-q8_0.gguf.part"
    (killed / "staged").mkdir(parents=True)
    (killed / "converted.gguf").write_text("half")
    mine = tmp_path / ".modelport-model-f16.gguf.part"
    mine.mkdir()
    (mine / "converted.gguf").write_text("half")

    with workplace(tmp_path / "model-f16.gguf") as folder:
        assert list(folder.iterdir()) == []
        assert [each.name for each in tmp_path.iterdir()] == [folder.name]


def test_what_another_run_uses_is_left(tmp_path: Path) -> None:
    with workplace(tmp_path / "one.gguf") as one, workplace(tmp_path / "two.gguf") as two:
        assert one.exists()
        assert two.exists()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "the disk became full while"), (errno.EIO, "Input/output error")],
)
def test_a_disk_that_fails_is_one_sentence_and_leaves_nothing(tmp_path: Path, number: int, sentence: str) -> None:
    out = tmp_path / "model.gguf"

    with pytest.raises(ConversionError, match=sentence), workplace(out):
        raise OSError(number, os.strerror(number), "converted.gguf")

    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConversionError, match="cannot be written: Not a directory"), workplace(tmp_path / "file" / "x"):
        pytest.fail("it was written")


def test_a_disk_that_is_mounted_read_only_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(tmp_path) > 0

    status = os.statvfs(tmp_path)
    told = SimpleNamespace(f_flag=status.f_flag | os.ST_RDONLY, f_bavail=0, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: told)

    with pytest.raises(ConversionError, match=r"its disk is mounted read-only: .*, or name another place with --out"):
        free_bytes(tmp_path)
    with (
        pytest.raises(ConversionError, match="its disk is mounted read-only"),
        workplace(tmp_path / "model.gguf"),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "converted.gguf")
