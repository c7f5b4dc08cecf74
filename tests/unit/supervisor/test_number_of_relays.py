"""How many relays `server.relays: auto` means: by cores, and by what engines keep busy of them."""

from __future__ import annotations

import pytest

from app.config.load import loads
from app.supervisor.capacity.placement import Gpu, Machine
from app.supervisor.capacity.report import MOST_AUTO, relays

CPU = Machine(memory_gb=64.0)
GPUS = Machine(memory_gb=64.0, gpus=tuple(Gpu(f"GPU-{number}", number, 80.0) for number in range(8)))
REMOTE = "kind: remote, url: http://127.0.0.1:1/v1"
VLLM = "kind: vllm, model: organisation/model"
EMBEDDED = "kind: llama_cpp, model: /models/demo.gguf"


def number(machine: Machine, cores: int, *backends: str, wanted: str = "auto") -> tuple[int, int]:
    """The number of relays, and the cores that engines keep busy."""
    named = "\n".join(f"  each{at}: {{{backend}}}" for at, backend in enumerate(backends))
    config = loads(
        f"server: {{relays: {wanted}}}\nbackends:\n{named}\nmodels: {{m: {{backend: each0}}}}\n", {}, source="test"
    )
    chosen = relays(config, machine, cores)
    return chosen.count, chosen.engine_cores


@pytest.mark.parametrize(
    ("machine", "cores", "backends", "expected"),
    [
        (CPU, 4, [REMOTE], (4, 0)),
        (CPU, 64, [REMOTE], (MOST_AUTO, 0)),
        (CPU, 4, [EMBEDDED], (1, 4)),
        (CPU, 4, [f"{EMBEDDED}, threads: 1"], (3, 1)),
        (CPU, 16, [VLLM], (1, 16)),
        (GPUS, 16, [VLLM], (MOST_AUTO, 2)),
        (GPUS, 16, [f"{VLLM}, tensor_parallel_size: 8"], (6, 10)),
        (GPUS, 8, [f"{VLLM}, replicas: 3"], (2, 6)),
        (GPUS, 8, [VLLM, VLLM, f"{VLLM}, start: demand", f"{VLLM}, start: demand"], (2, 6)),
        (GPUS, 2, [VLLM, VLLM], (1, 2)),
    ],
)
def test_auto_leaves_engines_the_cores_that_they_keep_busy(
    machine: Machine, cores: int, backends: list[str], expected: tuple[int, int]
) -> None:
    assert number(machine, cores, *backends) == expected


def test_a_number_that_is_set_is_the_number() -> None:
    assert number(CPU, 4, EMBEDDED, wanted="2") == (2, 4)
