"""Scripts in a tool environment: what they say, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backends.toolenv.child import call
from backends.toolenv.failures import ToolError
from tests import ROOT

PYTHON = Path(sys.executable)
PATIENCE_S = 30.0


def script(folder: Path, text: str) -> Path:
    path = folder / "work.py"
    path.write_text(f"import json, os, sys, time\nrequest = json.load(sys.stdin)\n{text}")
    return path


def test_a_script_gets_a_request_reports_how_far_it_is_and_answers(tmp_path: Path) -> None:
    work = script(
        tmp_path,
        'print(json.dumps({"progress": {"done": 1}}))\n'
        'print(json.dumps({"progress": {"done": 2}}))\n'
        'print(json.dumps({"result": request["words"][::-1]}))\n',
    )
    seen: list[Mapping[str, Any]] = []

    answer = call(PYTHON, work, {"words": ["größe", "b"]}, seen.append)

    assert answer == ["b", "größe"]
    assert seen == [{"done": 1}, {"done": 2}]


def test_megabytes_go_both_ways_whatever_is_printed_beside_them(tmp_path: Path) -> None:
    """Each pipe holds 64 KiB: who writes one while nobody reads another waits for ever."""
    work = script(
        tmp_path,
        'sys.stderr.write("noise\\n" * 500_000)\n'
        'print("rubbish " * 100_000)\n'
        'print(json.dumps({"result": request["text"]}))\n',
    )
    text = "0123456789" * 500_000

    assert call(PYTHON, work, {"text": text}) == text


def test_a_scripts_own_sentence_is_the_error(tmp_path: Path) -> None:
    work = script(tmp_path, 'print(json.dumps({"error": "the architecture is unknown"}))\nsys.exit(1)\n')

    with pytest.raises(ToolError, match=r"^the architecture is unknown$"):
        call(PYTHON, work, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "raise ValueError('no such tensor')",
            "work gave no result: it exited with code 1 (ValueError: no such tensor)",
        ),
        (
            "print('{\"progress\": {}}'); print('{broken'); print('[1]')",
            "work gave no result: it exited with code 0 ([1])",
        ),
        ("os.kill(os.getpid(), 9)", "work gave no result: it was killed from outside; the system does that when"),
        ("os._exit(3)", "work gave no result: it exited with code 3"),
        ("print('token ghp_x at https://me:secret@index/simple', file=sys.stderr)", "at https://index/simple)"),
    ],
    ids=["raises", "rubbish", "killed", "silent", "credentials"],
)
def test_without_a_result_one_sentence_says_why(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ToolError) as raised:
        call(PYTHON, script(tmp_path, text), {})

    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_interpreter_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="it exited with code 127"):
        call(tmp_path / "python", script(tmp_path, ""), {})


def test_it_has_what_it_needs_of_the_environment_and_none_of_the_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    work = script(tmp_path, 'print(json.dumps({"result": dict(os.environ)}))\n')

    env = call(PYTHON, work, {}, env={"MINE": "1"})

    assert (env["PATH"], env["MINE"], env["HF_HUB_OFFLINE"]) == (os.environ["PATH"], "1", "1")
    assert "secret" not in env.values()


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    work = script(
        tmp_path,
        "import subprocess\n"
        'child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n'
        'print(json.dumps({"result": child.pid}))\n',
    )

    pid = call(PYTHON, work, {})

    assert not alive(pid)


CALLER = """
import signal
import sys
from pathlib import Path
from backends.toolenv.child import call
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
call(Path(sys.executable), Path(sys.argv[1]), {}, lambda told: print(told["pid"], flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_it_ends_with_the_command_that_waits_for_it(tmp_path: Path, number: signal.Signals) -> None:
    work = script(tmp_path, 'print(json.dumps({"progress": {"pid": os.getpid()}}))\ntime.sleep(600)\n')
    command = [sys.executable, "-c", CALLER, str(work)]

    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        was_alive = alive(pid)
        caller.send_signal(number)
        try:
            caller.wait(PATIENCE_S)
        finally:
            caller.kill()

    assert was_alive
    assert gone(pid)


def test_one_that_has_answered_and_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.toolenv.guarded.AFTERWARDS_S", 0.2)
    work = script(tmp_path, 'print(json.dumps({"result": os.getpid()}))\ntime.sleep(600)\n')

    pid = call(PYTHON, work, {})

    assert not alive(pid)


def test_a_number_that_is_none_in_json_is_no_crash(tmp_path: Path) -> None:
    work = script(tmp_path, "print('{\"result\": NaN}')\n")

    assert json.dumps(call(PYTHON, work, {})) == "NaN"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    until = time.monotonic() + PATIENCE_S
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)
