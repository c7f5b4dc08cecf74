"""Three real engines side by side, of which one is changed; and three that take turns in the room of one."""

from __future__ import annotations

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.journeys.gateway import until
from tests.live.engines import START_S, Live, Record, backend, config
from tests.live.stream import Stream

pytestmark = pytest.mark.full

NAMES = ("one", "two", "three")
PATIENCE_S = 900.0  # of a client that waits for its turn


def test_a_changed_engine_leaves_its_neighbours_and_their_streams_alone(
    tmp_path: Path, record_property: Record
) -> None:
    def text(**changed: str) -> str:
        first = backend("one", "smollm2", memory_gb="3", kv_cache_memory_bytes="134217728")
        others = backend("two", memory_gb="2"), backend("three", memory_gb="2", **changed)
        return config(first, *others, server="{drain_s: 20, memory_gb: 12}")

    with Live(tmp_path, text()) as gateway:
        pids = {name: gateway.ready(name)["pid"] for name in NAMES}
        stream = Stream(gateway.url, "one")
        began, seen = time.monotonic(), stream.events
        (tmp_path / "modelport.yaml").write_text(text(max_num_seqs="7"))

        assert gateway.post("/admin/reload", {}).status_code == 200
        until(lambda: bool(gateway.backend("three")["pid"] not in (None, pids["three"])), START_S)
        changed = gateway.ready("three")

        stream.goes_on()
        record_property("the changed engine serves after", f"{time.monotonic() - began:.1f} s")
        record_property("events of a neighbour's stream meanwhile", stream.events - seen)
        stream.leave()
        line = Path(f"/proc/{changed['pid']}/cmdline").read_text().split("\0")
        assert "--max-num-seqs=7" in line
        assert {name: gateway.backend(name)["pid"] for name in NAMES[:2]} == {name: pids[name] for name in NAMES[:2]}
        assert [gateway.backend(name)["generation"] for name in NAMES[:2]] == [1, 1]
        asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        replies = [gateway.post("/v1/chat/completions", {"model": name, **asked}) for name in NAMES]
        assert [reply.status_code for reply in replies] == [200, 200, 200]


def test_three_engines_with_room_for_one_answer_thirty_mixed_requests_or_say_when(
    tmp_path: Path, record_property: Record
) -> None:
    """Half of them at a time; each that is answered makes room for the next, of another model."""
    sections = [backend(name, memory_gb="2", start="demand", max_num_seqs="32") for name in NAMES]
    with Live(tmp_path, config(*sections, server="{drain_s: 20, memory_gb: 2}")) as gateway:
        url, began = gateway.base_url, time.monotonic()

        def ask(number: int) -> tuple[int, str]:
            asked = [{"role": "user", "content": f"number {number}"}]
            body = {"model": NAMES[number % 3], "messages": asked, "max_tokens": 16, "stream": number % 2 == 0}
            reply = httpx.post(f"{url}/chat/completions", json=body, timeout=PATIENCE_S)
            is_whole = "[DONE]" in reply.text if body["stream"] else reply.is_success
            if reply.status_code == 503:
                return 503, reply.headers.get("retry-after", "")
            return reply.status_code, "whole" if is_whole and '"error"' not in reply.text else reply.text

        with ThreadPoolExecutor(15) as clients:
            outcomes = Counter(clients.map(ask, range(30)))

        counted = re.findall(r"^modelport_backend_swaps_total\{.*\} (\S+)", _metrics(gateway), re.MULTILINE)
        swaps = sum(map(float, counted))
        restarts = sum(gateway.backend(name)["restarts"] for name in NAMES)
        record_property("answers", ", ".join(f"{count} × {outcome}" for outcome, count in outcomes.items()))
        record_property("swaps and restarts", f"{swaps:g} and {restarts} in {time.monotonic() - began:.0f} s")
        assert {status for status, _ in outcomes} <= {200, 503}
        assert all(outcome == "whole" if status == 200 else int(outcome) > 0 for status, outcome in outcomes)
        assert outcomes[200, "whole"] >= 15
        assert restarts == 0
        assert 2 <= swaps <= 10, "one for each request would be twenty and more"


def _metrics(gateway: Live) -> str:
    return httpx.get(f"{gateway.url}/metrics").text
