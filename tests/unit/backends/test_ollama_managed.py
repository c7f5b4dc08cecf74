"""A managed daemon: how it is started, that it is watched like any engine, and what is shown of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backends.ollama.config import OllamaConfig
from backends.ollama.engine import Ollama, environment, explain
from tests import ROOT
from tests.rigs.serving import Gateway, running, until

PROGRAM = [sys.executable, "-m", "tests.fakes.ollama"]
CONFIG = f"""
backends:
  local: {{kind: ollama, managed: true, command: {json.dumps(PROGRAM)}, num_parallel: 3, models_folder: FOLDER,
          unload_after_s: 3600, env: {{PYTHONPATH: "{ROOT}", FAKE_OLLAMA_VERSION: VERSION}}}}
models:
  "ollama/*": {{backend: local}}
  small: {{backend: local, model: "smollm2:135m"}}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    config = tmp_path / "managed.yaml"
    config.write_text(CONFIG.replace("FOLDER", str(tmp_path / "models")).replace("VERSION", "0.33.0"))
    with running(tmp_path, "--config", str(config)) as started:
        assert started.url
        until(lambda: local(started)["state"] == "ready")
        yield started


def local(gateway: Gateway) -> dict[str, object]:
    backends = gateway.status()["health"]["backends"]
    return next(dict(each) for each in backends if each["name"] == "local")


def ask(gateway: Gateway, **fields: object) -> httpx.Response:
    body = {"model": "small", "messages": [{"role": "user", "content": "Say hi."}], **fields}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30, trust_env=False)


def test_it_is_started_watched_and_started_again_and_leaves_nothing(gateway: Gateway) -> None:
    pid = local(gateway)["pid"]
    assert isinstance(pid, int)
    assert ask(gateway, max_tokens=8, temperature=0).json()["choices"][0]["message"]["content"].startswith("Hello")

    os.kill(pid, signal.SIGKILL)
    assert ask(gateway, max_tokens=1).status_code == 200  # what no daemon has read waits for its next start
    until(lambda: local(gateway)["pid"] not in (None, pid) and local(gateway)["state"] == "ready")

    again = local(gateway)["pid"]
    assert ask(gateway).status_code == 200
    assert gateway.end() == 0
    assert not Path(f"/proc/{again}").exists()


def test_what_it_is_started_with_what_is_shown_of_it_and_what_is_wrong_with_it(
    gateway: Gateway, tmp_path: Path
) -> None:
    lines = gateway.ask("/admin/backends/local/logs")["lines"]
    env = json.loads(lines[0].partition("{")[1] + lines[0].partition("{")[2])
    assert env == {
        "OLLAMA_HOST": str(local(gateway)["url"]).removeprefix("http://"),
        "OLLAMA_KEEP_ALIVE": "3600s",
        "OLLAMA_MODELS": str(tmp_path / "models"),
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NUM_PARALLEL": "3",
    }
    assert local(gateway)["loaded"] == {}

    ask(gateway)
    gateway.ask("/admin/reload", "POST")

    until(lambda: local(gateway)["loaded"] == {"smollm2:135m": 209505483})
    warnings = [line for line in gateway.log.read_text().splitlines() if "engine has a flaw" in line]
    assert len(warnings) == 1
    assert "CVE-2026-103663" in warnings[0]


def test_what_changes_a_daemon_does_not_reach_it_through_the_gateway(gateway: Gateway) -> None:
    tags = f"{local(gateway)['url']}/api/tags"
    before = httpx.get(tags, trust_env=False).json()

    for path in ("create", "pull", "push", "delete", "copy", "blobs/sha256:00"):
        for method in ("POST", "DELETE", "HEAD", "PUT"):
            body = {"model": "smollm2:135m", "source": "smollm2:135m", "destination": "other", "from": "smollm2:135m"}
            reply = httpx.request(method, f"{gateway.url}/api/{path}", json=body, trust_env=False)
            assert reply.status_code in (404, 405, 501), (method, path)

    assert httpx.get(tags, trust_env=False).json() == before


def test_a_daemon_of_ours_listens_where_we_say_and_nowhere_else() -> None:
    config = OllamaConfig(kind="ollama", managed=True, env={"OLLAMA_HOST": "0.0.0.0", "OLLAMA_DEBUG": "1"})

    launch = Ollama("ollama", config).launch(4711, (), "")
    env = environment(config, 4711, ("0", "1"), {"PATH": "/bin"})

    assert launch is not None
    assert launch.argv == ("ollama", "serve")
    assert env == {
        "PATH": "/bin",
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_DEBUG": "1",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "OLLAMA_HOST": "127.0.0.1:4711",
    }
    endpoint = Ollama("ollama", config).endpoint(1, 4711, "")
    assert (endpoint.address, endpoint.is_ours) == ("http://127.0.0.1:4711", True)


def test_somebody_elses_daemon_is_not_started() -> None:
    assert Ollama("ollama", OllamaConfig(kind="ollama")).launch(1, (), "") is None


def test_settings_of_a_daemon_of_ours_need_that_it_is_ours() -> None:
    for given in ({"start": "demand"}, {"command": "ollama"}, {"memory_gb": 4}, {"models_folder": "/x"}):
        with pytest.raises(ValueError, match="add `managed: true`"):
            OllamaConfig.model_validate({"kind": "ollama", **given})
        assert OllamaConfig.model_validate({"kind": "ollama", "managed": True, **given}).as_managed() is not None


def test_why_it_ended_is_one_sentence() -> None:
    assert explain(1, ["Error: listen tcp: bind: address already in use"]) == "its port is taken by another program"
    assert explain(3, []) == "it exited with code 3"
