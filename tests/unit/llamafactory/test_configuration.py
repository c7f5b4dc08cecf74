"""The configuration that serves LLaMA-Factory's arguments, and what is said of it at the start."""

from __future__ import annotations

from typing import Any

import pytest

from app.config.load import loads
from app.config.model import Config
from app.llamafactory.arguments import Arguments
from app.llamafactory.configuration import (
    ServedParts,
    ServingMachine,
    configuration,
    cpu_cache_bytes,
    engine_arguments,
)
from app.llamafactory.engine_choice import EngineChoice, FineTune, choose
from app.llamafactory.notice import notice
from app.llamafactory.yaml_text import as_yaml
from backends.llama_cpp.config import LlamaCppConfig
from backends.vllm.argv import argv
from backends.vllm.config import VllmConfig

VLLM = ("/opt/vllm/bin/vllm",)
PLAIN = FineTune()
PARTS = ServedParts("/m")
SEED = {"model_name_or_path": "/m", "template": "qwen", "infer_backend": "vllm", "vllm_enforce_eager": True}
GPU = ServingMachine({"API_MODEL_NAME": "security"}, 1)
CPU = ServingMachine({}, is_cpu_only=True)


def made(
    values: dict[str, Any],
    machine: ServingMachine = GPU,
    parts: ServedParts = PARTS,
    model: FineTune = PLAIN,
) -> tuple[dict[str, Any], Config, EngineChoice]:
    """The tree, what the file with it means, and the engine."""
    arguments = Arguments({"model_name_or_path": "/m", **values})
    choice = choose(arguments, model, VLLM)
    tree = configuration(arguments, choice, parts, model, machine)
    return tree, loads(as_yaml(tree), {}, source="made"), choice


def line(values: dict[str, Any], **others: Any) -> list[str]:
    """The words that vLLM is started with."""
    _, config, _ = made(values, **others)
    (backend,) = config.backends.values()
    assert isinstance(backend, VllmConfig)
    return argv(backend, "x", 1)


def test_the_usual_line_becomes_one_backend_one_model_and_a_default() -> None:
    tree, config, _ = made(SEED)

    assert tree == {
        "backends": {
            "security": {
                "kind": "vllm",
                "model": "/m",
                "command": ["/opt/vllm/bin/vllm"],
                "max_model_len": 4096,
                "gpu_memory_utilization": 0.7,
                "enforce_eager": True,
            }
        },
        "models": {
            "security": {
                "backend": "security",
                "defaults": {
                    "temperature": 0.95,
                    "top_p": 0.7,
                    "top_k": 50,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "max_tokens": 1024,
                },
            }
        },
        "default_model": "security",
    }
    assert config.default_model == "security"


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"vllm_maxlen": 8192}, "--max-model-len=8192"),
        ({"vllm_gpu_util": 0.5}, "--gpu-memory-utilization=0.5"),
        ({"infer_dtype": "float16"}, "--dtype=float16"),
        ({"trust_remote_code": True}, "--trust-remote-code"),
        ({"model_revision": "v2"}, "--revision=v2"),
        ({"cache_dir": "/hub"}, "--download-dir=/hub"),
        ({"infer_backend": "sglang", "sglang_maxlen": 512}, "--max-model-len=512"),
        ({"infer_backend": "sglang", "sglang_mem_fraction": 0.25}, "--gpu-memory-utilization=0.25"),
        ({"infer_backend": "sglang", "sglang_tp_size": 2}, "--tensor-parallel-size=2"),
        ({"vllm_config": {"max_model_len": 99}, "vllm_maxlen": 8192}, "--max-model-len=99"),
        ({"vllm_config": {"gpu-memory-utilization": 0.1}}, "--gpu-memory-utilization=0.1"),
        ({"vllm_config": {"enable_prefix_caching": True}}, "--enable-prefix-caching"),
        ({"vllm_config": {"async_scheduling": False}}, "--no-async-scheduling"),
        ({"vllm_config": {"hf_overrides": {"a": 1}}}, '--hf-overrides={"a": 1}'),
        ({"vllm_config": {"max_num_batched_tokens": 64}}, "--max-num-batched-tokens=64"),
    ],
)
def test_each_flag_is_what_vllm_calls_it(values: dict[str, Any], word: str) -> None:
    assert word in line(values)


def test_an_argument_with_several_values_and_what_would_log_prompts() -> None:
    settings, words = engine_arguments({"middleware": ["a", "b"], "enable_log_requests": True, "tokenizer": None})

    assert (settings, words) == ({}, ["--middleware", "a", "b"])


def test_all_visible_gpus_share_the_model() -> None:
    assert "--tensor-parallel-size=4" in line({}, machine=ServingMachine({}, 4))
    assert not any("parallel" in word for word in line({}, machine=ServingMachine({}, 1)))


def test_a_gptq_model_computes_in_float16_unless_another_type_is_named() -> None:
    model = FineTune(config={"quantization_config": {"quant_method": "gptq"}})

    assert "--dtype=float16" in line({}, model=model)
    assert "--dtype=bfloat16" in line({"infer_dtype": "bfloat16"}, model=model)


def test_the_default_length_is_not_beyond_the_models_own_and_a_named_one_is_kept() -> None:
    short = FineTune(config={"max_position_embeddings": 2048})

    assert "--max-model-len=2048" in line({}, model=short)
    assert "--max-model-len=4096" in line({"vllm_maxlen": 4096}, model=short)


def test_an_adapter_is_asked_for_by_every_request() -> None:
    parts = ServedParts("/m", adapter="/tuned/security-lora")
    tree, config, _ = made({"adapter_name_or_path": "/tuned/security-lora"}, parts=parts, model=FineTune(lora_rank=48))

    assert tree["models"]["security"]["model"] == "security-lora"
    assert tree["backends"]["security"]["adapters"] == {"security-lora": "/tuned/security-lora"}
    assert tree["backends"]["security"]["args"] == ["--max-lora-rank=64"]
    assert config.models["security"].model == "security-lora"


def test_an_adapter_that_is_called_as_the_listed_name_gets_another() -> None:
    tree, _, _ = made({"adapter_name_or_path": "/t/security"}, parts=ServedParts("/m", adapter="/t/security"))

    assert list(tree["backends"]["security"]["adapters"]) == ["security-adapter"]


@pytest.mark.parametrize(
    ("values", "defaults"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.0}),
        ({"top_p": 0.0, "top_k": 0, "repetition_penalty": 0.0}, {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}),
        ({"max_new_tokens": 16}, {"max_tokens": 16}),
    ],
)
def test_sampling_flags_are_defaults_of_the_model(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    tree, _, _ = made(values)

    assert {name: tree["models"]["security"]["defaults"][name] for name in defaults} == defaults


def test_without_a_bound_of_tokens_there_is_none() -> None:
    tree, _, _ = made({"max_new_tokens": 0})

    assert "max_tokens" not in tree["models"]["security"]["defaults"]


def test_the_embedded_engine_has_the_same_defaults_and_the_templates_stops() -> None:
    parts = ServedParts("/m.gguf", chat_template="/t.jinja", stops=("<end>",))
    tree, config, _ = made({"infer_backend": "llama_cpp"}, ServingMachine({"MAX_CONCURRENT": "2"}), parts)
    (backend,) = config.backends.values()

    assert isinstance(backend, LlamaCppConfig)
    assert (backend.model, backend.context_length, backend.slots) == ("/m.gguf", 4096, 2)
    assert backend.chat_template == "/t.jinja"
    assert list(tree["backends"]) == ["gpt-3.5-turbo"]
    assert tree["models"]["gpt-3.5-turbo"]["defaults"]["stop"] == ["<end>"]
    assert config.models["gpt-3.5-turbo"].defaults.temperature == 0.95


def test_vllm_gets_the_template_the_stop_tokens_and_the_users_own_variables() -> None:
    env = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_API_KEY": "secret", "VLLM_PORT": "1", "USE_MODELSCOPE_HUB": "1"}
    parts = ServedParts("/m", chat_template="/t.jinja", generation_config="/state/g", tool_parser="hermes")
    tree, _, _ = made({"cache_dir": "/hub"}, ServingMachine(env), parts)
    (backend,) = tree["backends"].values()

    assert (backend["chat_template"], backend["tool_call_parser"]) == ("/t.jinja", "hermes")
    assert backend["args"] == ["--generation-config=/state/g", "--download-dir=/hub"]
    assert backend["env"] == {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_CACHE": "/hub",
        "VLLM_USE_MODELSCOPE": "True",
    }


def test_a_token_of_the_hub_stays_in_the_environment() -> None:
    tree, config, _ = made({"hf_hub_token": "hf_secret"})

    assert "hf_secret" not in as_yaml(tree)
    assert tree["backends"]["security"]["env"] == {"HF_TOKEN": "${HF_TOKEN:-}"}
    assert "HF_TOKEN" in next(iter(config.backends.values())).model_dump()["env"]


def test_with_a_key_pages_of_every_origin_may_call_and_without_one_none() -> None:
    assert made({}, ServingMachine({"API_KEY": "k"}))[1].server.cors_origins == ("*",)
    assert made({}, ServingMachine({}))[1].server.cors_origins == ()


@pytest.mark.parametrize("name", ["org/security v2", "安全", "a${HOME}b"])
def test_any_listed_name_is_kept_as_it_is(name: str) -> None:
    _, config, _ = made({}, ServingMachine({"API_MODEL_NAME": name}))

    assert list(config.models) == [name]


def test_without_a_gpu_the_cache_has_room_for_eight_requests_unless_somebody_says_how_much() -> None:
    small = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}
    large = {"num_hidden_layers": 64, "num_attention_heads": 64, "head_dim": 128}

    assert "--kv-cache-memory-bytes=754974720" in line({}, machine=CPU, model=FineTune(config=small))
    assert cpu_cache_bytes(FineTune(config=large), 4096) == 64 * 64 * 128 * 2 * 2 * 4096
    assert cpu_cache_bytes(FineTune(), 4096) == 256 << 20
    for told in ({"vllm_gpu_util": 0.7}, {"vllm_config": {"kv_cache_memory_bytes": 5}}):
        assert "--kv-cache-memory-bytes=754974720" not in line(told, machine=CPU, model=FineTune(config=small))
    space = ServingMachine({"VLLM_CPU_KVCACHE_SPACE": "2"}, is_cpu_only=True)
    assert not any("kv-cache" in word for word in line({}, machine=space))


# -- what is said


def said(values: dict[str, Any], machine: ServingMachine = GPU, **others: Any) -> str:
    tree, _, choice = made(values, machine)
    arguments = Arguments({"model_name_or_path": "/m", **values}, **others)
    return "\n".join(notice(arguments, choice, PARTS, machine, tree, is_default_host=True))


def test_defaults_that_decide_answers_are_said_once() -> None:
    told = said(SEED)

    for words in ("temperature 0.95", "top_p 0.7", "top_k 50", "1024 new tokens", "context 4096", "GPU share 0.7"):
        assert told.count(words) == 1
    assert "listed as 'security'" in told
    assert "API_HOST=0.0.0.0" in told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"flash_attn": "fa2", "use_kv_cache": True}, "--flash_attn, --use_kv_cache: the engine here loads models"),
        ({"lora_rank": "8"}, "--lora_rank: it is for training"),
        ({"num_beams": 4}, "--num_beams 4: has no effect"),
        ({"length_penalty": 2.0}, "--length_penalty: has no effect"),
        ({"do_sample": False}, "--do_sample false: temperature 0"),
        ({"skip_special_tokens": False}, "--skip_special_tokens false: has no effect for all"),
        ({"max_new_tokens": 0, "max_length": 99}, "--max_length: has no effect"),
    ],
)
def test_what_has_no_effect_is_named(values: dict[str, Any], words: str) -> None:
    assert words in said(values)


def test_variables_that_mean_something_else_here_are_named() -> None:
    told = said({}, ServingMachine({"API_VERBOSE": "1", "MAX_CONCURRENT": "4", "API_KEY": "a,b"}, 1))

    assert all(f"{name}: " in told for name in ("API_VERBOSE", "MAX_CONCURRENT", "API_KEY"))
    assert "is never logged" in told


def test_names_that_were_left_out_are_said() -> None:
    assert "output_dir: none of LLaMA-Factory's flags" in said({}, ignored=("output_dir",))
