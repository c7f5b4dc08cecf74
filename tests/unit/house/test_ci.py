"""What `.ci/run` says at its end: what this machine could not try."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import ROOT

PROGRAMS = ("nvidia-smi", "docker", "curl", "kubectl", "grafana", "unshare")
MISSING = ("no GPU", "no Docker engine", "no Ollama daemon", "no Kubernetes cluster", "no Grafana", "no right to mount")


def not_run(programs: Path) -> list[str]:
    """What it says where these are the only programs beside `bash` and `uname`."""
    (programs / "uname").write_text("#!/bin/sh\necho Linux\n")
    for each in programs.iterdir():
        each.chmod(0o755)
    ended = subprocess.run(
        ["/bin/bash", str(ROOT / ".ci/not-run")],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_each_thing_that_is_missing_is_one_line(tmp_path: Path) -> None:
    lines = not_run(tmp_path)

    assert [line.removeprefix("not run: ").partition(":")[0] for line in lines] == list(MISSING)


@pytest.mark.parametrize(("program", "missing"), [*zip(PROGRAMS, MISSING, strict=True)])
def test_what_is_there_is_not_named_and_what_does_not_answer_is(tmp_path: Path, program: str, missing: str) -> None:
    (tmp_path / program).write_text("#!/bin/sh\nexit 0\n")
    there = not_run(tmp_path)
    (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
    broken = not_run(tmp_path)

    assert len(there) == len(MISSING) - 1
    assert not any(line.startswith(f"not run: {missing}") for line in there)
    assert len(broken) == len(MISSING) - (program == "grafana")


def test_the_whole_check_ends_with_it_whatever_happens() -> None:
    run = (ROOT / ".ci/run").read_text()

    assert "trap '.ci/not-run" in run
    assert run.index("trap") < run.index("step check")
