"""vLLM's argument list, with a row for every setting, and its whole environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from backends.config.base import ManagedConfig
from backends.vllm.argv import PORT_STRIDE, argv, environment, first_port, lora_rank
from backends.vllm.config import VllmConfig

MODEL = "org/model"


def config(**values: object) -> VllmConfig:
    return VllmConfig.model_validate({"kind": "vllm", "model": MODEL, **values})


def test_the_command_line_says_what_the_configuration_says() -> None:
    assert argv(config(), "gpu", 4711, drain_s=29.5) == [
        *("vllm", "serve", MODEL, "--host=127.0.0.1", "--port=4711", "--served-model-name=gpu"),
        *("--shutdown-timeout=30", "--no-enable-log-requests", "--disable-uvicorn-access-log"),
    ]


FLAGS: dict[str, tuple[object, list[str]]] = {
    "revision": ("main", ["--revision=main"]),
    "dtype": ("float16", ["--dtype=float16"]),
    "quantization": ("awq", ["--quantization=awq"]),
    "tensor_parallel_size": (2, ["--tensor-parallel-size=2"]),
    "pipeline_parallel_size": (2, ["--pipeline-parallel-size=2"]),
    "data_parallel_size": (2, ["--data-parallel-size=2"]),
    "distributed_executor_backend": ("ray", ["--distributed-executor-backend=ray"]),
    "nnodes": (2, ["--nnodes=2"]),
    "node_rank": (1, ["--node-rank=1", "--headless"]),
    "master_addr": ("10.0.0.1", ["--master-addr=10.0.0.1"]),
    "max_model_len": (4096, ["--max-model-len=4096"]),
    "max_num_seqs": (8, ["--max-num-seqs=8"]),
    "gpu_memory_utilization": (0.5, ["--gpu-memory-utilization=0.5"]),
    "kv_cache_memory_bytes": (1024, ["--kv-cache-memory-bytes=1024"]),
    "enforce_eager": (True, ["--enforce-eager"]),
    "chat_template": ("/t.jinja", ["--chat-template=/t.jinja"]),
    "tool_call_parser": ("hermes", ["--tool-call-parser=hermes", "--enable-auto-tool-choice"]),
    "reasoning_parser": ("qwen3", ["--reasoning-parser=qwen3"]),
    "override_generation_config": ({"temperature": 0.5}, ['--override-generation-config={"temperature": 0.5}']),
    "seed": (7, ["--seed=7"]),
    "trust_remote_code": (True, ["--trust-remote-code"]),
    "allowed_media_domains": (["a.example", "b.example"], ["--allowed-media-domains", "a.example", "b.example"]),
    "task": ("embed", ["--runner=pooling", "--convert=embed"]),
    "adapters": ({"law": "/l", "med": "/m"}, ["--enable-lora", "--max-loras=2", "--max-lora-rank=16"]),
    "enable_lora": (True, ["--enable-lora", "--max-loras=1", "--max-lora-rank=16"]),
    "sleep": (1, ["--enable-sleep-mode"]),
    "warm_up_logprobs": (False, []),
    "args": (["--swap-space", "0"], ["--swap-space", "0"]),
}


@pytest.mark.parametrize("field", FLAGS)
def test_a_setting_adds_its_flags_and_nothing_else(field: str) -> None:
    value, flags = FLAGS[field]

    without = argv(config(), "gpu", 1, has_gpus=True)
    line = argv(config(**{field: value}), "gpu", 1, has_gpus=True)

    assert sorted(line) == sorted([*without, *flags])


def test_on_a_cpu_the_last_slot_for_adapters_stays_empty_also_when_some_join() -> None:
    line = argv(config(adapters={"law": "/l", "med": "/m"}), "cpu", 1, has_gpus=False)

    assert "--max-loras=6" in line


def test_every_setting_of_vllm_has_a_row_above() -> None:
    ours = {*VllmConfig.model_fields} - {*ManagedConfig.model_fields, "kind", "model", "command"}

    assert ours == set(FLAGS)


def test_the_last_word_is_the_operators() -> None:
    assert argv(config(args="--max-model-len 9"), "gpu", 1)[-2:] == ["--max-model-len", "9"]


@pytest.mark.parametrize(
    ("command", "called"),
    [
        ("vllm", ["vllm", "serve", MODEL]),
        ("/opt/vllm/bin/vllm", ["/opt/vllm/bin/vllm", "serve", MODEL]),
        (["docker-run", "vllm", "serve"], ["docker-run", "vllm", "serve", MODEL]),
        (
            "python -m vllm.entrypoints.openai.api_server",
            ["python", "-m", "vllm.entrypoints.openai.api_server", f"--model={MODEL}"],
        ),
    ],
)
def test_the_command_is_a_path_a_line_or_a_list(command: object, called: list[str]) -> None:
    assert argv(config(command=command), "gpu", 1)[: len(called)] == called


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(ValidationError, match="command"):
        config(command="")


@pytest.mark.parametrize(("ranks", "flag"), [((), 16), ((4, 8), 16), ((17,), 32), ((64, 8), 64), ((600,), 512)])
def test_the_largest_adapter_decides_the_rank(ranks: tuple[int, ...], flag: int) -> None:
    assert f"--max-lora-rank={flag}" in argv(config(enable_lora=True), "gpu", 1, lora_ranks=ranks)


@pytest.mark.parametrize(
    ("args", "rank"),
    [
        ("", 16),
        ("--max-lora-rank=64", 64),
        ("--max_lora_rank 128", 128),
        ("--max-lora-rank 8 --max-lora-rank=32", 32),
        ("--max-lora-rank", 16),
        ("--max-lora-rank=x", 16),
    ],
)
def test_the_highest_rank_that_it_takes_is_read_from_its_arguments(args: str, rank: int) -> None:
    assert lora_rank(argv(config(enable_lora=True, args=args), "gpu", 1)) == rank
    assert lora_rank(argv(config(), "gpu", 1)) is None


@pytest.mark.parametrize("off", ["off", False])
def test_an_adapter_may_be_more_than_its_folder(off: object) -> None:
    """YAML reads `off` as false."""
    adapters = {"law": "/law", "plain": {"path": "/plain"}, "test": {"path": "/test", "proof": off}}

    entry = config(adapters=adapters)

    assert entry.adapter_paths() == {"law": "/law", "plain": "/plain", "test": "/test"}
    assert set(entry.unproved_adapters()) == {"test"}
    assert config().unproved_adapters() == set()


@pytest.mark.parametrize(
    "wrong", [{"proof": "off"}, {"path": ""}, {"path": "/a", "proof": "maybe"}, {"path": "/a", "x": 1}]
)
def test_an_adapter_that_is_written_wrongly_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="adapters"):
        config(adapters={"law": wrong})


def test_sleep_needs_no_flag_without_a_gpu() -> None:
    assert "--enable-sleep-mode" not in argv(config(sleep=1), "gpu", 1, has_gpus=False)


def env(values: Mapping[str, object], inherited: Mapping[str, str] | None = None, **more: Any) -> dict[str, str]:
    return environment(config(**values), inherited or {}, key="k", first_port=20_000, **more)


ON_ONE_MACHINE = {
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}


def test_its_environment_holds_the_key_and_keeps_it_to_this_machine() -> None:
    assert env({}, {"PATH": "/bin", "VLLM_USE_V2": "1"}) == {
        "PATH": "/bin",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_PORT": "20000",
        "SPT_NOENV": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "VLLM_API_KEY": "k",
        **ON_ONE_MACHINE,
    }


ENVIRONMENTS: dict[str, tuple[dict[str, object], dict[str, Any], dict[str, str]]] = {
    "a folder": ({}, {"is_local": True}, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}),
    "GPUs": (
        {},
        {"devices": ("GPU-a", "GPU-b")},
        {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    ),
    "sleep": ({"sleep": 2}, {}, {"VLLM_SERVER_DEV_MODE": "1"}),
    "adapters": ({"enable_lora": True}, {}, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}),
    "the operator's": ({"env": {"VLLM_X": "1", "VLLM_HOST_IP": "h"}}, {}, {"VLLM_X": "1", "VLLM_HOST_IP": "h"}),
    "never another key": ({"env": {"VLLM_API_KEY": "mine"}}, {}, {}),
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_what_is_asked_for_adds_its_variables_and_nothing_else(case: str) -> None:
    values, more, added = ENVIRONMENTS[case]

    assert env(values, **more) == {**env({}), **added}


@pytest.mark.parametrize("values", [{"nnodes": 2}, {"distributed_executor_backend": "ray"}])
def test_with_several_machines_it_is_not_kept_to_this_one(values: dict[str, object]) -> None:
    assert not ON_ONE_MACHINE.keys() & env(values).keys()


def test_engines_have_blocks_of_ports_of_their_own() -> None:
    mine = first_port("gpu", lambda port: True)

    assert mine == first_port("gpu", lambda port: True)
    assert mine != first_port("other", lambda port: True)
    assert abs(first_port("gpu", lambda port: port != mine) - mine) >= PORT_STRIDE
    assert first_port("gpu", lambda port: False) == mine


def test_it_needs_a_gpu_for_each_worker_unless_ray_places_them() -> None:
    assert config().need().gpus == 1
    assert config(tensor_parallel_size=2, pipeline_parallel_size=2).need().gpus == 4
    assert config(tensor_parallel_size=8, pipeline_parallel_size=2, nnodes=2).need().gpus == 8
    assert config(tensor_parallel_size=8, distributed_executor_backend="ray").need().gpus == 0
    assert config(gpu_memory_utilization=0.4).need().share == 0.4
    assert config(devices=[3]).need().named == ("3",)
    assert config(devices=[3], tensor_parallel_size=2).need().gpus == 2
