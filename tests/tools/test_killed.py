"""A real registration that is killed in each of its steps, one after the other, is finished by the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.config.load import loads
from app.registration.journal import folder_of, names
from backends.llama_cpp.gguf_contents import read_contents
from backends.process.guard import descendants
from tests import ROOT
from tests.journeys.gateway import Gateway, until
from tests.journeys.ollama_daemon import running
from tests.tools.test_register import CONFIG

LONGEST_S = 600
# What standard error says when a step begins: the run is killed there, and the next run goes on.
STEPS = (
    "finding out what it was trained on",
    "reading the model",
    "writing the GGUF file",
    "quantising to q4_k_m",
    "creating 'law'",
    "the daemon:",
    "writing /",
    "reloading the gateway",
    "waiting for the engines",
    "law: the prompts that it builds",
    "law-embedded: greedy answers",
)

pytestmark = pytest.mark.full


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway that runs, a daemon, and the command that registers `base` for both engines."""

    gateway: Gateway
    folder: Path
    daemon: str
    argv: list[str]

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "modelport.yaml"

    @property
    def env(self) -> dict[str, str]:
        """With the gateway's state folder."""
        return {**os.environ, "MODELPORT_STATE": str(self.gateway.state), "PYTHONPATH": str(ROOT)}

    @property
    def registration(self) -> Path:
        """The folder of the registration."""
        return folder_of(self.gateway.state, "law")

    def modelport(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A verb, to its end."""
        argv = [sys.executable, "-m", "app", *args]
        return subprocess.run(
            argv, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )

    def killed_at(self, step: str) -> list[int]:
        """Register until that step begins, and kill the command, not its children; returns who they were."""
        argv = [sys.executable, "-m", "app", *self.argv]
        with subprocess.Popen(argv, cwd=self.folder, env=self.env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if step in line:
                    time.sleep(0.05)  # into the step
                    children = descendants(process.pid)
                    process.send_signal(signal.SIGKILL)
                    break
            else:
                pytest.fail(f"{step!r} was not said: {''.join(said)}")
        return children

    def holds_nothing_half(self) -> None:
        """The configuration is whole and valid, and so is each file that has its final name."""
        loads(self.config.read_text(), {}, source="modelport.yaml", is_lenient=True)
        for file in self.registration.glob("[!.]*.gguf"):
            weights = sum(tensor.size_bytes for tensor in read_contents(file).tensors.values())
            assert file.stat().st_size > weights


def are_gone(pids: list[int]) -> bool:
    """Whether none of these processes is there."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture(scope="module")
def place(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A model whose training template is not its tokenizer's, for the daemon and the embedded engine."""
    folder = tmp_path_factory.mktemp("killed")
    with running("fake", folder / "ollama") as daemon, Gateway(folder, CONFIG) as gateway:
        assert gateway.url
        engines = ("--ollama", "--embedded", "--ollama-url", daemon, "--quant", "q4_k_m", "--template", "default")
        argv = ["register", str(folders / "base"), "--name", "law", *engines]
        yield Place(gateway, folder, daemon, [*argv, "--config", str(folder / "modelport.yaml"), "--json"])


def test_whatever_a_kill_leaves_the_same_command_finishes_and_unregister_removes(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    left: dict[str, list[str]] = {}
    for step in STEPS:
        children = place.killed_at(step)
        until(partial(are_gone, children), 60)
        place.holds_nothing_half()
        left[step] = sorted(each.name for each in place.registration.glob("*")) if place.registration.exists() else []

    done = place.modelport(*place.argv)

    record_property("left by a kill", left)
    told = json.loads(done.stdout)
    assert {each["name"]: each["state"] for each in told["models"]} == {"law": "ready", "law-embedded": "ready"}, done
    assert [each["failed"] for each in told["certificates"]] == [False, False], done
    assert done.stderr.count("done already") >= 3, done.stderr
    assert not [each.name for each in place.registration.iterdir() if each.name.startswith(".")]
    assert len(list(place.registration.glob("*.gguf"))) == 1
    back = place.modelport("unregister", "law")
    assert back.returncode == 0, back
    assert place.config.read_text() == CONFIG
    assert names(place.gateway.state) == []
    assert not place.registration.exists()
    listed = httpx.get(f"{place.daemon}/api/tags", trust_env=False).json()["models"]
    assert [each["name"] for each in listed] == ["smollm2:135m"]
