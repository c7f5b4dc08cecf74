"""Which engine serves which arguments, and what is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from app.llamafactory.arguments import Arguments, BadArguments
from app.llamafactory.engine_choice import FineTune, choose

VLLM = ("/opt/vllm/bin/vllm",)
PLAIN = FineTune()
REWARD = FineTune(config={"architectures": ["Qwen2ForSequenceClassification"]})


def arguments(**values: Any) -> Arguments:
    return Arguments({"model_name_or_path": "/m", **values})


def refusal(model: FineTune = PLAIN, vllm: tuple[str, ...] | None = VLLM, **values: Any) -> str:
    with pytest.raises(BadArguments) as caught:
        choose(arguments(**values), model, vllm)
    assert len(caught.value.errors) == 1
    return caught.value.errors[0]


@pytest.mark.parametrize("wanted", ["huggingface", "vllm", "sglang"])
def test_vllm_serves_what_others_would_have_served(wanted: str) -> None:
    choice = choose(arguments(infer_backend=wanted), FineTune(), VLLM)

    assert (choice.kind, choice.command) == ("vllm", VLLM)
    assert choice.notes == (() if wanted == "vllm" else (f"--infer_backend {wanted}: served by vLLM",))


@pytest.mark.parametrize("wanted", ["huggingface", "vllm", "sglang"])
def test_without_vllm_the_way_out_is_named(wanted: str) -> None:
    told = refusal(vllm=None, infer_backend=wanted)

    assert "vLLM was not found" in told
    assert all(word in told for word in ("--vllm-command", "MODELPORT_VLLM", "--infer_backend llama_cpp"))


def test_the_embedded_engine_needs_no_vllm() -> None:
    choice = choose(arguments(infer_backend="llama_cpp", adapter_name_or_path="/a"), FineTune(), None)

    assert (choice.kind, choice.outtype, choice.merges) == ("llama_cpp", "q8_0", True)


def test_a_gguf_file_is_served_by_the_embedded_engine_unless_another_is_named() -> None:
    assert choose(arguments(), FineTune(is_gguf=True), VLLM).kind == "llama_cpp"
    assert "--infer_backend llama_cpp serves it" in refusal(FineTune(is_gguf=True), infer_backend="vllm")


@pytest.mark.parametrize(
    ("bits", "outtype", "made"),
    [(None, None, "q8_0"), (4, None, "q4_k_m"), (8, None, "q8_0"), (4, "BF16", "bf16"), (None, "q4_K_M", "q4_k_m")],
)
def test_bits_become_the_type_of_the_file(bits: int | None, outtype: str | None, made: str) -> None:
    given = arguments(infer_backend="llama_cpp", quantization_bit=bits)

    assert choose(given, FineTune(), None, outtype=outtype).outtype == made


def test_one_adapter_is_loaded_and_several_are_merged() -> None:
    assert not choose(arguments(adapter_name_or_path="/a"), FineTune(), VLLM).merges
    assert choose(arguments(adapter_name_or_path="/a, /b"), FineTune(), VLLM).merges


def test_other_stages_write_text_and_it_is_said() -> None:
    assert choose(arguments(stage="dpo"), FineTune(), VLLM).notes[0].startswith("--stage dpo: the model is served as")


def test_a_reward_model_is_one_that_vllm_knows() -> None:
    assert choose(arguments(stage="rm"), REWARD, VLLM).task == "classify"
    assert "is not a reward model that vLLM knows" in refusal(stage="rm")
    assert "the embedded engine has no reward models" in refusal(REWARD, stage="rm", infer_backend="llama_cpp")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"quantization_bit": 4}, "--quantization_bit: vLLM does not quantise while it loads"),
        ({"quantization_bit": 3, "infer_backend": "llama_cpp"}, "--quantization_bit: 4 and 8 are possible"),
        ({"rope_scaling": "yarn"}, "--rope_scaling: write it into the model's config.json"),
        (
            {"adapter_name_or_path": "/a", "finetuning_type": "full"},
            "--adapter_name_or_path: --finetuning_type full has no adapters",
        ),
    ],
)
def test_what_no_engine_can_do_is_refused(values: dict[str, Any], sentence: str) -> None:
    assert refusal(**values).startswith(sentence)


def test_what_is_not_here_cannot_be_converted_and_a_file_cannot_be_merged_with() -> None:
    assert "is not on this machine" in refusal(FineTune(is_here=False), infer_backend="llama_cpp")
    assert "adapters are merged before" in refusal(FineTune(is_gguf=True), adapter_name_or_path="/a")
