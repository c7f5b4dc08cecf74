"""What `modelport plan` shows of the memory of a machine without a GPU is what vLLM finds when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.gateway import until
from tests.live.engines import COMMON, START_S, Live, Record, backend, config

SHARED = "\n".join(line for line in COMMON.splitlines() if "kv_cache_memory_bytes" not in line)


@pytest.mark.full
def test_plan_and_vllm_agree_on_what_fits(tmp_path: Path, record_property: Record) -> None:
    sections = [
        backend(name, start="demand", gpu_memory_utilization=share).replace(COMMON, SHARED)
        for name, share in (("greedy", "0.99"), ("modest", "0.2"))
    ]
    with Live(tmp_path, config(*sections)) as gateway:
        assert gateway.url
        seats = {seat["backend"]: seat for seat in gateway.ask("/admin/plan")["seats"]}
        for name in seats:
            gateway.post_admin(f"/admin/backends/{name}/start", None)
        until(lambda: gateway.backend("greedy")["last_failure"] is not None, START_S)
        reason = gateway.backend("greedy")["last_failure"]["reason"]
        gateway.post_admin("/admin/backends/greedy/stop", None)
        record_property("plan says of 99 %", seats["greedy"]["notes"][-1])
        record_property("vLLM says", reason)

        assert {name: seat["is_possible"] for name, seat in seats.items()} == {"greedy": False, "modest": True}
        assert "memory" in reason
        assert gateway.ready("modest")
