"""What a Prometheus has seen of a gateway under load, as the panels of the dashboards ask for it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests import ROOT
from tests.journeys.gateway import Gateway, until
from tests.observe.engines import KEY
from tests.observe.pages import PanelQuery, queries
from tests.observe.prometheus import Curve, Prometheus
from tests.observe.traffic import events, traffic

CONFIG: Final = """
global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}
rule_files: ["{rules}"]
scrape_configs:
  - {{job_name: modelport, authorization: {{credentials: {key}}}, static_configs: {gateways}}}
  - job_name: modelport-engines
    metrics_path: /metrics/engines
    authorization: {{credentials: {key}}}
    static_configs: {gateways}
"""
# The same gateway twice, as if there were two: a join that does not say whose series it means fails.
GATEWAYS: Final = '[{{targets: ["{address}"]}}, {{targets: ["{address}"], labels: {{instance: {other}}}}}]'
OTHER: Final = "another:8000"
RULES: Final = ROOT / "docker/prometheus/rules.yml"
STEP_S: Final = 1.0
LOAD_S: Final = 20.0  # at least, so that rates over their interval have a curve
LONGEST_S: Final = 90.0  # on a machine that does other things
VALUES: Final = {
    "instance": ".*",
    "model": ".*",
    "backend": ".*",
    "pair": "lora",
    "key": ".*",
    "__rate_interval": "8s",
    "__range": "20s",
}


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

    def all_curves(self, asked: Sequence[PanelQuery], kept: str | None = None) -> Mapping[PanelQuery, list[Curve]]:
        """Those of all. `kept`: a file that they are written into, for tests/observe/picture.py."""
        curves = {query: self.curves(query) for query in asked}
        if kept:
            Path(kept).write_text(
                json.dumps([[asdict(query), [asdict(curve) for curve in curves[query]]] for query in asked])
            )
        return curves


@contextlib.contextmanager
def under_load(gateway: Gateway, folder: Path) -> Iterator[Seen]:
    """The load is over when the block begins; it goes on until every query has something to show, or for too long."""
    gateways = GATEWAYS.format(address=gateway.url.removeprefix("http://"), other=OTHER)
    config = CONFIG.format(gateways=gateways, rules=RULES, key=KEY)
    with Prometheus(folder, config) as prometheus:
        prometheus.until_scraped()
        start = time.time()
        with traffic(gateway):
            events(gateway)
            until(lambda: time.time() > start + LOAD_S)
            seen = Seen(prometheus, start, time.time())
            while empty(seen.all_curves(queries())) and time.time() < start + LONGEST_S:
                time.sleep(1)
                seen = Seen(prometheus, start, time.time())
        yield seen


def empty(curves: Mapping[PanelQuery, list[Curve]]) -> list[str]:
    """The queries that have nothing to show, with their panels."""
    return [str(query) for query, seen in curves.items() if not seen]
