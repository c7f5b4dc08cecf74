"""Settings of an engine that cannot be meant together, as `modelport check` says them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from app.config.model import AnyBackend
from app.supervisor.replicas import replicas
from backends.config.base import BackendConfig
from backends.config.checks import contradictions
from tests.rigs.cli import run


def config(kind: str = "vllm", **settings: object) -> BackendConfig:
    return read({"kind": kind, "model": "m", **settings})


def read(section: dict[str, object]) -> BackendConfig:
    adapter: TypeAdapter[BackendConfig] = TypeAdapter(AnyBackend)
    return adapter.validate_python(section)


REFUSED: dict[str, tuple[BackendConfig, str, str]] = {
    "one GPU for tensor parallel": (
        config(tensor_parallel_size=2, devices=[0]),
        "devices",
        "names 1 GPU, and tensor_parallel_size 2 needs 2 on this machine: name 2, or write auto, or set "
        "tensor_parallel_size to 1",
    ),
    "three for a product of four": (
        config(tensor_parallel_size=2, pipeline_parallel_size=2, devices=[0, 1, 2]),
        "devices",
        "names 3 GPUs, and tensor_parallel_size 2 × pipeline_parallel_size 2 needs 4 on this machine: name 4, or write "
        "auto",
    ),
    "data parallel counts too": (
        config(data_parallel_size=2, devices=["GPU-a"]),
        "devices",
        "names 1 GPU, and data_parallel_size 2 needs 2 on this machine: name 2, or write auto",
    ),
    "more GPUs than it uses": (
        config(devices=[0, 1]),
        "devices",
        "names 2 GPUs, and it runs on 1: name 1, or write auto, or set tensor_parallel_size to 2",
    ),
    "the part of two machines": (
        config(tensor_parallel_size=4, nnodes=2, devices=[0]),
        "devices",
        "names 1 GPU, and tensor_parallel_size 4 needs 2 on this machine: name 2, or write auto",
    ),
    "workers that do not divide": (
        config(tensor_parallel_size=3, nnodes=2),
        "nnodes",
        "3 workers cannot be spread evenly over 2 machines",
    ),
    "twice the same": (config(tensor_parallel_size=2, devices=[1, 1]), "devices", "names 1 twice"),
    "none": (config(devices=[]), "devices", "is empty: name a GPU, or write auto"),
    "tensor parallel over MIG": (
        config(tensor_parallel_size=2, devices=["MIG-a", "MIG-b"]),
        "devices",
        "a MIG device serves one engine alone, without tensor parallel: name one for each engine",
    ),
    "tensor parallel on one MIG device": (
        config(tensor_parallel_size=2, devices=["MIG-a"]),
        "devices",
        "a MIG device serves one engine alone, without tensor parallel: name one for each engine",
    ),
    "a MIG device and a GPU": (
        config(devices=["MIG-a", 0]),
        "devices",
        "a MIG device serves one engine alone, without tensor parallel: name one for each engine",
    ),
    "replicas on one MIG device": (
        config(replicas=2, devices=["MIG-a"], gpu_memory_utilization=0.4),
        "devices",
        "names 1 GPU, where 2 replicas do not fit together: name 2",
    ),
    "replicas with too few": (
        config(replicas=3, devices=[0, 1]),
        "devices",
        "names 2 GPUs, and each of its 3 replicas needs 1: name 3, or write auto",
    ),
    "replicas on one whole GPU": (
        config(replicas=2, devices=[0], gpu_memory_utilization=0.6),
        "devices",
        "names 1 GPU, where 2 replicas do not fit together: name 2, or set gpu_memory_utilization to 0.5 or less",
    ),
    "llama.cpp on one GPU for two": (
        config("llama_cpp", replicas=2, devices=[0]),
        "devices",
        "names 1 GPU, and each of its 2 replicas needs 1: name 2, or write auto",
    ),
    "a flag past its setting": (
        config(args="--max-log-len 1 --tensor_parallel_size=2"),
        "args",
        "--tensor_parallel_size is the setting `tensor_parallel_size`: write it there, so that the engine gets its "
        "GPUs",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_cannot_be_meant_together_are_refused_with_what_to_change(name: str) -> None:
    wrong, key, sentence = REFUSED[name]

    assert list(contradictions(wrong)) == [(key, sentence)]


@pytest.mark.parametrize(
    "right",
    [
        config(),
        config(tensor_parallel_size=2),
        config(tensor_parallel_size=2, devices=[0, "GPU-b"]),
        config(replicas=2, tensor_parallel_size=2, devices=[0, 1, 2, 3]),
        config(replicas=2, devices=[0], gpu_memory_utilization=0.5),
        config(replicas=2, devices=["MIG-a", "MIG-b"]),
        config(devices=["MIG-a"]),
        config(tensor_parallel_size=8, distributed_executor_backend="ray", nnodes=3),
        config("llama_cpp", devices=[0, 1]),
        read({"kind": "remote", "url": "http://127.0.0.1:1/v1"}),
    ],
    ids=str,
)
def test_settings_that_fit_together_are_taken(right: BackendConfig) -> None:
    assert list(contradictions(right)) == []


def test_check_refuses_the_file_and_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(
        "backends: {gpu: {kind: vllm, model: m, tensor_parallel_size: 2, devices: [0]}}\nmodels: {m: {backend: gpu}}\n"
    )

    ended = run(tmp_path, "check")

    assert ended.code == 2
    assert "backends.gpu.devices: names 1 GPU, and tensor_parallel_size 2 needs 2" in ended.err


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        ({"replicas": 2, "devices": [0, 1]}, [(0,), (1,)]),
        ({"replicas": 2, "tensor_parallel_size": 2, "devices": [0, 1, 2, 3]}, [(0, 1), (2, 3)]),
        ({"replicas": 2, "devices": [0], "gpu_memory_utilization": 0.5}, [(0,), (0,)]),
        ({"replicas": 2}, ["auto", "auto"]),
    ],
)
def test_each_replica_has_its_own_part_of_the_devices_that_are_named(
    settings: dict[str, object], devices: list[object]
) -> None:
    expanded = replicas.expand({"m": read({"kind": "vllm", "model": "m", **settings})})

    assert [each.model_dump()["devices"] for each in expanded.values()] == devices
    assert [list(contradictions(each)) for each in expanded.values()] == [[], []]


OURS = ("--host", "--port", "--uds", "--api-key", "--served-model-name", "--headless", "--ssl-keyfile")


@pytest.mark.parametrize("flag", OURS)
@pytest.mark.parametrize(
    "spelled", [lambda flag: flag, lambda flag: flag.replace("-", "_").replace("__", "--", 1), lambda flag: flag[:-1]]
)
@pytest.mark.parametrize("words", [lambda flag: [flag, "x"], lambda flag: [f"{flag}=x"], lambda flag: f"-O3 {flag} x"])
def test_what_is_ours_is_refused_in_args_however_it_is_spelled(
    flag: str, spelled: Callable[[str], str], words: Callable[[str], object]
) -> None:
    written = spelled(flag)
    if written == "--ud":
        written = "--uds"

    [(key, said)] = contradictions(config(args=words(written)))

    assert key == "args"
    assert said.startswith(f"{written} is the gateway's own: ")


def test_what_is_ours_is_refused_behind_the_command_too() -> None:
    [(key, said)] = contradictions(config(command=["vllm", "serve", "--port", "1"]))

    assert (key, said) == (
        "command",
        "--port is the gateway's own: each start has a port of its own. Leave it out",
    )


def test_a_size_that_is_abbreviated_in_args_is_found() -> None:
    [(key, said)] = contradictions(config(args="--tensor_parallel=2"))

    assert key == "args"
    assert "is the setting `tensor_parallel_size`" in said


@pytest.mark.parametrize(
    "line", ["--h", "--hf-overrides {}", "--api-server-count 2", "-O3", "--data-parallel-size-local 1"]
)
def test_other_args_pass(line: str) -> None:
    assert list(contradictions(config(args=line))) == []
