"""What `modelport plan` says: tables, and the command itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.supervisor.forecast import SMALL_SHM_BYTES, Entry, forecast
from app.supervisor.placement import Gpu, Machine, Place
from backends.base import Need
from backends.config import LlamaCppConfig, RemoteConfig
from backends.footprint import measured, weights_gb
from tests.cli import run

TWO = Machine(64.0, (Gpu("GPU-a", 0, 80), Gpu("GPU-b", 1, 80)))
PARALLEL = Entry("tp", Need(1, gpus=2), workers=2)

FORECASTS: dict[str, tuple[Machine, Sequence[Entry], Sequence[tuple[Place | None, bool, Sequence[str]]]]] = {
    "all fit": (Machine(2), [Entry("a", Need(1)), Entry("b", Need(1))], [(Place(1), True, []), (Place(1), True, [])]),
    "what boots comes first": (
        Machine(1),
        [Entry("a", Need(1), starts_at_boot=False), Entry("b", Need(1))],
        [(None, True, ["no room beside b: they take turns"]), (Place(1), True, [])],
    ),
    "never": (Machine(1), [Entry("a", Need(2))], [(None, False, ["it never fits", "raise server.memory_gb"])]),
    "not counted": (Machine(1), [Entry("a", Need())], [(Place(), True, ["set memory_gb"])]),
    "it took more": (
        Machine(4),
        [Entry("a", Need(1), measured_gb=2.5)],
        [(Place(1), True, ["it took 2.5 GB: raise its memory_gb (1)"])],
    ),
    "too many GPUs": (TWO, [Entry("a", Need(1, gpus=4))], [(None, False, ["it needs 4 GPUs", "tensor_parallel_size"])]),
    "a GPU in turn": (
        TWO,
        [PARALLEL, Entry("one", Need(1, gpus=1, share=0.5))],
        [
            (Place(1, ("GPU-a", "GPU-b"), 1.0), True, []),
            (None, True, ["no room beside tp", "gpu_memory_utilization"]),
        ],
    ),
}


@pytest.mark.parametrize("name", FORECASTS)
def test_everything_configured_gets_a_seat_or_advice(name: str) -> None:
    machine, entries, expected = FORECASTS[name]

    seats = forecast(entries, machine, None)

    for seat, (place, is_possible, notes) in zip(seats, expected, strict=True):
        assert (seat.place, seat.is_possible) == (place, is_possible)
        assert bool(seat.notes) is bool(notes)
        assert all(note in " ".join(seat.notes) for note in notes)


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
    [seat] = forecast([entry], TWO, shm_bytes)

    assert seat.is_possible is is_possible
    assert is_possible or "--shm-size=" in seat.notes[0]


def test_an_engines_own_words_are_read() -> None:
    lines = [
        "INFO [gpu_model_runner.py] Model loading took 14.25 GiB and 3.1 seconds",
        "INFO [gpu_worker.py] Available KV cache memory: 50.00 GiB",
        "INFO [kv_cache_utils.py] GPU KV cache size: 936,224 tokens",
    ]

    found = measured([], lines)

    assert (found.weights_gb, found.kv_gb, found.kv_tokens) == (15.301, 53.687, 936224)
    assert found.resident_gb is None
    assert measured([], []).weights_gb is None


def test_weights_are_known_from_the_files_that_are_here(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(996))

    assert weights_gb(LlamaCppConfig(kind="llama_cpp", model=str(tmp_path / "m.gguf"))) == 1e-6
    assert weights_gb(LlamaCppConfig(kind="llama_cpp", model=str(tmp_path / "none.gguf"))) is None
    assert weights_gb(RemoteConfig(kind="remote", url="http://127.0.0.1:1/v1")) is None


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
    assert [line.split()[:2] for line in ended.out.splitlines()[3:]] == [["a", "yes"], ["b", "in"], ["c", "yes"]]
    assert ended.err.startswith("b: no room beside a: they take turns")


def test_what_can_never_start_is_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "modelport.yaml").write_text(CONFIG.replace("SIZE", "3"))

    ended = run(tmp_path, "plan", "--json")

    assert ended.code == 1
    seats = json.loads(ended.out)["seats"]
    assert [seat["is_possible"] for seat in seats] == [True, True, False]
