"""Adapters on a real vLLM: those with a fault are named before their name is public, sound ones are never accused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import MODELS, START_S, Live, Record, backend, config
from tests.rigs.adapter_folder import adapter, huge, planted

SENTENCES = {
    "foreign_path": "has 4 of 4 modules that the base does not have, such as 'transformer.h.0.self_attn.q_proj'",
    "layers_beyond": "has weights for the layer 100",
    "zeros": "changes nothing: its weights are all zero",
    "nan": "has numbers that are not finite (NaN or infinity, in 'base_model.model.model.layers.0",
    "half_file": "is broken: adapter_model.safetensors is cut off",
    "other_base": "was trained on another model: its weights for 'model.layers.0.self_attn.q_proj' go from 256",
    "rank": "has the rank 64, and the engine was started for at most 16",
    "modules_to_save": "trained whole layers besides (`modules_to_save`: lm_head), which vLLM leaves out: merge it",
    "dora": "is a DoRA, which vLLM does not compute: merge it",
    "below_rounding": "is loaded, but it does nothing: it answers as the base does",
}


@pytest.fixture(scope="module")
def taking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One engine that takes adapters and has none."""
    folder: Path = tmp_path_factory.mktemp("proof")
    with Live(folder, config(backend("tiny", enable_lora="true"))) as gateway:
        gateway.ready("tiny")
        yield gateway


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return planted(tmp_path_factory.mktemp("faulty"), MODELS / "tiny")


def chat(gateway: Live, model: str) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
    reply = gateway.post("/v1/chat/completions", body)
    return reply.status_code, reply.json()["choices"][0]["message"]["content"] if reply.is_success else reply.text


def load(gateway: Live, name: str, folder: Path, **more: str) -> httpx.Response:
    return gateway.post("/admin/backends/tiny/adapters/load", {"name": name, "path": str(folder), **more})


def unload(gateway: Live, name: str) -> None:
    reply = httpx.post(f"{gateway.url}/admin/backends/tiny/adapters/unload?adapter={name}", timeout=120)
    assert reply.is_success, reply.text


def of(reply: httpx.Response, name: str) -> Any:
    assert reply.is_success, reply.text
    return next(each for each in reply.json()["adapters"] if each["name"] == name)


@pytest.mark.parametrize("fault", SENTENCES)
def test_each_fault_is_named_before_the_name_is_public(
    taking: Live, faulty: Mapping[str, Path], fault: str, record_property: Record
) -> None:
    before = chat(taking, "tiny")
    began = time.monotonic()

    refused = load(taking, fault, faulty[fault])

    record_property(f"{fault} named after", f"{time.monotonic() - began:.2f} s")
    assert refused.status_code == 422
    assert SENTENCES[fault] in refused.json()["error"]["message"]
    assert chat(taking, fault)[0] == 404
    assert chat(taking, "tiny") == before
    assert taking.backend("tiny")["generation"] == 1


def test_what_does_nothing_is_found_out_by_its_answers_too(taking: Live, tmp_path: Path) -> None:
    """Files cannot tell it: here a path that is a part of the base's and that vLLM does not follow."""

    def hidden(tensors: Any, said: Any) -> None:
        moved = {name.replace(".model.layers.", ".language_model.layers."): each for name, each in tensors.items()}
        tensors.clear()
        tensors.update(moved)

    folder = adapter(tmp_path / "hidden", MODELS / "tiny", hidden)

    refused = load(taking, "hidden", folder)

    assert refused.status_code == 422
    assert "is loaded, but it does nothing: it answers as the base does" in refused.json()["error"]["message"]
    assert of(load(taking, "hidden", folder, proof="off"), "hidden")["proof"]["verdict"] == "off"
    unload(taking, "hidden")


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.full)])
def test_sound_adapters_are_proved_in_less_than_a_second(
    taking: Live, tmp_path: Path, count: int, record_property: Record
) -> None:
    base, took = chat(taking, "tiny"), []
    for seed in range(count):
        folder = adapter(tmp_path / str(seed), MODELS / "tiny", seed=seed, scale=0.01 + 0.01 * seed)
        proof = of(load(taking, "sound", folder), "sound")["proof"]
        took.append(proof["seconds"])
        assert (proof["verdict"], proof["effect"] > proof["noise"]) == ("proved", True)
        unload(taking, "sound")

    record_property(f"{count} sound adapters proved", f"{min(took):.2f} to {max(took):.2f} s each")
    assert chat(taking, "tiny") == base


def test_a_folder_with_other_weights_answers_with_them(taking: Live, tmp_path: Path) -> None:
    """vLLM would go on with what it has computed with the weights before, under the same name and path."""
    prompt = "one two three four five six seven eight nine ten " * 20
    body = {"prompt": prompt, "max_tokens": 1, "logprobs": 1, "temperature": 0}
    folder = tmp_path / "law"

    def answer(name: str) -> Any:
        return taking.post("/v1/completions", {"model": name, **body}).json()["choices"][0]["logprobs"][
            "token_logprobs"
        ]

    adapter(folder, MODELS / "tiny", seed=1)
    load(taking, "law", folder)
    first = answer("law")
    adapter(folder, MODELS / "tiny", seed=2)
    assert of(load(taking, "law", folder), "law")["proof"]["verdict"] == "proved"
    second = answer("law")
    load(taking, "fresh", adapter(tmp_path / "fresh", MODELS / "tiny", seed=2))

    assert second == answer("fresh")
    assert second != first
    for name in ("law", "fresh"):
        unload(taking, name)


def test_one_that_answers_no_numbers_costs_one_start_and_the_base_is_sound_again(
    taking: Live, tmp_path: Path, record_property: Record
) -> None:
    """Its numbers are finite; what is computed with them is not."""
    before = chat(taking, "tiny")
    began = time.monotonic()

    refused = load(taking, "huge", adapter(tmp_path / "huge", MODELS / "tiny", huge))

    assert refused.status_code == 422
    assert "the adapter 'huge' answers no numbers (NaN or infinity)" in refused.json()["error"]["message"]
    until(lambda: bool(taking.backend("tiny")["generation"] == 2), START_S)
    taking.ready("tiny", 2)
    record_property("sound again after a NaN", f"{time.monotonic() - began:.0f} s")
    assert chat(taking, "tiny") == before
    assert chat(taking, "huge")[0] == 404
    assert of(load(taking, "real", MODELS / "tiny-lora"), "real")["proof"]["verdict"] == "proved"
