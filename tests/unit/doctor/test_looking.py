"""Looking at a machine: what it reads of real folders, sockets, programs, and of a root that is made up."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from app.config.load import loads
from app.doctor.facts import CollectorFacts, ToolFacts
from app.doctor.looking import engines, look, system
from app.doctor.looking.deadlines import all_within
from app.doctor.looking.listeners import users_of
from app.supervisor.state_folder import StateFolder
from backends.inspection import Inspection
from backends.toolenv import build
from backends.toolenv.tools import TOOLS
from tests.rigs.serving import until
from tests.unit.supervisor.test_gpu_quarantine import Nvml

# -- deadlines


def test_what_hangs_holds_up_nothing_else() -> None:
    never = threading.Event()

    results, late = all_within(0.3, {("disk", "a"): never.wait, ("port", "b"): lambda: 7})

    never.set()
    assert results == {("port", "b"): 7}
    assert late == (("disk", "a"),)


def test_what_fails_is_named_like_what_hangs() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    assert all_within(5.0, {("gpu", "NVML"): fail}) == ({}, (("gpu", "NVML"),))


# -- ports


def test_who_listens_on_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]

        taken = system.port("server.port", "127.0.0.1", number)

        assert taken.trouble == f"127.0.0.1:{number} is in use by another program"
        assert [pid for pid, _ in taken.users] == [os.getpid()]
    assert system.port("server.port", "127.0.0.1", number).trouble is None
    assert users_of(number) == ()


def test_a_client_of_a_port_does_not_listen_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as client:
            assert users_of(client.getsockname()[1]) == ()


# -- folders and disks


def test_a_folder_is_told_as_it_is_and_nothing_is_made(tmp_path: Path) -> None:
    missing = system.folder(tmp_path / "a/b/state")
    (tmp_path / "file").touch()

    assert (missing.exists, missing.can_be_made) == (False, True)
    assert not (tmp_path / "a").exists()
    assert (system.folder(tmp_path / "file").exists, system.folder(tmp_path / "file").is_folder) == (True, False)
    assert system.folder(tmp_path / "file/state").trouble == "Not a directory"
    assert system.folder(tmp_path).has_content


def test_a_folder_that_a_gateway_holds_names_its_process(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "state") as state:
        held = system.folder(state.path)

        assert (held.has_lock, held.holder) == (True, str(os.getpid()))
    assert system.folder(state.path).holder is None


def test_a_gateway_that_holds_its_folder_and_does_not_answer_is_told(tmp_path: Path) -> None:
    with StateFolder(tmp_path / "state") as state:
        facts = look.running_gateway(state.path)

    assert facts is not None
    assert facts.pid == os.getpid()
    assert facts.trouble is not None
    assert look.running_gateway(state.path) is None


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_the_one_above(tmp_path: Path) -> None:
    here, missing = system.disk("x", tmp_path), system.disk("x", tmp_path / "a/b")

    assert here.total_bytes > 0
    assert (missing.device, missing.total_bytes, missing.trouble) == (here.device, here.total_bytes, None)


# -- the system


def test_a_library_is_there_when_the_loader_loads_it() -> None:
    assert system.has_library("libc.so.6")
    assert not system.has_library("libnothing-of-this-name.so.7")


CPUINFO = "processor: 0\nflags\t\t: fpu sse2 avx2\nprocessor: 1\nflags\t\t: fpu sse2 avx2\n"


def test_the_processors_flags_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    assert system.processor_flags(tmp_path) is None
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)

    assert system.processor_flags(tmp_path) == frozenset({"fpu", "sse2", "avx2"})


def test_gpus_are_read_through_nvml_with_those_that_are_lost() -> None:
    library = NamedNvml(lost=1)

    facts = system.gpus({"CUDA_VISIBLE_DEVICES": ""}, library)

    assert (facts.driver, facts.cuda, facts.hidden) == ("570.86", "12.8", 1)
    assert facts.gpus == ((0, "NVIDIA H100", 80_000_000_000, 3_000_000_000),)
    assert facts.lost == ((1, "GPU is lost"),)
    assert not library.is_open


def test_a_driver_that_does_not_answer_is_told() -> None:
    class Mismatch(NamedNvml):
        def nvmlInit(self) -> None:
            raise self.NVMLError("Driver/library version mismatch")

    assert system.gpus({}, Mismatch()).trouble == "Driver/library version mismatch"


class NamedNvml(Nvml):
    """It also tells names and versions, as pynvml documents them."""

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12080

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86"

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"NVIDIA H100"


def test_a_collector_is_connected_to_and_told_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert system.collector(f"http://127.0.0.1:{number}/v1/traces") == CollectorFacts(f"127.0.0.1:{number}")
        peer, _ = server.accept()
        with peer:
            assert peer.recv(1) == b""

    assert system.collector(f"http://127.0.0.1:{number}") == CollectorFacts(f"127.0.0.1:{number}", "Connection refused")
    assert system.collector(None) is None


def test_tool_environments_are_told_apart(tmp_path: Path) -> None:
    assert look.tool_environments(tmp_path) == ToolFacts(tmp_path)
    whole, broken = build.place(tmp_path, TOOLS["report"]), build.place(tmp_path, TOOLS["quantize"])
    (whole / "bin").mkdir(parents=True)
    (whole / "bin/python").symlink_to(sys.executable)
    broken.mkdir()
    (tmp_path / f"convert-0123456789ab{build.MAKING}").mkdir()

    assert look.tool_environments(tmp_path) == ToolFacts(tmp_path, ("report",), ("quantize",), ("convert",))


# -- programs


def script(folder: Path, text: str) -> Inspection:
    path = folder / "engine"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Inspection("an engine", str(path), version_words=("--version",), flaw=lambda version: f"{version} is old.")


PRINTED = {
    "ollama version is 0.33.0-rc2": "0.33.0-rc2",
    "0.32.0+cpu": "0.32.0+cpu",
}


@pytest.mark.parametrize("printed", PRINTED)
def test_the_version_that_a_program_prints_is_found(tmp_path: Path, printed: str) -> None:
    facts = engines.program("gpu", script(tmp_path, f'[ "$1" = --version ] && echo "{printed}"'), {})

    assert facts is not None
    assert (facts.version, facts.trouble) == (PRINTED[printed], None)
    assert facts.flaw == f"{PRINTED[printed]} is old."


def test_the_last_version_that_is_printed_counts(tmp_path: Path) -> None:
    """Programs write notes first: `Warning: client version is 0.5`, vLLM's lines of its platform."""
    facts = engines.program("gpu", script(tmp_path, "echo 'INFO 11-27 torch 2.13.0'; echo 0.32.0"), {})

    assert facts is not None
    assert facts.version == "0.32.0"


FAILURES = {
    "exit 3": "ended with exit code 3",
    "echo no module named vllm; exit 1": "ended with exit code 1: no module named vllm",
    "echo hello": "it printed no version: hello",
}


@pytest.mark.parametrize("text", FAILURES)
def test_a_program_that_fails_says_how(tmp_path: Path, text: str) -> None:
    facts = engines.program("gpu", script(tmp_path, text), {"PATH": os.defpath})

    assert facts is not None
    assert facts.version is None
    assert facts.is_mute == (text == "echo hello")
    assert FAILURES[text] in (facts.trouble or "")


def test_a_program_that_never_answers_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    endless = script(tmp_path, f"sleep 600 & echo $! > {pids}; wait")

    facts = engines.program("gpu", endless, {"PATH": os.defpath}, 0.5)

    assert facts is not None
    assert facts.is_mute
    assert "it printed no version within" in (facts.trouble or "")
    until(lambda: not _is_running(int(pids.read_text())))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_the_version_of_a_package_is_read_beside_its_program_without_calling_it(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.12/site-packages/vllm-0.32.0+cpu.dist-info").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    inspection = script(tmp_path / "bin", "echo called > called; exit 1")

    facts = engines.program("gpu", Inspection("vLLM", inspection.program, package="vllm"), {})

    assert facts is not None
    assert facts.version == "0.32.0+cpu"


def test_what_our_own_python_loads_is_loaded_in_a_process_of_its_own() -> None:
    there = engines.program("demo", Inspection("llama.cpp", module="xllamacpp", package="xllamacpp"), {})
    missing = engines.program("demo", Inspection("nothing", module="no_such_module"), {})

    assert there is not None
    assert there.version
    assert there.trouble is None
    assert missing is not None
    assert (missing.path, missing.version) == (None, None)
    assert "No module named 'no_such_module'" in (missing.trouble or "")
    assert "no_such_module" not in sys.modules


# -- the hub

ON_HUB = """
backends:
  gpu: {kind: vllm, model: organisation/model, env: {HF_HOME: PLACE, HF_TOKEN: secret, HF_HUB_OFFLINE: "1"}}
models:
  m: {backend: gpu}
"""


def test_a_model_of_the_hub_is_looked_for_in_the_cache_of_its_backend(tmp_path: Path) -> None:
    config = loads(ON_HUB.replace("PLACE", str(tmp_path)), {}, source="x")
    (absent,) = engines.hub(config, {})
    snapshot = tmp_path / "hub/models--organisation--model/snapshots/1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").touch()
    (present,) = engines.hub(config, {})

    assert (absent.is_here, absent.is_offline, absent.has_token) == (False, True, True)
    assert present.is_here
    inspections = [each for name, each in engines.inspections(config) if name is not None]
    assert engines.hub_folders(inspections, {}) == (tmp_path / "hub",)
