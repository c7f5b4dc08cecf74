"""The line that users of LLaMA-Factory start their server with, over a real vLLM."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.process.guard import descendants
from tests import ROOT
from tests.journeys.gateway import QUESTION, modelport, until
from tests.live.engines import COMPILED, GONE_S, MODELS, START_S, VLLM, is_alive
from tests.rigs.program import Program

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
LINE = ["--template", "qwen", "--infer_backend", "vllm", "--vllm_enforce_eager", "--vllm_maxlen", "2048"]
# What this machine needs beside it: kernels that every processor has, and a cache that is small.
CONFIG = '{"dtype": "float32", "kv_cache_memory_bytes": 67108864}'


class Api(Program):
    """`python -m app api` on a free port, with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("API_", "MODELPORT_"))}
        env |= {"API_PORT": "0", "API_MODEL_NAME": "security", "PATH": f"{VLLM / 'bin'}:{env['PATH']}"}
        env |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        env |= {"MODELPORT_STATE": str(folder / "state"), "TORCHINDUCTOR_CACHE_DIR": str(COMPILED)}
        env["MODELPORT_TOOLS"] = os.environ.get("MODELPORT_TOOLS", str(ROOT / "build/tools"))
        words = ["--model_name_or_path", str(MODELS / "tiny"), "--adapter_name_or_path", str(MODELS / "tiny-lora")]
        super().__init__([*modelport(), "api", *words, *LINE, "--vllm_config", CONFIG], env, folder / "log")

    @property
    def url(self) -> str:
        """The URL at which it listens."""
        return self.line(r"listens on (http://\S+)")[1]

    def post(self, path: str, body: Any) -> Any:
        """What a POST gives, once it serves."""
        return httpx.post(f"{self.url}{path}", json=body, timeout=START_S)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with Api(tmp_path_factory.mktemp("llamafactory")) as program:
        until(lambda: httpx.get(f"{program.url}/readyz").is_success, START_S)
        yield program


@pytest.mark.parametrize("name", ["security", "gpt-3.5-turbo"])
def test_it_answers_under_any_name_with_the_adapter_and_the_template(api: Api, name: str) -> None:
    asked = {"model": name, "messages": QUESTION, "do_sample": False, "max_tokens": 4}
    reply = api.post("/v1/chat/completions", asked)
    adapted = api.post("/v1/chat/completions", {**asked, "model": "tiny-lora"})
    prompt = api.post("/v1/chat/completions/render", {"model": name, "messages": QUESTION}).json()["prompt"]

    assert (reply.status_code, reply.json()["model"]) == (200, name)
    assert reply.json()["choices"] == adapted.json()["choices"]
    assert prompt.startswith(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")


def test_the_listed_name_is_the_first(api: Api) -> None:
    assert httpx.get(f"{api.url}/v1/models").json()["data"][0]["id"] == "security"


def test_it_says_what_decides_answers(api: Api) -> None:
    printed = "\n".join(api.printed)

    assert "temperature 0.95, top_p 0.7, top_k 50, repetition_penalty 1, at most 1024 new tokens" in printed
    assert "context 2048 tokens" in printed
    assert "template qwen: " in printed


def test_scores_are_for_reward_models_only(api: Api) -> None:
    reply = api.post("/v1/score/evaluation", {"model": "security", "messages": ["a"]})

    assert (reply.status_code, reply.json()["detail"]) == (405, "Not allowed")


def test_ctrl_c_ends_vllm_too(api: Api) -> None:
    pids = descendants(api.process.pid)
    assert len(pids) > 3

    os.kill(api.process.pid, signal.SIGINT)

    assert api.process.wait(GONE_S) == 0
    until(lambda: not any(map(is_alive, pids)), GONE_S)
