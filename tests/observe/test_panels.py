"""Every panel's every query has something to show, in a real Prometheus that scrapes a gateway under mixed load."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.journeys.gateway import until
from tests.observe import pages
from tests.observe.engines import observed
from tests.observe.pages import PanelQuery
from tests.observe.prometheus import Curve, Prometheus
from tests.observe.traffic import events, traffic

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - {{job_name: modelport, static_configs: [{{targets: ["{address}"]}}]}}
  - job_name: modelport-engines
    metrics_path: /metrics/engines
    static_configs: [{{targets: ["{address}"]}}]
"""
STEP_S = 1.0
LOAD_S = 20.0  # at least, so that rates over RATE have a curve
VALUES = {
    "instance": ".*",
    "model": ".*",
    "backend": ".*",
    "pair": "lora",
    "__rate_interval": "6s",
    "__range": "20s",
}
DRAWN = os.environ.get("MODELPORT_CURVES")  # a file for tests/observe/picture.py


@dataclass(frozen=True, slots=True)
class Seen:
    """A Prometheus that has scraped the load between these times (seconds since 1970)."""

    prometheus: Prometheus
    start: float
    end: float

    def curves(self, query: PanelQuery) -> list[Curve]:
        """What that query has to show: series with at least one number in them."""
        expression = query.filled(VALUES)
        if not query.is_instant:
            curves = self.prometheus.query_range(expression, self.start, self.end, STEP_S)
            return [curve for curve in curves if any(math.isfinite(value) for _, value in curve.points)]
        samples = self.prometheus.query(expression, self.end)
        return [Curve(each.labels, ((self.end, each.value),)) for each in samples if math.isfinite(each.value)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """The load is over when the tests begin."""
    with observed(tmp_path_factory.mktemp("gateway")) as gateway:
        config = CONFIG.format(address=gateway.url.removeprefix("http://"))
        with Prometheus(tmp_path_factory.mktemp("prometheus"), config) as prometheus:
            prometheus.until_scraped()
            start = time.time()
            with traffic(gateway):
                events(gateway)
                until(lambda: time.time() > start + LOAD_S)
                end = time.time()
            yield Seen(prometheus, start, end)


def test_every_query_of_every_panel_has_a_series(seen: Seen) -> None:
    asked = pages.queries()
    curves = {query: seen.curves(query) for query in asked}
    if DRAWN:
        Path(DRAWN).write_text(json.dumps([[asdict(query), list(map(asdict, curves[query]))] for query in asked]))

    empty = [str(query) for query in asked if not curves[query]]
    assert empty == [], f"{len(empty)} of {len(asked)} queries without a series:\n" + "\n".join(empty)
    assert len(asked) > 80
