"""What a real vLLM shows of itself is what the dashboards ask for, and what the stand-in for it was recorded from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests import ROOT
from tests.live.engines import COMMON, MODELS, START_S, Record
from tests.observe import pages
from tests.observe.engines import KEY, observed
from tests.observe.seen import Seen, empty, under_load
from tests.observe.traffic import bearer

RECORDING = ROOT / "tests/recorded/vllm/metrics.prom"
SAMPLE = re.compile(r"^(vllm:\w+)(?:\{(.*)\})? ", re.MULTILINE)
LABEL = re.compile(r'(\w+)="')

pytestmark = pytest.mark.full


@dataclass(frozen=True, slots=True)
class Observed:
    """What Prometheus has seen of the load, and the page of the engines' own metrics after it."""

    seen: Seen
    page: str


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Mixed load on the real vLLM with a real adapter, on the embedded engine, and on the stand-ins for the others."""
    settings = dict(line.strip().split(": ", 1) for line in COMMON.splitlines())
    settings |= {
        "model": str(MODELS / "smollm2"),
        "adapters": f"{{tuned: {MODELS / 'smollm2-lora'}}}",
        "kv_cache_memory_bytes": "134217728",
        "max_num_seqs": "2",
    }
    line = "vllm: {" + ", ".join(f"{key}: {value}" for key, value in settings.items()) + "}"
    with observed(tmp_path_factory.mktemp("gateway"), line, START_S) as gateway:
        address = f"{gateway.url}/metrics/engines"
        with under_load(gateway, tmp_path_factory.mktemp("prometheus")) as seen:
            yield Observed(seen, httpx.get(address, timeout=60, headers=bearer(KEY)).text)


def samples(page: str, backend: str | None = None) -> dict[str, set[str]]:
    """The series of vLLM on a page, each with the names of its labels but `backend`."""
    names: dict[str, set[str]] = {}
    for name, labels in SAMPLE.findall(page):
        if backend is None or f'backend="{backend}"' in labels:
            names.setdefault(name, set()).update(set(LABEL.findall(labels)) - {"backend"})
    return names


def test_every_query_of_every_panel_has_a_series(load: Observed, record_property: Record) -> None:
    queries = pages.queries()
    curves = load.seen.all_curves(queries, os.environ.get("MODELPORT_CURVES"))

    nothing = empty(curves)
    record_property("queries of panels, and those without a series", f"{len(queries)}, {len(nothing)}")
    own = [query for query in queries if "vllm:" in query.expression]
    record_property(
        "vLLM's own curves, greatest values",
        json.dumps(
            {
                f"{query.panel}: {query.named(curve.labels)}": round(max(value for _, value in curve.points), 4)
                for query in own
                for curve in curves[query]
                if curve.labels.get("backend") == "vllm"
            }
        ),
    )
    assert nothing == []
    assert all(any(curve.labels["backend"] == "vllm" for curve in curves[query]) for query in own)


def test_it_shows_every_series_that_was_recorded_of_it(load: Observed) -> None:
    shown, recorded = samples(load.page, "vllm"), samples(RECORDING.read_text())

    assert {name: labels for name, labels in recorded.items() if not labels <= shown.get(name, set())} == {}
