"""The arithmetic of the benchmark in front of vLLM."""

from __future__ import annotations

from bench.vllm import BenchTurn, lines

THROUGH = BenchTurn(tokens=1_000, seconds=2.0, first_s=(0.2, 0.1, 0.3), cpu_ns=50_000_000)
DIRECT = BenchTurn(tokens=1_000, seconds=1.0, first_s=(0.1, 0.1, 0.1))


def test_cpu_is_told_for_each_token_and_ratios_are_made_round_by_round() -> None:
    slow = BenchTurn(2_000, 40.0, (2.0,), 60_000_000), BenchTurn(2_000, 20.0, (1.0,))

    printed = lines([THROUGH, slow[0]], [DIRECT, slow[1]])

    assert printed[0] == "relay, CPU-µs per token: 40.0 (30.0–50.0)"
    assert printed[3] == "tokens/s, through ÷ direct: 0.500 (0.500–0.500)"
    assert printed[-1] == "first token of one stream, through ÷ direct: 2.00 (2.00–2.00)"
