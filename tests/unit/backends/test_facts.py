"""Facts of models, from what engines report."""

from __future__ import annotations

from typing import Any

import pytest

from backends.endpoint import DECLARED, FAILED, ModelFacts
from backends.llama_cpp.facts import of_llama_cpp
from backends.ollama.config import OllamaConfig
from backends.ollama.facts import of_abilities, shown
from backends.remote.facts import of_remote
from backends.vllm.config import VllmConfig
from backends.vllm.facts import of_vllm, quantization_in

TEXT = {"chat": DECLARED, "completion": DECLARED, "json_schema": DECLARED, "logprobs": DECLARED}
# The embedded engine with the demo model; what is not read is left out.
PROPS: dict[str, Any] = {
    "default_generation_settings": {"n_ctx": 8192, "params": {}},
    "model_ftype": "Q4_1",
    "modalities": {"vision": False, "audio": False},
    "chat_template_caps": {"supports_tools": False, "supports_system_role": True},
}


def test_the_embedded_engine_says_what_its_model_can_and_what_not() -> None:
    assert of_llama_cpp(PROPS, embeds=False) == ModelFacts(
        context_length=8192, capabilities={**TEXT, "vision": FAILED, "tools": FAILED}, quantization="Q4_1"
    )
    seeing = {**PROPS, "modalities": {"vision": True}, "chat_template_caps": {"supports_tools": True}}
    assert of_llama_cpp(seeing, embeds=False) == ModelFacts(
        context_length=8192, capabilities={**TEXT, "vision": DECLARED, "tools": DECLARED}, quantization="Q4_1"
    )


def test_a_model_for_embeddings_is_no_more_than_that() -> None:
    facts = of_llama_cpp({**PROPS, "modalities": {}}, embeds=True)

    assert facts is not None
    assert facts.capabilities == {"embedding": DECLARED}


@pytest.mark.parametrize("props", [None, [], "x", 7])
def test_what_is_no_answer_says_nothing(props: object) -> None:
    assert of_llama_cpp(props, embeds=False) is None
    assert of_remote(props) == {}
    assert of_vllm(vllm(), props, None) == {}
    assert quantization_in(props) is None


@pytest.mark.parametrize("broken", [{}, {"default_generation_settings": {"n_ctx": 0}, "model_ftype": 7}])
def test_what_an_engine_does_not_say_is_not_known(broken: dict[str, Any]) -> None:
    assert of_llama_cpp(broken, embeds=False) == ModelFacts(capabilities=TEXT)


def vllm(**settings: object) -> VllmConfig:
    return VllmConfig.model_validate({"kind": "vllm", "model": "org/model", **settings})


LISTED = {
    "data": [
        {"id": "demo", "owned_by": "vllm", "max_model_len": 512},
        {"id": "law", "owned_by": "vllm", "parent": "demo", "max_model_len": None},
        {"no": "id"},
    ]
}


def test_vllm_reports_its_length_and_its_configuration_the_rest_also_for_adapters() -> None:
    facts = of_vllm(vllm(tool_call_parser="hermes", reasoning_parser="qwen3"), LISTED, "awq")

    one = ModelFacts(
        context_length=512,
        capabilities={**TEXT, "tools": DECLARED, "reasoning": DECLARED},
        quantization="awq",
    )
    assert facts == {"demo": one, "law": one}


@pytest.mark.parametrize(
    ("task", "expected"), [("generate", TEXT), ("embed", {"embedding": DECLARED}), ("classify", {})]
)
def test_vllm_does_what_its_task_is(task: str, expected: dict[str, str]) -> None:
    facts = of_vllm(vllm(task=task, quantization="fp8"), LISTED, None)["demo"]

    assert (facts.capabilities, facts.quantization) == (expected, "fp8")


def test_of_a_remote_engine_counts_what_its_list_says() -> None:
    listed = {
        "data": [
            {"id": "plain"},
            {"id": "vllm", "max_model_len": 4096},
            {
                "id": "modelport",
                "context_length": 8192,
                "max_model_len": 1,
                "capabilities": {"chat": "verified", "tools": "failed", "magic": "verified", "vision": "perhaps"},
                "quantization": "Q4_1",
            },
            {"id": "odd", "context_length": True, "capabilities": ["chat"]},
        ]
    }

    assert of_remote(listed) == {
        "vllm": ModelFacts(context_length=4096),
        "modelport": ModelFacts(
            context_length=8192, capabilities={"chat": DECLARED, "tools": FAILED}, quantization="Q4_1"
        ),
    }


def test_ollamas_words_are_understood_and_its_context_is_the_one_it_is_asked_for() -> None:
    assert of_abilities(("completion", "thinking", "insert")) == dict.fromkeys(
        ("chat", "completion", "json_schema", "reasoning"), DECLARED
    )
    show = {
        "capabilities": ["embedding"],
        "details": {"quantization_level": "F16"},
        "model_info": {"x.context_length": 512},
    }
    facts = shown(OllamaConfig(kind="ollama"), "m", show)

    assert facts is not None
    assert (facts.num_ctx, facts.context_length, facts.quantization) == (512, 512, "F16")
    assert facts.capabilities == {"embedding": DECLARED}


def test_a_models_folder_says_how_its_weights_are_packed() -> None:
    assert quantization_in({"quantization_config": {"quant_method": "gptq"}}) == "gptq"
    assert quantization_in({"quantization_config": {"quant_method": 4}}) is None


@pytest.mark.parametrize(
    ("version", "settings", "is_asked"),
    [
        ("0.32.0+cpu", {"enable_lora": True}, False),
        ("0.32.1+cpu", {"adapters": {"a": "/a"}}, False),
        ("0.32.0+cpu", {}, True),
        ("0.32.0", {"enable_lora": True}, True),
        ("0.33.0+cpu", {"enable_lora": True}, True),
        (None, {"enable_lora": True}, True),
    ],
)
def test_only_a_vllm_that_dies_of_it_is_not_asked_how_likely_a_prompt_is(
    version: str | None, settings: dict[str, Any], is_asked: bool
) -> None:
    facts = of_vllm(vllm(**settings), LISTED, None, version)["demo"]

    assert (facts.no_prompt_logprobs == "") == is_asked
