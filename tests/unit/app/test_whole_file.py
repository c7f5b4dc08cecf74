"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.whole_file import write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "certificate.md"
    write_whole(target, b"one")
    (tmp_path / "folder").mkdir()

    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"two")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["certificate.md", "folder"]
    assert target.read_text() == "one"


def test_what_a_killed_process_left_goes_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".a.{ended.pid}.new", f".a.{os.getppid()}.new", f".b.{ended.pid}.new", ".a.mine.new"):
        (tmp_path / name).write_bytes(b"half")

    write_whole(tmp_path / "a", b"whole")

    left = {".a.mine.new", f".a.{os.getppid()}.new", f".b.{ended.pid}.new"}
    assert {path.name for path in tmp_path.iterdir()} == {"a", *left}
