"""What the gateway costs in front of a real vLLM: measured and printed, not judged."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT
from tests.live.engines import Live, Record


@pytest.mark.full
def test_the_benchmark_measures_eight_streams_through_the_gateway_and_past_it(
    live: Live, record_property: Record
) -> None:
    command = [sys.executable, "-m", "bench.vllm", live.url, "tiny"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)

    for line in done.stdout.splitlines():
        record_property("bench", line)
    assert done.returncode == 0, done.stderr
    assert "CPU-µs per token" in done.stdout
