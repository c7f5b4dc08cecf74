"""app/cli/standard_output.py: a verb whose output goes nowhere, or cannot take every letter."""

from __future__ import annotations

import os
import subprocess
import sys

from tests import ROOT

PYTHON = f"exec {sys.executable}"
SAID = "from app.cli import standard_output; standard_output.run(lambda: print('model 日本 é'))"


def shell(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_a_letter_that_the_output_has_not_is_written_by_its_number() -> None:
    done = shell(f'{PYTHON} -c "{SAID}"', PYTHONIOENCODING="ascii")

    assert (done.returncode, done.stdout, done.stderr) == (0, "model \\u65e5\\u672c \\xe9\n", "")


def test_a_letter_that_it_has_is_written() -> None:
    assert shell(f'{PYTHON} -c "{SAID}"', PYTHONIOENCODING="utf-8").stdout == "model 日本 é\n"


def test_a_verb_without_an_output_does_its_work() -> None:
    done = shell(f"{PYTHON} -m app version >&-")

    assert (done.returncode, done.stderr) == (0, "")


def test_where_there_is_no_room_for_what_it_prints_one_sentence_says_so() -> None:
    done = shell(f"{PYTHON} -m app version >/dev/full")

    assert done.returncode == 1
    assert done.stderr == "modelport: what is to be printed cannot be written: No space left on device\n"


def test_any_other_failure_is_as_it_was() -> None:
    code = "from app.cli import standard_output; standard_output.run(lambda: open('/nowhere/x'))"

    assert "FileNotFoundError" in shell(f'{PYTHON} -c "{code}"').stderr
